"""Whatever stops a training, nothing is lost: killed, disk full, broken data, broken checkpoint."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tiny_training as tiny
import torch

from xrecon_bundle.files import InputError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def unbroken(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of four epochs of four steps that nothing stopped."""
    folder = tmp_path_factory.mktemp("unbroken")
    tiny.train(dataset, folder)
    return folder


def same_training(first: Path, second: Path) -> bool:
    """Generator, discriminator, best metric and the kept model are the same, bit for bit."""
    states = tiny.newest_checkpoint(first), tiny.newest_checkpoint(second)
    models = (torch.load(folder / "model.pt", weights_only=True) for folder in (first, second))
    return (
        all(tiny.equal(*(state[name] for state in states)) for name in ("generator", "discriminator"))
        and states[0]["best_model"] == states[1]["best_model"]
        and tiny.equal(*models)
    )


@pytest.mark.parametrize(
    ("target", "call"),
    [
        pytest.param("xrecon_bundle.engines.adversarial._step", 1, id="before the first step"),
        pytest.param("xrecon_bundle.engines.adversarial._step", 21, id="in the middle of epoch 3"),
        pytest.param("monai.metrics.CumulativeIterationMetric.__call__", 14, id="in a validation"),
        pytest.param("torch.save", 3, id="while a checkpoint or model.pt is written"),
        pytest.param("os.fsync", 2, id="a checkpoint written, not yet renamed"),
        pytest.param("xrecon_bundle.handlers.TrainingCheckpoint._found", 3, id="renamed, the oldest not yet deleted"),
    ],
)
def test_killed_and_resumed_it_ends_with_the_same_weights(
    target: str, call: int, dataset: Path, unbroken: Path, tmp_path: Path
) -> None:
    tiny.train_until_killed(dataset, tmp_path, target, call, {})
    tiny.train(dataset, tmp_path, resume=True)
    assert same_training(tmp_path, unbroken)
    assert [path.name for path in tiny.checkpoints(tmp_path)] == ["checkpoint_epoch=3.pt", "checkpoint_epoch=4.pt"]
    assert not list(tmp_path.rglob(".checkpoint*"))


@pytest.mark.slow
def test_it_ends_with_the_same_weights_when_worker_processes_load_and_augment(dataset: Path, tmp_path: Path) -> None:
    settings = {"num_workers": 2, "cache_rate": 0.0}
    tiny.train(dataset, tmp_path / "unbroken", **settings)
    tiny.train_until_killed(dataset, tmp_path / "run", "xrecon_bundle.engines.adversarial._step", 21, settings)
    tiny.train(dataset, tmp_path / "run", **settings, resume=True)
    assert same_training(tmp_path / "run", tmp_path / "unbroken")


def test_another_seed_is_another_training(dataset: Path, unbroken: Path, tmp_path: Path) -> None:
    tiny.train(dataset, tmp_path, seed=8)
    assert not same_training(tmp_path, unbroken)


def test_a_finished_training_resumed_stays_as_it_is(dataset: Path, unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    tiny.train(dataset, tmp_path, resume=True)
    assert same_training(tmp_path, unbroken)


def test_a_loss_that_is_not_finite_keeps_the_batch_and_the_checkpoint(dataset: Path, tmp_path: Path) -> None:
    poisoned, run = shutil.copytree(dataset, tmp_path / "dataset"), tmp_path / "run"
    tiny.train(dataset, run, max_epochs=2)
    before = {path.name: path.read_bytes() for path in tiny.checkpoints(run)}
    poison(poisoned / "case2")
    with pytest.raises(InputError, match=r"batch of case2 gave a generator loss of nan in epoch 3") as caught:
        tiny.train(poisoned, run, resume=True)
    assert {path.name: path.read_bytes() for path in tiny.checkpoints(run)} == before
    (kept,) = (run / "failed").iterdir()
    assert str(kept) in str(caught.value)
    batch = np.load(kept, allow_pickle=False)
    assert batch["case"].tolist() == ["case2"]
    assert np.isnan(batch["image"]).any()
    assert batch["label"].shape == (1, 1, *(tiny.SIZE,) * 3)


@pytest.mark.parametrize(
    ("call", "file"),
    [pytest.param(1, "model.pt", id="model"), pytest.param(2, "checkpoint_epoch=1.pt", id="checkpoint")],
)
def test_a_full_disk_is_named_and_leaves_no_half_file(call: int, file: str, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{file}: could not be written"), DiskFull(call):
        tiny.train(dataset, tmp_path)
    assert not (tmp_path / file).exists()
    assert not list((tmp_path / "checkpoints").glob("*"))
    assert not [path for path in tmp_path.rglob(".*") if path.name.startswith((".model", ".checkpoint"))]


@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_a_case_that_cannot_be_read_is_named(damage: str, dataset: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(dataset, tmp_path / "dataset")
    path = broken / "case1" / "ct.nii.gz"
    if damage == "missing":
        # list_cases leaves out what is not there; this file goes while the training runs.
        with (
            pytest.raises(InputError, match=r"case1/ct\.nii\.gz: cannot be read"),
            tiny.at_call("xrecon_bundle.engines.adversarial._step", 1, path.unlink),
        ):
            tiny.train(broken, tmp_path / "run", cache_rate=0.0, **{"train#sampler#shuffle": False})
        return
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"case1/ct\.nii\.gz: cannot be read"):
        tiny.train(broken, tmp_path / "run", cache_rate=0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param("truncate", r"checkpoint_epoch=4\.pt: damaged.*delete it to resume from the one before", id="cut"),
        pytest.param({"network_def#width": 5}, r"checkpoint_epoch=4\.pt: the generator in it is of another", id="size"),
        pytest.param({"resume": False}, "checkpoints of another training are here", id="not resumed"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(
    change: str | dict[str, Any], message: str, dataset: Path, unbroken: Path, tmp_path: Path
) -> None:
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    newest = tiny.checkpoints(tmp_path)[-1]
    if change == "truncate":
        newest.write_bytes(newest.read_bytes()[:-1000])
        change = {}
    with pytest.raises(InputError, match=message):
        tiny.train(dataset, tmp_path, **({"resume": True, "max_epochs": 5} | change))
    if not change:
        newest.unlink()
        tiny.train(dataset, tmp_path, resume=True)
        assert same_training(tmp_path, unbroken)


def test_200_steps_under_injected_faults_lose_nothing(dataset: Path, tmp_path: Path) -> None:
    settings = {"max_epochs": 50, "decay_start": 20, "val_interval": 25, "checkpoint_interval": 2, "ema_decay": 0.9}
    unbroken, run = tmp_path / "unbroken", tmp_path / "run"
    tiny.train(dataset, unbroken, **settings)

    tiny.train_until_killed(dataset, run, "xrecon_bundle.engines.adversarial._step", 51, settings)
    with pytest.raises(InputError, match="could not be written"), DiskFull(2):
        tiny.train(dataset, run, **settings, resume=True)
    with pytest.raises(InputError, match="case2 gave a generator loss of nan"):
        tiny.train(poison(shutil.copytree(dataset, tmp_path / "poisoned"), "case2"), run, **settings, resume=True)
    tiny.train_until_killed(dataset, run, "torch.save", 7, settings)
    newest = tiny.checkpoints(run)[-1]
    newest.write_bytes(newest.read_bytes()[:-1000])
    with pytest.raises(InputError, match="damaged"):
        tiny.train(dataset, run, **settings, resume=True)
    newest.unlink()
    tiny.train_until_killed(dataset, run, "os.fsync", 5, settings)
    tiny.train(dataset, run, **settings, resume=True)

    assert same_training(run, unbroken)
    averages = (tiny.newest_checkpoint(folder)["averaged_network"] for folder in (run, unbroken))
    assert tiny.equal(*averages)


def poison(folder: Path, case: str = ".") -> Path:
    """Radiographs with a hole of NaN."""
    path = folder / case / "radiographs.nii.gz"
    image = nibabel.load(path)
    pixels = image.get_fdata(dtype=np.float32)
    pixels[3:5, 3:5] = np.nan
    nibabel.save(nibabel.Nifti1Image(pixels, image.affine), path)
    return folder


class DiskFull:
    """From ``torch.save`` number ``call`` on, files cannot grow beyond 1000 bytes."""

    def __init__(self, call: int) -> None:
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.patch = tiny.at_call("torch.save", call, lambda: self.limit(1000))

    def limit(self, size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, self.limits[1]))

    def __enter__(self) -> None:
        self.patch.start()

    def __exit__(self, *_: object) -> None:
        self.patch.stop()
        self.limit(self.limits[0])

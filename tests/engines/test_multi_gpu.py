"""Two processes (gloo, on the CPU) train and evaluate as one does with twice the batch."""

from __future__ import annotations

import csv
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import pytest
import tiny_training as tiny
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# What differs between the processes: dropout and noise of the images.
NO_CHANCE = {"network_def#dropout": 0.0, "preprocessing#transforms#1#prob": 0.0}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_dataset(tmp_path_factory.mktemp("dataset"))


def in_two_processes(function: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Run the function as ``torchrun --nproc_per_node=2`` would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    codes = tiny.in_processes(_as_rank, [(rank, port, function, args, kwargs) for rank in range(2)])
    assert codes == [0, 0]


def _as_rank(rank: int, port: int, function: Callable[..., None], args: tuple, kwargs: dict[str, Any]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    function(*args, **kwargs)


def losses(folder: Path) -> dict[str, list[float]]:
    """Every curve that TensorBoard has."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_training_gives_the_losses_and_weights_of_one_process(dataset: Path, tmp_path: Path) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    in_two_processes(tiny.train, dataset, two, "multi_gpu_train.yaml", **NO_CHANCE)
    tiny.train(dataset, one, batch_size=2, **NO_CHANCE)
    assert losses(two).keys() == losses(one).keys()
    # One file of the training and one of the validation: the first process alone writes.
    assert len(list((two / "tensorboard").iterdir())) == len(list((one / "tensorboard").iterdir())) == 2
    for name, curve in losses(one).items():
        assert losses(two)[name] == pytest.approx(curve, rel=1e-4), name
    first, second = tiny.newest_checkpoint(two), tiny.newest_checkpoint(one)
    for network in ("generator", "discriminator"):
        for name, weight in second[network].items():
            torch.testing.assert_close(first[network][name], weight, rtol=1e-3, atol=1e-5)


def test_a_training_of_two_processes_goes_on_in_one(dataset: Path, tmp_path: Path) -> None:
    in_two_processes(tiny.train, dataset, tmp_path, "multi_gpu_train.yaml", max_epochs=2)
    tiny.train(dataset, tmp_path, max_epochs=3, resume=True)
    assert tiny.newest_checkpoint(tmp_path)["epoch"] == 3


def evaluate(dataset: Path, model: Path, output: Path, *overlays: str) -> None:
    monai.bundle.run(
        config_file=[str(tiny.CONFIGS / name) for name in ("evaluate.yaml", *overlays)],
        bundle_root=str(tiny.CONFIGS.parent),
        dataset_dir=str(dataset),
        output_dir=str(output),
        ckpt_path=str(model),
        spatial_size=tiny.SIZE,
        split="validation",
        network_def={"_target_": "tiny_training.TinyGenerator"},
        segmenter="$None",
    )


def test_evaluation_reports_every_case_once(dataset: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    torch.save(tiny.TinyGenerator().state_dict(), model)
    (tmp_path / "two" / "pages").mkdir(parents=True)
    (tmp_path / "two" / "pages" / "of a former evaluation.html").touch()
    evaluate(dataset, model, tmp_path / "one")
    in_two_processes(evaluate, dataset, model, tmp_path / "two", "multi_gpu_evaluate.yaml")
    rows = [list(csv.DictReader((tmp_path / folder / "metrics.csv").open())) for folder in ("one", "two")]
    assert [row["case"] for row in rows[1]] == ["case4", "case5"]
    for folder in ("one", "two"):
        pages = {path.name for path in (tmp_path / folder / "pages").iterdir()}
        assert pages == {"case4.html", "case5.html"}
    for one, two in zip(*rows, strict=True):
        assert float(two["psnr"]) == pytest.approx(float(one["psnr"]), rel=1e-5)

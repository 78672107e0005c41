"""What a training keeps: the best weights, the newest checkpoints. tests/engines/test_never_lose_work.py breaks it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events

from xrecon_bundle.engines import ConstantThenLinearLR
from xrecon_bundle.files import InputError
from xrecon_bundle.handlers import SaveBestModel, TrainingCheckpoint, better


def engine_adding_one(network: torch.nn.Linear) -> Engine:
    def step(engine: Engine, batch: int) -> None:
        with torch.no_grad():
            network.weight.add_(1)

    engine = Engine(step)
    engine.state.epoch_length = 3  # known before the run, as MONAI's trainers do
    return engine


def linear() -> torch.nn.Linear:
    network = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(network.weight)
    return network


def trained(folder: Path, max_epochs: int, **keeping: object) -> torch.nn.Linear:
    network = linear()
    engine = engine_adding_one(network)
    TrainingCheckpoint({"network": network}, str(folder), **keeping).attach(engine)
    engine.run([0, 0, 0], max_epochs=max_epochs)
    return network


def evaluator() -> Engine:
    engine = Engine(lambda engine, batch: None)
    engine.state.key_metric_name = "ssim_avg"
    return engine


def test_only_the_best_validation_is_kept(tmp_path: Path) -> None:
    network, path = linear(), tmp_path / "model.pt"
    engine = evaluator()
    save = SaveBestModel(network, str(path))
    for epoch, best_epoch, kept in ((1, 1, 1.0), (2, 1, 1.0), (3, 3, 3.0)):
        torch.nn.init.constant_(network.weight, epoch)
        engine.state.epoch, engine.state.best_metric_epoch, engine.state.best_metric = epoch, best_epoch, 0.5
        save(engine)
        assert torch.load(path, weights_only=True)["weight"].item() == kept


def test_the_best_metric_is_taken_up(tmp_path: Path) -> None:
    first, second = (SaveBestModel(linear(), str(tmp_path / "model.pt")) for _ in range(2))
    engines = evaluator(), evaluator()
    first.attach(engines[0])
    second.attach(engines[1])
    engines[0].state.best_metric, engines[0].state.best_metric_epoch = torch.tensor(0.75), 3
    second.load_state_dict(first.state_dict())
    assert (engines[1].state.best_metric, engines[1].state.best_metric_epoch) == (0.75, 3)


def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    trained(tmp_path, max_epochs=7, interval=2, n_saved=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_epoch=6.pt", "checkpoint_epoch=7.pt"]


def test_those_of_the_run_before_are_rotated_too(tmp_path: Path) -> None:
    trained(tmp_path, max_epochs=9)
    trained(tmp_path, max_epochs=11, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_epoch=10.pt", "checkpoint_epoch=11.pt"]


@pytest.mark.parametrize(("first", "then", "weight"), [(2, 5, 15.0), (5, 5, 15.0), (0, 2, 6.0)])
def test_a_resumed_training_goes_on_where_it_stopped(first: int, then: int, weight: float, tmp_path: Path) -> None:
    if first:
        trained(tmp_path, max_epochs=first)
    assert trained(tmp_path, max_epochs=then, resume=True).weight.item() == weight


def test_a_new_training_does_not_mix_with_another(tmp_path: Path) -> None:
    trained(tmp_path, max_epochs=2)
    with pytest.raises(InputError, match="--resume true"):
        trained(tmp_path, max_epochs=2)


@pytest.mark.parametrize("content", [b"", b"half", None])
def test_a_damaged_checkpoint_is_named(content: bytes | None, tmp_path: Path) -> None:
    if content is None:
        torch.save({"network": {}}, tmp_path / "checkpoint_epoch=3.pt")
    else:
        (tmp_path / "checkpoint_epoch=3.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint_epoch=3\.pt: damaged or not a checkpoint"):
        trained(tmp_path, max_epochs=5, resume=True)


def test_a_checkpoint_of_another_kind_of_training_is_named(tmp_path: Path) -> None:
    torch.save({"network": {}, "epoch": 3, "ema": {}}, tmp_path / "checkpoint_epoch=3.pt")
    with pytest.raises(InputError, match="not in both: ema"):
        trained(tmp_path, max_epochs=5, resume=True)


@pytest.mark.parametrize(
    ("name", "lower"),
    [("psnr", False), ("ssim_avg", False), ("ssim_3d_body", False), ("cosine_similarity", False)]
    + [(name + body, True) for name in ("mae", "mae_hu", "mse") for body in ("", "_body")],
)
def test_of_an_error_less_is_better(name: str, lower: bool) -> None:
    assert better(name)(1.0, 2.0) == lower
    assert better(name)(2.0, 1.0) != lower
    assert not better(name)(1.0, 1.0)


@pytest.mark.parametrize(("asked", "expected"), [(1e-3, 1e-3 * 0.75), (1e-6, 1e-6 * 0.75)])
def test_whoever_resumes_may_change_the_learning_rate(asked: float, expected: float, tmp_path: Path) -> None:
    """Epoch 5 of 8 with the fall from epoch 4 on: three quarters."""

    def run(rate: float, epochs: int, resume: bool) -> dict:
        network = linear()
        optimizer = torch.optim.Adam(network.parameters(), lr=rate)
        scheduler = ConstantThenLinearLR(optimizer, decay_start=4, max_epochs=8)
        engine = engine_adding_one(network)
        seen = []
        objects = {"optimizer": optimizer, "scheduler": scheduler}
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: seen.append(optimizer.param_groups[0]["lr"]))
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: (optimizer.step(), scheduler.step()))
        TrainingCheckpoint(objects, str(tmp_path), resume=resume).attach(engine)
        engine.run([0], max_epochs=epochs)
        return seen

    run(1e-3, 5, resume=False)
    assert run(asked, 6, resume=True) == [pytest.approx(expected)]

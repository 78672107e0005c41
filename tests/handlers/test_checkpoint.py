"""What a training keeps: the best weights, checkpoints that can be taken up, nothing from a failed write."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine

from xrecon_bundle.files import InputError
from xrecon_bundle.handlers import SaveBestModel, TrainingCheckpoint


def engine_adding_one(network: torch.nn.Linear) -> Engine:
    def step(engine: Engine, batch: int) -> None:
        with torch.no_grad():
            network.weight.add_(1)

    engine = Engine(step)
    engine.state.max_epochs = 5  # known before the run, as MONAI's trainers do; without, Ignite starts from epoch 0
    return engine


def linear() -> torch.nn.Linear:
    network = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(network.weight)
    return network


def test_only_the_best_validation_is_kept(tmp_path: Path) -> None:
    network, path = linear(), tmp_path / "model.pt"
    save = SaveBestModel(network, str(path))
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.key_metric_name = "ssim_avg"
    for epoch, best_epoch, kept in ((1, 1, 1.0), (2, 1, 1.0), (3, 3, 3.0)):
        torch.nn.init.constant_(network.weight, epoch)
        evaluator.state.epoch, evaluator.state.best_metric_epoch, evaluator.state.best_metric = epoch, best_epoch, 0.5
        save(evaluator)
        assert torch.load(path, weights_only=True)["weight"].item() == kept


def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    network = linear()
    engine = engine_adding_one(network)
    TrainingCheckpoint({"network": network}, str(tmp_path), interval=2, n_saved=2).attach(engine)
    engine.run([0], max_epochs=7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_epoch=6.pt", "checkpoint_epoch=7.pt"]


def test_a_resumed_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first = linear()
    engine = engine_adding_one(first)
    TrainingCheckpoint({"network": first}, str(tmp_path)).attach(engine)
    engine.run([0, 0, 0], max_epochs=2)
    second = linear()
    resumed = engine_adding_one(second)
    TrainingCheckpoint({"network": second}, str(tmp_path), resume=True).attach(resumed)
    resumed.run([0, 0, 0])
    assert second.weight.item() == 15.0
    assert resumed.state.epoch == 5


def test_without_a_checkpoint_a_resumed_training_starts_afresh(tmp_path: Path) -> None:
    network = linear()
    engine = engine_adding_one(network)
    TrainingCheckpoint({"network": network}, str(tmp_path), resume=True).attach(engine)
    engine.run([0], max_epochs=1)
    assert network.weight.item() == 1.0


def test_a_corrupted_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_epoch=3.pt").write_bytes(b"half")
    with pytest.raises(InputError, match=r"checkpoint_epoch=3\.pt"):
        TrainingCheckpoint({"network": linear()}, str(tmp_path), resume=True).attach(engine_adding_one(linear()))

"""Ignite handlers that keep what a training has learnt, whatever stops it."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch.optim.lr_scheduler import LambdaLR

from ..files import InputError, atomic_path
from ..networks.weights import save_weights

logger = logging.getLogger(__name__)


class SaveBestModel:
    """Write ``network``'s plain state dict to ``path`` whenever the validation's key metric is the best so far.

    The file is what ``configs/inference.yaml`` and ``xrecon reconstruct`` load. Attach to the validation's evaluator.
    ``state_dict`` is the best metric so far, for a checkpoint: without it, a resumed run would take its first
    validation for the best.
    """

    def __init__(self, network: torch.nn.Module, path: str) -> None:
        self.network = network
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        """Save after each validation that improved the best metric."""
        self._state: Any = engine.state  # MONAI adds its metrics to Ignite's state
        engine.add_event_handler(Events.COMPLETED, self)

    @idist.one_rank_only()
    def __call__(self, engine: Engine) -> None:
        """Save if this validation is the best one."""
        state: Any = engine.state
        if state.best_metric_epoch != state.epoch:
            return
        try:
            save_weights(self.network.state_dict(), self.path)
        except (OSError, RuntimeError) as error:
            raise _not_written(self.path, error) from error
        logger.info("best %s so far, %.4f: wrote %s", state.key_metric_name, state.best_metric, self.path)

    def state_dict(self) -> dict[str, float]:
        """The best metric and the epoch that reached it."""
        return {"metric": float(self._state.best_metric), "epoch": self._state.best_metric_epoch}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take up what :meth:`state_dict` gave."""
        self._state.best_metric, self._state.best_metric_epoch = state["metric"], state["epoch"]


class TrainingCheckpoint:
    """Keep the whole state of a training in ``folder`` and take it up again.

    A checkpoint is written to a temporary file, flushed to the disk and renamed, then the oldest is deleted: whenever
    the process or the machine dies, the newest file is whole. Of several processes the first one writes, and all load.

    Args:
        objects: name to object with ``state_dict`` and ``load_state_dict``; the epoch is added. Only plain values and
            tensors: checkpoints are loaded with ``weights_only``. A scheduler keeps the learning rate that it was made
            with: whoever resumes may lower it.
        folder: where ``checkpoint_epoch=N.pt`` files are kept.
        interval: epochs between two checkpoints.
        n_saved: how many of the newest to keep.
        resume: start from the newest checkpoint in ``folder``; without one, start afresh.

    Raises:
        InputError: in the run, when the newest checkpoint cannot be read or is of another training, when one cannot be
            written, or when a new training would mix its checkpoints with those of another.
    """

    def __init__(
        self, objects: dict[str, Any], folder: str, interval: int = 1, n_saved: int = 2, resume: bool = False
    ) -> None:
        self.objects = objects
        self.folder = Path(folder)
        self.interval = interval
        self.n_saved = n_saved
        self.resume = resume

    def attach(self, engine: Engine) -> None:
        """Load before the first epoch, save after every ``interval`` epochs and at the end."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval) | Events.COMPLETED, self._save)

    def _start(self, engine: Engine) -> None:
        if found := self._found():
            if not self.resume:
                raise InputError(
                    f"{self.folder}: checkpoints of another training are here; go on with it by --resume true, "
                    "give another --ckpt_dir, or delete them"
                )
            self._load(engine, found[-1])
        elif self.resume:
            logger.info("no checkpoint in %s: starting afresh", self.folder)

    def _load(self, engine: Engine, path: Path) -> None:
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            epoch = checkpoint.pop("epoch")
        except Exception as error:
            raise InputError(
                f"{path}: damaged or not a checkpoint ({_first_line(error)}); delete it to resume from the one before"
            ) from error
        if checkpoint.keys() != self.objects.keys():
            missing = ", ".join(sorted(checkpoint.keys() ^ self.objects.keys()))
            raise InputError(f"{path}: a checkpoint of another kind of training (not in both: {missing})")
        rates = {name: item.base_lrs for name, item in self.objects.items() if isinstance(item, LambdaLR)}
        for name, item in self.objects.items():
            try:
                item.load_state_dict(checkpoint[name])
            except Exception as error:
                raise InputError(
                    f"{path}: the {name} in it is of another network or size; resume with the network_preset, "
                    f"spatial_size and other settings that it was made with, or give another --ckpt_dir"
                ) from error
        for name, base_lrs in rates.items():
            _set_rates(self.objects[name], base_lrs)
        engine.state.epoch = epoch
        engine.state.iteration = epoch * engine.state.epoch_length
        logger.info("resumed from %s", path)

    @idist.one_rank_only()
    def _save(self, engine: Engine) -> None:
        path = self.folder / f"checkpoint_epoch={engine.state.epoch}.pt"
        if path.exists():  # the end of the run is also the end of an epoch
            return
        for leftover in self.folder.glob(".checkpoint_epoch=*"):  # of a run that was killed while it wrote
            shutil.rmtree(leftover)
        content = {name: item.state_dict() for name, item in self.objects.items()} | {"epoch": engine.state.epoch}
        try:
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            raise _not_written(path, error) from error
        for old in self._found()[: -self.n_saved]:
            old.unlink()

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint_epoch=*.pt"), key=lambda path: int(path.stem.split("=")[1]))


def _set_rates(scheduler: LambdaLR, base_lrs: list[Any]) -> None:
    """Go on with the rates that the configuration asks for, not with those of the checkpoint."""
    if scheduler.base_lrs == base_lrs:
        return
    logger.info("learning rate %s, before it was %s", base_lrs, scheduler.base_lrs)
    scheduler.base_lrs = base_lrs
    groups = scheduler.optimizer.param_groups
    for group, base, factor in zip(groups, base_lrs, scheduler.lr_lambdas, strict=True):
        group["initial_lr"], group["lr"] = base, base * factor(scheduler.last_epoch)
    scheduler._last_lr = [group["lr"] for group in groups]


def _not_written(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: could not be written ({_first_line(error)}); what was written before is whole: free disk space or "
        "get write permission, and go on with --resume true"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

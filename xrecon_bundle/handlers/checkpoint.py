"""Ignite handlers that keep what a training has learnt."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver

from ..files import InputError
from ..networks.weights import save_weights

logger = logging.getLogger(__name__)


class SaveBestModel:
    """Write ``network``'s plain state dict to ``path`` whenever the validation's key metric is the best so far.

    The file is what ``configs/inference.yaml`` and ``xrecon reconstruct`` load. Attach to the validation's evaluator.
    """

    def __init__(self, network: torch.nn.Module, path: str) -> None:
        self.network = network
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        """Save after each validation that improved the best metric."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save if this validation is the best one."""
        if engine.state.best_metric_epoch == engine.state.epoch:
            save_weights(self.network.state_dict(), self.path)
            logger.info(
                "best %s so far, %.4f: wrote %s", engine.state.key_metric_name, engine.state.best_metric, self.path
            )


class TrainingCheckpoint:
    """Keep the whole state of a training in ``folder``, atomically, and take it up again.

    Args:
        objects: name to object with ``state_dict`` and ``load_state_dict``; how far the trainer is, is added.
        folder: where ``checkpoint_epoch=N.pt`` files are kept.
        interval: epochs between two checkpoints.
        n_saved: how many of the newest to keep.
        resume: start from the newest checkpoint in ``folder``; without one, start afresh.
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
        to_save = {**self.objects, "progress": _Progress(engine)}
        if self.resume:
            self._load(to_save)
        saver = Checkpoint(
            to_save,
            DiskSaver(self.folder, require_empty=False),
            filename_prefix="checkpoint",
            filename_pattern="{filename_prefix}_epoch={global_step}.{ext}",
            n_saved=self.n_saved,
            score_function=lambda engine: engine.state.epoch,
            global_step_transform=lambda engine, _: engine.state.epoch,
        )
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval) | Events.COMPLETED, saver)

    def _load(self, to_load: dict[str, Any]) -> None:
        found = sorted(self.folder.glob("checkpoint_epoch=*.pt"), key=lambda path: int(path.stem.split("=")[1]))
        if not found:
            logger.info("no checkpoint in %s: starting afresh", self.folder)
            return
        try:
            Checkpoint.load_objects(to_load, torch.load(found[-1], map_location="cpu", weights_only=True))
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"{found[-1]}: not a checkpoint of this training ({reason}); delete it to use the one before"
            ) from error
        logger.info("resumed from %s", found[-1])


class _Progress:
    """Epoch and iteration of an engine. Its own state dict would pickle whole networks."""

    def __init__(self, engine: Engine) -> None:
        self.state = engine.state

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.state.epoch, "iteration": self.state.iteration}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.state.epoch, self.state.iteration = state["epoch"], state["iteration"]

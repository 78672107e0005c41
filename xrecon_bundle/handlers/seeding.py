"""Randomness that depends on the epoch alone, so that a resumed training is the same training."""

from __future__ import annotations

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from ignite.utils import manual_seed
from monai.data.utils import set_rnd
from torch.utils.data import Dataset


class SeedEpoch:
    """Seed Python, NumPy, PyTorch and the random transforms from seed, epoch and process when an epoch starts.

    A run that is killed and resumed at an epoch's end then draws what an unbroken one would have drawn (dropout,
    augmentation, also in the loader's worker processes), and no generator's state has to be saved.

    Args:
        seed: of the training.
        dataset: of the training; everything in it that has ``set_random_state`` is seeded.
    """

    def __init__(self, seed: int, dataset: Dataset) -> None:
        self.seed = seed
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Seed before the epoch's first batch is drawn."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed for the engine's present epoch."""
        sequence = np.random.SeedSequence((self.seed, engine.state.epoch, idist.get_rank()))
        seed = int(sequence.generate_state(1)[0])
        manual_seed(seed)
        set_rnd(self.dataset, seed)

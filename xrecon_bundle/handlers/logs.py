"""One clear line an epoch."""

from __future__ import annotations

import logging

import ignite.distributed as idist
from ignite.engine import Engine, Events
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

logger = logging.getLogger(__name__)


class EpochLog:
    """Log the engine's metrics once an epoch: ``train 12/200: loss 0.1234, ...``.

    Args:
        name: what the line begins with.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def attach(self, engine: Engine) -> None:
        """Log after every epoch, when the metrics are there."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    @idist.one_rank_only()
    def __call__(self, engine: Engine) -> None:
        """Log one line without tearing progress bars."""
        state = engine.state
        values = ", ".join(f"{name} {value:.4f}" for name, value in state.metrics.items())
        with logging_redirect_tqdm(tqdm_class=tqdm):
            logger.info("%s %d/%d: %s", self.name, state.epoch, state.max_epochs, values)

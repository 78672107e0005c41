"""The moving average of a network's weights, which reconstructs better than the weights of the last step."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from torch import nn


class MovingAverage:
    """Keep ``average`` the exponential moving average of ``network``'s weights over the iterations.

    The decay is ``min(decay, (1 + n) / (10 + n))`` in iteration n, so that the average forgets the initial weights
    however short the training is. Running statistics are averaged too, since single cases make them noisy; counters are
    copied. Not Ignite's ``EMAHandler``: its warm-up starts again when a training resumes, and it shares the counters.

    Args:
        network: the network being trained, not wrapped for distributed training.
        average: a copy of it, or ``network`` itself: then there is nothing to do.
        decay: share of the average that an iteration keeps, in [0, 1).

    Raises:
        ValueError: ``decay`` is outside [0, 1).
    """

    def __init__(self, network: nn.Module, average: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), not {decay}")
        self.network = network
        self.average = average
        self.decay = decay

    def attach(self, engine: Engine) -> None:
        """Update after every iteration."""
        if self.average is not self.network:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        """Take the network's present weights in."""
        iteration = engine.state.iteration
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        for average, weight in zip(self.average.parameters(), self.network.parameters(), strict=True):
            average.lerp_(weight, 1 - decay)
        for kept, buffer in zip(self.average.buffers(), self.network.buffers(), strict=True):
            if buffer.is_floating_point():
                kept.lerp_(buffer, 1 - decay)
            else:
                kept.copy_(buffer)

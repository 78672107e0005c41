"""The paper's learning rate schedule."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class ConstantThenLinearLR(LambdaLR):
    """Constant until epoch ``decay_start``, then linear to zero at ``max_epochs`` (the paper: 100 and 200)."""

    def __init__(self, optimizer: Optimizer, decay_start: int, max_epochs: int) -> None:
        span = max(1, max_epochs - decay_start)
        super().__init__(optimizer, lambda epoch: 1.0 - max(0, epoch - decay_start) / span)

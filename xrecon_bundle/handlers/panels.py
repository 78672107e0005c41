"""Image panels in TensorBoard: the cases of the validation as a radiologist would look at them."""

from __future__ import annotations

from typing import cast

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from torch.utils.tensorboard import SummaryWriter

from ..frame import unit_to_hu
from ..report.figures import draw_case


class ReconstructionPanels:
    """Draw the first ``count`` cases of every validation into TensorBoard.

    Args:
        log_dir: TensorBoard's folder.
        count: how many cases.
    """

    def __init__(self, log_dir: str, count: int = 2) -> None:
        self.log_dir = log_dir
        self.count = count
        self._writer: SummaryWriter | None = None
        self._drawn = 0

    def attach(self, engine: Engine) -> None:
        """Draw during the evaluator's run; ``ValidationHandler`` gives it the trainer's epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._draw)

    def _start(self, engine: Engine) -> None:
        self._drawn = 0

    @idist.one_rank_only()
    def _draw(self, engine: Engine) -> None:
        for item in cast(list, engine.state.output):
            if self._drawn >= self.count:
                return
            self._writer = self._writer or SummaryWriter(self.log_dir)
            image, label, pred = (
                np.asarray(item[key].detach().cpu()) for key in (CommonKeys.IMAGE, CommonKeys.LABEL, CommonKeys.PRED)
            )
            figure = draw_case(image, unit_to_hu(pred[0]), unit_to_hu(label[0]))
            self._writer.add_figure(f"validation/{self._drawn}", figure, engine.state.epoch)
            self._drawn += 1

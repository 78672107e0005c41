"""Evaluate every case that an Ignite evaluator reconstructs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from ..report.case_pages import CasePages
from ..report.evaluation import EvaluatedCase, evaluate_case, write_evaluation
from ..segmentation import Segmenter

logger = logging.getLogger(__name__)


class EvaluationReport:
    """Measure and draw each reconstructed case; at the end write metrics.csv, metrics.json and report.html.

    Args:
        output_dir: folder for the three files and the pages.
        segmenter: PTX-Seg, ``(hu, spacing) -> labels``; None measures no regions.
        title: of the report.
        introduction: paragraphs under the title.
        pages: how many cases, those of lowest PSNR, get a page to look at (at most 12 MB each); 0: none.
    """

    def __init__(
        self,
        output_dir: str,
        segmenter: Segmenter | None = None,
        title: str = "Reconstructed CT against true CT",
        introduction: Sequence[str] = (),
        pages: int = 20,
    ) -> None:
        self.output_dir = output_dir
        self.segmenter = segmenter
        self.title = title
        self.introduction = introduction
        self.pages = pages
        self._begin()

    def attach(self, engine: Engine) -> None:
        """Collect at every iteration, write at the end."""
        engine.add_event_handler(Events.STARTED, lambda _: self._begin())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _begin(self) -> None:
        self._cases: list[EvaluatedCase] = []
        self._pages = CasePages(self.output_dir, self.pages)

    def _collect(self, engine: Engine) -> None:
        for item, source in zip(cast(list, engine.state.output), cast(list, engine.state.batch), strict=True):
            segmentation = source.get("segmentation")
            self._cases.append(
                evaluate_case(
                    source["case"],
                    item[CommonKeys.IMAGE],
                    item[CommonKeys.PRED],
                    item[CommonKeys.LABEL],
                    self.segmenter,
                    None if segmentation is None else np.asarray(segmentation[0], dtype=np.uint8),
                    self._pages,
                )
            )

    def _write(self, engine: Engine) -> None:
        cases = self._cases
        if idist.get_world_size() > 1:
            gathered = cast(list[list[EvaluatedCase]], idist.all_gather(cast(Any, cases)))
            cases = [case for of_process in gathered for case in of_process]
        if idist.get_rank() > 0:
            return
        cases = sorted(cases, key=lambda case: case.name)
        write_evaluation(self.output_dir, cases, self.title, self.introduction, self._pages)
        logger.info("wrote %s/report.html, metrics.csv and metrics.json", self.output_dir)

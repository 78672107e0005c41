"""Pages to look at of evaluated cases: both CTs of a case on one page, of the cases that went worst."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike

from ..files import write_text
from ..frame import cube_affine
from .viewer import Overlay, Table, viewer_page

PAGES = "pages"  # folder beside the report
TRUE, RECONSTRUCTED = "true CT", "reconstructed CT"


class CasePages:
    """The pages of the cases with the lowest PSNR, in a folder ``pages``; there are never more than ``most``.

    Args:
        folder: of the report.
        most: how many; 0 writes none.
    """

    def __init__(self, folder: str | Path, most: int) -> None:
        self.folder = Path(folder) / PAGES
        self.most = most
        self._kept: list[tuple[float, str]] = []

    def offer(self, name: str, psnr: float, make: Callable[[], str]) -> None:
        """Write what ``make`` gives, in place of the best case's page where all are there; not for a better case."""
        self._kept = sorted([*self._kept, (psnr, name)])
        if len(self._kept) > self.most:
            displaced = self._kept.pop()
            if displaced == (psnr, name):
                return
            self._path(displaced[1]).unlink(missing_ok=True)
        write_text(self._path(name), make())

    def finish(self, worst_first: Sequence[str]) -> dict[str, str]:
        """Delete what is left of other processes and of former evaluations.

        Args:
            worst_first: names of all cases.

        Returns:
            case -> address of its page as seen from the report.
        """
        kept = [name for name in worst_first[: self.most] if self._path(name).is_file()]
        for path in set(self.folder.glob("*.html")) - {self._path(name) for name in kept}:
            path.unlink(missing_ok=True)
        return {name: f"{PAGES}/{quote(self._path(name).name)}" for name in kept}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.html"


def comparison_page(
    name: str,
    true_hu: np.ndarray,
    predicted_hu: np.ndarray,
    labels: dict[str, np.ndarray | None],
    radiographs: Iterable[ArrayLike],
    projected: Iterable[ArrayLike],
    values: dict[str, str],
) -> str:
    """The page of a case: the true and the reconstructed CT in turn, each with its label map.

    Args:
        name: of the case.
        true_hu: ``(S, S, S)`` in HU, LPI.
        predicted_hu: likewise.
        labels: :data:`TRUE` and :data:`RECONSTRUCTED` -> label map ``(S, S, S)`` of PTX-Seg, or None.
        radiographs: PA and lateral ``(U, V)``, any grey scale.
        projected: the same views of the reconstructed CT.
        values: what was measured, in words.
    """
    pictures = [
        (f"{view}, {what}", picture)
        for view, *pair in zip(("PA", "lateral"), radiographs, projected, strict=True)
        for what, picture in zip(("given", "projected from the reconstructed CT"), pair, strict=True)
    ]
    return viewer_page(
        f"{name}: true and reconstructed CT",
        {TRUE: true_hu, RECONSTRUCTED: predicted_hu},
        cube_affine(len(true_hu)),
        overlays=[Overlay(f"label map of the {ct}", found, of=ct) for ct, found in labels.items() if found is not None],
        pictures=pictures,
        tables=[Table("Measured", ["", ""], list(map(list, values.items())))],
        notice="Not a medical device: research use only.",
    )

"""PTX-Seg: a CT in, a label map out, with the segmenter of one's choice."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import numpy as np

from ..files import InputError
from ..frame import Vector
from .classical import ClassicalSegmenter
from .free_air import JudgedPocket


class Segmenter(Protocol):
    """What finds lungs and pneumothorax: ``(hu (X, Y, Z) with LPI axes, spacing in mm) -> uint8 labels (X, Y, Z)``."""

    def __call__(self, hu: np.ndarray, spacing: Vector) -> np.ndarray:
        """Segment one CT."""


def _sam(weights: str | os.PathLike | None) -> Segmenter:
    from .sam import SamSegmenter

    return SamSegmenter.from_folder(weights)


def _lungmask(weights: str | os.PathLike | None) -> Segmenter:
    from .lungmask import LungmaskSegmenter

    return LungmaskSegmenter(weights)


SEGMENTERS: dict[str, Callable[[str | os.PathLike | None], Segmenter]] = {
    "classical": lambda _weights: ClassicalSegmenter(),
    "sam": _sam,
    "lungmask": _lungmask,
}


class PTXSeg:
    """Segment lungs and pneumothorax in a chest CT of any size, without training.

    Args:
        segmenter: ``classical`` (default; needs nothing), ``sam`` (a promptable vision transformer refines the
            classical result; needs ``transformers`` and ``weights``), ``lungmask`` (its network finds the cavities;
            needs the package ``lungmask`` and ``weights``), or any :class:`Segmenter`.
        weights: local folder or file of the segmenter's weights. Nothing is ever downloaded.

    Raises:
        InputError: no segmenter has this name, its package is not installed, or its weights are missing.
    """

    def __init__(self, segmenter: str | Segmenter = "classical", weights: str | os.PathLike | None = None) -> None:
        if isinstance(segmenter, str):
            if segmenter not in SEGMENTERS:
                raise InputError(f"no segmenter is called {segmenter!r}; choose one of {', '.join(SEGMENTERS)}")
            segmenter = SEGMENTERS[segmenter](weights)
        self.segmenter = segmenter

    def __call__(self, hu: np.ndarray, spacing: Vector) -> np.ndarray:
        """Segment one CT.

        Args:
            hu: ``(X, Y, Z)`` in HU, axes oriented LPI; NaN counts as air.
            spacing: voxel size in mm along x, y and z.

        Returns:
            uint8 label map of the same shape: 0 background, 1 right lung, 2 left lung, 3 and 4 the air-accumulated
            region (pneumothorax) of the right and the left pleural cavity. All zero if there is no lung.
        """
        return self.segmenter(*_checked(hu, spacing))

    def explain(self, hu: np.ndarray, spacing: Vector) -> tuple[np.ndarray, dict[str, list[JudgedPocket]]]:
        """Segment one CT, and say of each pocket of air why it counts as a pneumothorax or not.

        Args:
            hu: as in calling.
            spacing: as in calling.

        Returns:
            the label map; by side (``right``, ``left``) the pockets, the largest first, of what was surely air: in the
            label map they reach a little further, to the middle of their edges. Places are in mm from the centre of
            the CT's first voxel, along its axes.

        Raises:
            InputError: the segmenter is one's own, and has no method ``explain``.
        """
        if not hasattr(self.segmenter, "explain"):
            raise InputError(f"the segmenter {type(self.segmenter).__name__} does not explain what it counts")
        return self.segmenter.explain(*_checked(hu, spacing))


def _checked(hu: np.ndarray, spacing: Vector) -> tuple[np.ndarray, tuple[float, ...]]:
    hu = np.nan_to_num(np.asarray(hu, dtype=np.float32), nan=-1024.0)
    if hu.ndim != 3:
        raise ValueError(f"PTXSeg takes one volume (X, Y, Z), got shape {hu.shape}")
    return hu, tuple(float(step) for step in spacing)

"""PTX-Seg: a CT in, a label map out, with the segmenter of one's choice."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from ..files import InputError
from .classical import ClassicalSegmenter


class Segmenter(Protocol):
    """What finds lungs and pneumothorax: ``(hu (X, Y, Z) with LPI axes, spacing in mm) -> uint8 labels (X, Y, Z)``."""

    def __call__(self, hu: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
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

    def __call__(self, hu: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        """Segment one CT.

        Args:
            hu: ``(X, Y, Z)`` in HU, axes oriented LPI; NaN counts as air.
            spacing: voxel size in mm along x, y and z.

        Returns:
            uint8 label map of the same shape: 0 background, 1 right lung, 2 left lung, 3 and 4 the air-accumulated
            region (pneumothorax) of the right and the left pleural cavity. All zero if there is no lung.
        """
        hu = np.nan_to_num(np.asarray(hu, dtype=np.float32), nan=-1024.0)
        if hu.ndim != 3:
            raise ValueError(f"PTXSeg takes one volume (X, Y, Z), got shape {hu.shape}")
        return self.segmenter(hu, tuple(float(step) for step in spacing))

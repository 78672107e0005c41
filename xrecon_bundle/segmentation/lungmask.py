"""The lungmask network (Hofmanninger et al. 2020, Eur Radiol Exp 4:50) as finder of the pleural cavities."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np

from ..files import InputError
from ..frame import Vector
from .classical import label_free_air
from .free_air import JudgedPocket


class Inferer(Protocol):
    """What ``lungmask.LMInferer`` is: its ``apply`` takes and gives ``(slices, rows, columns)``, LPS."""

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Labels 1 right lung, 2 left lung of a CT in HU."""


class LungmaskSegmenter:
    """Pleural cavities by lungmask's R231 (air pockets included), free air in them as in the classical segmenter.

    Args:
        weights: the R231 weights (``.pth``).
        inferer: something with ``LMInferer``'s ``apply``, instead of loading one.

    Raises:
        InputError: lungmask is not installed, or the weights are missing.
    """

    def __init__(self, weights: str | os.PathLike | None = None, inferer: Inferer | None = None) -> None:
        self.inferer = inferer or _load(weights)

    def __call__(self, hu: np.ndarray, spacing: Vector) -> np.ndarray:
        """Label map as :class:`xrecon_bundle.segmentation.PTXSeg` returns it."""
        return self.explain(hu, spacing)[0]

    def explain(self, hu: np.ndarray, spacing: Vector) -> tuple[np.ndarray, dict[str, list[JudgedPocket]]]:
        """Label map and pockets as :meth:`xrecon_bundle.segmentation.PTXSeg.explain` returns them."""
        # lungmask wants (z, y, x) with z to the head; ours runs to the feet.
        cavities = self.inferer.apply(np.ascontiguousarray(hu.transpose(2, 1, 0)[::-1]))
        cavities = np.ascontiguousarray(cavities[::-1].transpose(2, 1, 0)).astype(np.uint8)
        return label_free_air(hu, cavities, np.asarray(spacing))


def _load(weights: str | os.PathLike | None) -> Inferer:
    if weights is None or not os.path.isfile(weights):
        found = "none given" if weights is None else f"no file {weights}"
        raise InputError(f"lungmask weights: {found}; give the path of the R231 weights (unet_r231-*.pth; --weights)")
    try:
        from lungmask import LMInferer
    except ImportError as error:
        raise InputError("the segmenter 'lungmask' needs the package lungmask: pip install lungmask") from error
    return LMInferer(modelpath=os.fspath(weights))

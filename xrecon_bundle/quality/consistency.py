"""Does a reconstruction explain the radiographs that it was made from? It is projected again and compared with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from skimage.exposure import match_histograms

from .. import frame
from ..frame import radiograph_to_unit
from ..io.radiograph_files import VIEWS
from ..projection.radiographs import simulate_radiographs
from .pictures import resize

BODY_UNIT = 0.08  # of a view's unit scale: what is brighter in either picture is compared, the air around is not
PIXELS = 112  # of 3.6 mm on the detector: scores of volumes of any size are of the same detail
LOW_SCORE = 0.6  # docs/results/radiographs.md has the scores of right and of wrong pairs


def reprojection_consistency(hu: ArrayLike, radiographs: ArrayLike) -> dict[str, Any]:
    """Compare a CT volume's simulated radiographs with the radiographs it was reconstructed from.

    Both are brought to the unit scale and to :data:`PIXELS` along each edge, or the volume's size if that is less. The
    re-projection's grey levels are then mapped to the radiograph's by histogram specification, a monotone map:
    exposure, and the tone curve of a manufacturer, do not count.

    Args:
        hu: ``(S, S, S)`` in HU, the chest frame's cube.
        radiographs: ``(2, U, V)`` PA and left lateral on the chest frame's detector, any grey scale, bright is dense;
            NaN where a film shows nothing: only what it shows is compared.

    Returns:
        for ``pa`` and ``lateral`` a dictionary of ``correlation`` (Pearson's r of the grey levels),
        ``gradient_correlation`` (of the gradients, mean of both axes; Penney et al., IEEE Trans. Med. Imaging 17 (1998)
        586) and ``mean_absolute_difference`` (in the radiograph's unit scale), all inside the body; and ``score``, the
        mean of the four correlations: 1 for a volume that explains its radiographs perfectly.

    Raises:
        ValueError: ``hu`` is not a cube, or ``radiographs`` is not a pair of square pictures.
    """
    measured = np.asarray(torch.as_tensor(radiographs), dtype=np.float32)
    if measured.ndim != 3 or measured.shape[0] != 2 or measured.shape[1] != measured.shape[2]:
        raise ValueError(f"radiographs must be (2, U, U), got {measured.shape}")
    volume = torch.as_tensor(np.asarray(hu), dtype=torch.float32)
    projected = simulate_radiographs(volume, pixels=volume.shape[-1]).numpy()
    measured = np.asarray(radiograph_to_unit(measured))
    shown = ~np.isnan(measured)
    compared = (2,) + (min(PIXELS, projected.shape[-1]),) * 2
    measured = _resized(np.where(shown, measured, 0), compared)
    shown = _resized(shown.astype(np.float32), compared) > 0.999
    pairs = zip(VIEWS, _resized(np.asarray(radiograph_to_unit(projected)), compared), measured, shown, strict=True)
    views: dict[str, Any] = {name: _compare(again, given, where) for name, again, given, where in pairs}
    correlations = [view[name] for view in views.values() for name in ("correlation", "gradient_correlation")]
    return {**views, "score": float(np.mean(correlations))}


def projection_geometry() -> dict[str, float | str]:
    """The geometry that inputs are taken to have and re-projections are made with; lengths in mm."""
    return {
        "source_to_detector_mm": frame.SOURCE_TO_DETECTOR_MM,
        "detector_to_centre_mm": frame.DETECTOR_TO_CENTRE_MM,
        "detector_size_mm": frame.detector_size_mm(),
        "volume_edge_mm": frame.EDGE_MM,
        "axes": frame.AXCODES,
    }


def _resized(pictures: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return pictures if pictures.shape == shape else resize(pictures, shape)


def _compare(projected: np.ndarray, measured: np.ndarray, shown: np.ndarray) -> dict[str, float]:
    matched = np.full_like(projected, np.nan)
    matched[shown] = match_histograms(projected[shown], measured[shown])
    projected, measured = matched, np.where(shown, measured, np.nan)
    gradients = list(zip(np.gradient(projected), np.gradient(measured), strict=True))
    body = np.isfinite([pair[0] + pair[1] for pair in gradients]).all(axis=0)
    body &= (projected > BODY_UNIT) | (measured > BODY_UNIT)
    return {
        "correlation": _correlation(projected[body], measured[body]),
        "gradient_correlation": float(np.mean([_correlation(a[body], b[body]) for a, b in gradients])),
        "mean_absolute_difference": float(np.abs(projected - measured)[body].mean()),
    }


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r; 0 where one of the two is constant."""
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt(np.square(a).sum(dtype=np.float64) * np.square(b).sum(dtype=np.float64))
    return float((a * b).sum(dtype=np.float64) / scale) if scale > 0 else 0.0

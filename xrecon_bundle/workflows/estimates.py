"""Volumes of lungs and free air as the network itself sees them, with how far they may be wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..frame import voxel_size
from ..segmentation.labels import SIDES

FROM_RADIOGRAPHS = "this CT is computed from two radiographs; what is measured in it is not for diagnosis"
DIFFERENT = 0.3  # of the lungs' volume: PTX-Seg and the network see other lungs
COVERAGE = 0.9  # of the intervals
NOTICE = (
    "An occupancy whose interval reaches 0 is no sign of a pneumothorax. The intervals hold for simulated radiographs. "
    "On real films nothing is promised: there pneumonia and uneven lungs can be taken for free air."
)


def estimate_labels(labels: np.ndarray, interval: list[float]) -> dict[str, Any]:
    """Volumes of a label map of the cube.

    Args:
        labels: ``(n, n, n)`` of :mod:`xrecon_bundle.segmentation.labels`.
        interval: by how much the lungs' volume in ml, the free air's in ml and the occupancy are wrong at most in
            :data:`COVERAGE` of all cases; NaN where that is not known.

    Returns:
        for ``right``, ``left`` and ``total`` ``lung_ml``, ``pneumothorax_ml`` and ``occupancy`` (free air / pleural
        cavity, 0 to 1); for ``total`` also ``<name>_interval``, ``[low, high]``, where it is known; ``coverage`` of the
        intervals, and a ``notice``.
    """
    voxel_ml = voxel_size(len(labels)) ** 3 / 1000
    counted = voxel_ml * np.bincount(labels.ravel(), minlength=5)
    sides = {side: (float(counted[lung]), float(counted[air])) for side, (lung, air) in SIDES.items()}
    sides["total"] = (float(counted[1] + counted[2]), float(counted[3] + counted[4]))
    result: dict[str, Any] = {
        name: {"lung_ml": lung, "pneumothorax_ml": air, "occupancy": air / max(lung + air, 1e-6)}
        for name, (lung, air) in sides.items()
    }
    total = result["total"]
    highest = {"occupancy": 1.0}
    limits = dict(zip(tuple(total), interval, strict=True))
    total |= {
        f"{name}_interval": [max(0.0, total[name] - by), min(highest.get(name, np.inf), total[name] + by)]
        for name, by in limits.items()
        if np.isfinite(by)
    }
    return result | {"coverage": COVERAGE, "notice": NOTICE}


def reconstruction_warnings(measured: dict[str, Any], estimates: dict[str, Any] | None) -> list[str]:
    """Warn of lungs that the network sees otherwise, and of a pneumothorax that may as well be none.

    Args:
        measured: of the reconstruction, as :func:`xrecon_bundle.segmentation.measures.measure_pneumothorax` returns it.
        estimates: of the same one, see :func:`estimate_labels`; None where there are none.
    """
    warnings = []
    total, seen = measured["total"], (estimates or {}).get("total", {})
    if seen:
        own, other = (one["lung_ml"] + one["pneumothorax_ml"] for one in (total, seen))
        if abs(own - other) > DIFFERENT * other:
            warnings.append(
                f"PTX-Seg measures {own / 1000:.1f} L of lung and free air in this reconstruction, the network "
                f"{other / 1000:.1f} L; look at the labels before you use either"
            )
    lowest, highest = seen.get("occupancy_interval", (1.0, 1.0))
    if total["size"] != "none" and lowest <= 0:
        shares = {side: 100 * measured[side]["occupancy"] for side in SIDES}
        sides = [f"{side} {share:.0f} %" for side, share in shares.items() if np.isfinite(share)]  # NaN: no lung there
        warnings.append(
            f"the free air in this reconstruction ({', '.join(sides)}) is no sign of a pneumothorax: as the network "
            f"sees it, 0 to {100 * highest:.0f} % of both cavities together fit these radiographs"
        )
    return warnings

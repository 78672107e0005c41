"""Volumes of lungs and free air, from the radiographs alone: what a reconstruction is too blurred to show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..frame import radiograph_to_unit
from ..networks.fine import UNKNOWN
from ..networks.thickness import PIXELS, thickness_net, volumes_of
from ..placement.radiographs import PlacedPair, place_pair

COVERAGE = 0.9  # of the intervals
NOTICE = (
    "The intervals hold for simulated radiographs. On real films nothing is promised: there pneumonia and uneven lungs "
    "are taken for free air."
)


def estimate_pair(files: Sequence[Path], placed: PlacedPair, **loading: Any) -> dict[str, Any]:
    """:func:`estimate` of a pair that was placed with ``loading``, and is again where that left too few pixels."""
    if placed.image.shape[-1] < PIXELS:
        placed = place_pair(files, PIXELS, **loading)
    return estimate(placed.image)


def estimate(image: torch.Tensor) -> dict[str, Any]:
    """What :class:`~xrecon_bundle.networks.thickness.ThicknessNet` says of a placed pair.

    Args:
        image: ``(2, S, S)``, S of 160 or more, on the chest frame's detector, any grey scale, bright is dense; NaN
            where a film shows nothing.

    Returns:
        for ``right``, ``left`` and ``total`` ``lung_ml``, ``pneumothorax_ml`` and ``occupancy`` (free air / pleural
        cavity, 0 to 1); for ``total`` also ``<name>_interval``, ``[low, high]``; ``coverage`` of the intervals, and a
        ``notice``.
    """
    network = thickness_net()
    with torch.inference_mode():
        right_lung, left_lung, right_air, left_air = (
            float(part) for part in volumes_of(network(_reduced(image)[None])[0])
        )
    sides = {"right": (right_lung, right_air), "left": (left_lung, left_air)}
    sides["total"] = (right_lung + left_lung, right_air + left_air)
    result: dict[str, Any] = {
        name: {"lung_ml": lung, "pneumothorax_ml": air, "occupancy": air / max(lung + air, 1e-6)}
        for name, (lung, air) in sides.items()
    }
    total = result["total"]
    limits = dict(zip(tuple(total), network.interval.tolist(), strict=True))
    highest = {"occupancy": 1.0}
    total |= {
        f"{name}_interval": [max(0.0, total[name] - by), min(highest.get(name, np.inf), total[name] + by)]
        for name, by in limits.items()
    }
    return result | {"coverage": COVERAGE, "notice": NOTICE}


def _reduced(image: torch.Tensor) -> torch.Tensor:
    """The network's input ``(2, P, P)``."""
    unit = radiograph_to_unit(torch.as_tensor(image).float())
    known = (~torch.isnan(unit)).float()
    both = torch.stack([torch.nan_to_num(unit), known])
    grey, shown = F.interpolate(both, size=(PIXELS, PIXELS), mode="area")
    return torch.where(shown > 0.99, grey / shown.clamp(min=0.5), UNKNOWN)

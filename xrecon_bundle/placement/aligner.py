"""How much lower does one view of a pair stand than the other? A small network says it.

The boxes of two pictures are each found by itself (:mod:`.finder`). Seen together two views tell their heights better:
what is in a row of one is in that row of the other. The network is made by ``scripts/aligner_weights.py`` from
simulated films; docs/results/placement.md says how well it does.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..frame import radiograph_to_unit
from .finder import local_mean

if TYPE_CHECKING:
    from jaxtyping import Float

WEIGHTS = Path(__file__).with_name("aligner.pt")
PIXELS = 128
UNKNOWN = -1.0  # of the input, where a film shows nothing
NEIGHBOURHOODS = ((7, 20.0), (25, 6.0))  # width in pixels, by how much the contrast is raised
WIDTHS = (16, 32, 48, 64)
LAGS = 10  # rows, of two pixels, by which the views are compared up and down
OFFSET_MM, OFFSET_SCALE = 10.0, 0.1  # units of the output
DIAPHRAGM_MM = 65.0  # below the detector's middle, where the lungs' middle is


class ViewAligner(nn.Module):
    """Rows of features of either view, compared with those of the other at every lag.

    Input ``(B, 2, 128, 128)`` in [0, 1] on the chest frame's detector, -1 where a film shows nothing. Output: by how
    much the lateral is lower and larger (logarithm), in units of :data:`OFFSET_MM` and :data:`OFFSET_SCALE`, and the
    logarithm of the mean errors to expect, ``(B, 2)`` each.
    """

    def __init__(self) -> None:
        super().__init__()
        pooled = 2 * WIDTHS[-1]
        self.rows = nn.ModuleList(_row_features() for _ in range(2))
        self.keys = nn.ModuleList(nn.Conv1d(pooled, 32, 3, padding=1) for _ in range(2))
        self.values = nn.ModuleList(nn.Conv1d(pooled, 24, 3, padding=1) for _ in range(2))
        widths = (48 + 2 * LAGS + 1, 96, 96, 128)
        self.join = nn.Sequential(
            *(_convolve(before, after, 5, 2) for before, after in pairwise(widths)),
            _convolve(widths[-1], widths[-1], 5, 1),
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.1), nn.Linear(widths[-1] * PIXELS // 16, 96), nn.ReLU(), nn.Linear(96, 4)
        )

    def forward(self, image: Float[Tensor, "b 2 128 128"]) -> tuple[Float[Tensor, "b 2"], Float[Tensor, "b 2"]]:
        """Offsets, and the logarithm of their errors."""
        seen = []
        for view, rows in enumerate(self.rows):
            features = rows(_seen(image[:, view]).contiguous(memory_format=torch.channels_last))
            seen.append(torch.cat([features.mean(2), features.amax(2)], dim=1).float())
        pa, lateral = (F.normalize(key(rows), dim=1) for key, rows in zip(self.keys, seen, strict=True))
        count = pa.shape[-1]
        lateral = F.pad(lateral, (LAGS, LAGS))
        alike = [(pa * lateral[:, :, lag : lag + count]).sum(1) for lag in range(2 * LAGS + 1)]
        values = [value(rows) for value, rows in zip(self.values, seen, strict=True)]
        told = self.head(self.join(torch.cat([4 * torch.stack(alike, dim=1), *values], dim=1))).float()
        return told[:, :2], told[:, 2:].clamp(-4, 3)


def find_lower(image: np.ndarray) -> float:
    """By how many mm on the detector the lateral's diaphragm stands lower than the PA's.

    The scale that the network also sees is not used but for that place: it comes from the apices as well, which arms
    and shoulders hide in a real lateral.

    Args:
        image: a placed pair ``(2, 128, 128)``, any grey scale, bright is dense, NaN where a film shows nothing.
    """
    unit = torch.nan_to_num(radiograph_to_unit(torch.from_numpy(image).float()), nan=UNKNOWN)
    with torch.inference_mode():
        lower, larger = (_aligner()(unit[None])[0][0] * torch.tensor([OFFSET_MM, OFFSET_SCALE])).tolist()
    return lower + float(np.expm1(larger)) * DIAPHRAGM_MM


def _seen(view: Tensor) -> Tensor:
    """``(B, P, P)`` to ``(B, 4, P, P)``: grey levels, what is known, and contrast in two neighbourhoods."""
    known = (view >= 0).to(view.dtype)
    grey = view * known
    contrast = []
    for width, gain in NEIGHBOURHOODS:
        mean, share = (local_mean(part, width) for part in (grey, known))
        contrast.append(gain * known * (grey - mean / share.clamp(min=0.05)))
    return torch.stack([grey, known, *contrast], dim=1)


def _row_features() -> nn.Sequential:
    """``(B, 4, P, P)`` to ``(B, C, P/16, P/2)``: columns are joined, rows stay apart."""
    layers: list[nn.Module] = []
    for before, after, kernel, stride in zip(
        (4, *WIDTHS), (*WIDTHS, WIDTHS[-1]), (5, 3, 3, 3, 3), ((2, 2), *((2, 1),) * 3, (1, 1)), strict=True
    ):
        layers += [nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


def _convolve(before: int, after: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(before, after, kernel, stride, kernel // 2, bias=False), nn.BatchNorm1d(after), nn.ReLU()
    )


@cache
def _aligner() -> ViewAligner:
    aligner = ViewAligner()
    aligner.load_state_dict(torch.load(WEIGHTS, map_location="cpu", weights_only=True))  # stored in half precision
    return aligner.eval()

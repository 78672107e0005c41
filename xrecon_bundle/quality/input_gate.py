"""Are these two pictures a PA and a left lateral chest radiograph, upright, whole and positive?

Every question is answered by one measure: which picture does a radiograph resemble most, the average chest as it should
hang, or the average chest turned, mirrored, cut off, in the other view or in negative? Resemblance is Spearman's rank
correlation at 24 x 24 pixels, so that exposure and tone curve do not count. ``scripts/quality_study.py`` prints false
alarms and detection rates on the kinds of chests that the thresholds were chosen on, and draws the average chest.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from scipy.ndimage import affine_transform

from .. import frame
from ..io.radiograph_files import VIEWS, View
from ..placement.finder import find_chest
from ..placement.resample import resample_to_detector
from .pictures import fill_basins, resize

AVERAGE_CHEST = Path(__file__).with_name("average_chest.png")
PIXELS = 24
NO_CHEST = 0.35  # resembles the average chest in no way: refused
POOR_CHEST = 0.55
# By how much a fault must explain a picture better than no fault does.
MARGIN = 0.04
MIRROR_MARGIN = 0.02  # of the lateral; the sides of a PA cannot be told well enough to warn
BASIN_DEPTH = 0.02  # ranks, 0 to 1
PROFILE_CORRELATION = 0.6
SATURATED_SHARE = 0.15
EXPOSED_SHARE = 0.25
HANGS_RIGHT = 0.5  # the finder's probability that overrules a resemblance
LEAST_ROWS = 0.2
SCALES = (0.85, 1.0, 1.15)
SHIFTS = (-0.08, 0.0, 0.08)  # of the picture's edge
CUT = 0.3

NAMES: dict[View, str] = {"pa": "PA", "lateral": "lateral"}
MIRRORED = "mirrored"
_TURNS = {0: "", 1: "turned on its side", 2: "upside down", 3: "turned on its side"}
_LIES_WRONG = {MIRRORED, *filter(None, _TURNS.values())}
_CUTS = {
    "cut off at the top": np.s_[:, CUT:],
    "cut off at the bottom": np.s_[:, : 1 - CUT],
    "cut off at the viewer's left": np.s_[CUT:, :],
    "cut off at the viewer's right": np.s_[: 1 - CUT, :],
}


class InputQuality(NamedTuple):
    """What the gate found. ``refusals``: cannot work; ``warnings``: look at it; ``measures``: the numbers behind it."""

    measures: dict[str, Any]
    warnings: list[str]
    refusals: list[str]


class Explanation(NamedTuple):
    """What a picture may be: a view, and what is wrong with it (empty: nothing)."""

    view: View
    fault: str


def check_radiographs(radiographs: ArrayLike, compare_heights: bool = True) -> InputQuality:
    """Judge a radiograph pair.

    Args:
        radiographs: ``(2, U, U)`` PA and left lateral on the chest frame's detector, any grey scale, bright is dense;
            NaN where a film shows nothing.
        compare_heights: warn where the views do not agree row by row. Not where the finder of chests brought them to
            one height: of sixteen real pairs that it placed, eleven fell below the limit, of wrong pairs hardly more.

    Returns:
        measures for each view: ``likeness`` (to the average chest as it should hang), ``best`` (the explanation that
        resembles it most, such as ``pa`` or ``lateral upside down``), ``best_likeness``, ``basins`` (see
        :func:`basin_share`), ``saturated`` (share of pixels at the brightest grey) and ``exposed`` (share not at the
        darkest); of the pair ``profile_correlation``, how well the views' brightness agrees row by row, since both
        share the patient's long axis. With them, what they say against the pair.
    """
    pair = np.asarray(torch.as_tensor(radiographs), dtype=np.float32)
    measures: dict[str, Any] = {}
    warnings, refusals = [], []
    for view, picture in zip(VIEWS, pair, strict=True):
        measures[view], found = _check_view(view, _filled(picture), ~np.isnan(picture))
        if measures[view]["best_likeness"] < NO_CHEST:
            refusals.append(f"the {NAMES[view]} view is no chest radiograph; give the original picture")
        else:
            warnings += [f"the {NAMES[view]} view {text}" for text in found]
    measures["profile_correlation"] = profile_correlation(pair)
    if compare_heights and not refusals and measures["profile_correlation"] < PROFILE_CORRELATION:
        warnings.append("PA and lateral do not match row by row; are they of one patient, at one height?")
    return InputQuality(measures, warnings, refusals)


def likenesses(picture: np.ndarray) -> dict[Explanation, float]:
    """Resemblance of a picture ``(U, U)`` to the average chest under every explanation, -1 to 1."""
    explanations, templates = _templates()
    values = templates @ _descriptor(picture)
    found: dict[Explanation, float] = {}
    for explanation, value in zip(explanations, values, strict=True):
        found[explanation] = max(found.get(explanation, -1.0), float(value))
        negative = Explanation(explanation.view, "in negative")
        if not explanation.fault:
            found[negative] = max(found.get(negative, -1.0), float(-value))
    return found


def profile_correlation(pair: np.ndarray) -> float:
    """Pearson's r of the views' mean rank by row, -1 to 1; ``pair`` is ``(2, U, V)``.

    Of rows that both films show, and 1 where there are too few of them to tell.
    """
    shown = ~np.isnan(pair)
    rows = (shown.mean(axis=1) > 0).all(axis=0)
    if rows.mean() < LEAST_ROWS:
        return 1.0
    profiles = []
    for view, where in zip(pair, shown, strict=True):
        ranks = np.full(view.shape, np.nan)
        ranks[where] = _ranks(view[where])
        profiles.append(np.nanmean(ranks[:, rows], axis=0))
    return float(np.corrcoef(profiles)[0, 1]) if min(map(np.ptp, profiles)) > 0 else 0.0


def basin_share(picture: np.ndarray) -> float:
    """Share of the picture that is dark and surrounded by brighter pixels, as lungs are by the chest wall."""
    ranks = _ranks(resize(picture, (PIXELS, PIXELS))).reshape(PIXELS, PIXELS)
    ranks /= ranks.size
    return float(np.mean(fill_basins(ranks) - ranks > BASIN_DEPTH))


def average_chest() -> np.ndarray:
    """The average chest ``(2, U, U)``, ranks of grey levels from 0 to 1, bright is dense."""
    picture = np.asarray(Image.open(AVERAGE_CHEST), dtype=np.float32).T / 65535
    return np.stack(np.split(picture, 2))


def _filled(picture: np.ndarray) -> np.ndarray:
    """What is not shown as dark as the darkest."""
    return np.where(np.isnan(picture), np.nanmin(picture), picture) if np.isnan(picture).any() else picture


def _hangs_right(view: View, picture: np.ndarray, shown: np.ndarray) -> bool:
    """Whether the finder, which was made for that, sees this view upright and not mirrored."""
    exposed = None if shown.all() else shown
    return bool(find_chest(picture, exposed).ways[VIEWS.index(view), 0] > HANGS_RIGHT)


def _check_view(view: View, picture: np.ndarray, shown: np.ndarray) -> tuple[dict[str, Any], list[str]]:
    found = likenesses(picture)
    own = found[Explanation(view, "")]
    best = max(found, key=lambda key: found[key])
    lies_wrong = best.view != view or best.fault in _LIES_WRONG
    if lies_wrong and best.fault != "in negative" and _hangs_right(view, picture, shown):
        # A lung that has lost volume, or a chest small in its picture, can resemble the average chest turned round.
        likely = {key: value for key, value in found.items() if key.view == view and key.fault not in _LIES_WRONG}
        best = max(likely, key=lambda key: likely[key])
    span = float(np.ptp(picture)) or 1.0
    measures: dict[str, Any] = {
        "likeness": own,
        "best": " ".join(filter(None, best)),
        "best_likeness": found[best],
        "basins": basin_share(picture),
        "saturated": float(np.mean(picture[shown] >= picture.max() - 0.005 * span)),
        "exposed": float(np.mean(picture[shown] > picture.min() + 0.01 * span)),
    }
    texts = []
    margin = MIRROR_MARGIN if best.fault == MIRRORED else MARGIN
    if found[best] - own > margin:
        if best.view != view:
            texts.append(f"looks like a {NAMES[best.view]}; check that the views are not exchanged")
        elif best.fault == "in negative":
            texts.append("looks like a negative (dense is dark); set invert")
        elif best.fault == MIRRORED:
            texts.append("looks mirrored (facing the viewer's right); set flip_lateral")
        else:
            texts.append(f"looks {best.fault}; check the file")
    elif own < POOR_CHEST:
        texts.append("has little likeness to a chest radiograph; check the file and its field of view")
    if measures["basins"] == 0 and view == "pa" and not texts:
        texts.append("shows no lungs (nothing dark that denser tissue surrounds); check the file")
    if measures["saturated"] > SATURATED_SHARE:
        texts.append("is overexposed: large parts have the brightest grey; export it with another window")
    if measures["exposed"] < EXPOSED_SHARE:
        texts.append("is mostly black; export it with another window, or crop the border")
    return measures, texts


def _descriptor(picture: np.ndarray) -> np.ndarray:
    """Ranks of the grey levels at :data:`PIXELS`, mean 0 and length 1; zero for a blank picture."""
    ranks = _ranks(resize(picture, (PIXELS, PIXELS))).astype(np.float32)
    ranks -= ranks.mean()
    return ranks / max(float(np.linalg.norm(ranks)), 1e-6)


@cache
def _templates() -> tuple[list[Explanation], np.ndarray]:
    """Explanations and their descriptors ``(n, PIXELS**2)``; a chest may stand off the centre and be large or small."""
    found: list[tuple[Explanation, np.ndarray]] = []
    for view, picture in zip(VIEWS, average_chest(), strict=True):
        for placed in _placements(picture):
            for turns, fault in _TURNS.items():
                turned = np.rot90(placed, turns)
                found.append((Explanation(view, fault), turned))
                mirrored = fault or (MIRRORED if view == "lateral" else "")
                found.append((Explanation(view, mirrored), turned[::-1]))
        found += [(Explanation(view, fault), cut) for fault, part in _CUTS.items() for cut in _cut(picture, part)]
    explanations, pictures = zip(*found, strict=True)
    return list(explanations), np.stack([_descriptor(picture) for picture in pictures])


def _placements(picture: np.ndarray) -> list[np.ndarray]:
    size = picture.shape[0]
    small = resize(picture, (2 * PIXELS, 2 * PIXELS)) if size > 2 * PIXELS else picture
    middle = (small.shape[0] - 1) / 2
    placed = []
    for scale in SCALES:
        for across in SHIFTS:
            for down in SHIFTS:
                shifted = np.array([across, down]) * small.shape[0]
                offset = middle - (middle + shifted) / scale
                placed.append(affine_transform(small, np.full(2, 1 / scale), offset, order=1, cval=small.min()))
    return placed


def _cut(picture: np.ndarray, part: tuple[slice, slice]) -> list[np.ndarray]:
    """What is left, in its place (scale known), and as the loader spreads it over the detector (scale unknown)."""
    size = picture.shape[0]
    kept = tuple(slice(*(None if end is None else round(end * size) for end in (s.start, s.stop))) for s in part)
    in_place = np.full_like(picture, picture.min())
    in_place[kept] = picture[kept]
    rest = picture[kept]
    spacing = np.full(2, frame.detector_size_mm() / max(rest.shape))
    return [in_place, resample_to_detector(rest, spacing, size)]


def _ranks(values: np.ndarray) -> np.ndarray:
    """SciPy's ``rankdata``, flat, ties at their mean; without ``scipy.stats``, which takes half a second to import."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place.ravel()]

"""From the lungs' boxes in two pictures to one scale and one height on the chest frame's detector."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import frame
from ..io.radiograph_tags import magnification

# Width, depth and height of the lungs of nine people (docs/results/placement.md), geometric means, mm; and how far the
# geometric mean of the three differs from person to person (standard deviation).
TYPICAL_MM = (251.6, 175.2, 230.2)
TYPICAL_ERROR = 0.10
OTHER_VIEW_ERROR = 0.04
HEIGHTS_DIFFER = 0.12


class Picture(NamedTuple):
    """What is known of one upright picture.

    Attributes:
        window: ``(2, 2)`` first and last pixel along u and v of what it shows.
        spacing_mm: on the chest frame's detector; None: unknown.
        scale_from: what says the spacing.
        placed: its middle is the frame's middle.
        box: ``(2, 2)`` the lungs' first and last pixel along u and v; None: not found.
        spread: ``(2, 2)`` of the box, pixels.
    """

    window: np.ndarray
    spacing_mm: np.ndarray | None
    scale_from: str
    placed: bool = False
    box: np.ndarray | None = None
    spread: np.ndarray | None = None


class Place(NamedTuple):
    """Spacing ``(2,)`` in mm on the detector, the pixel ``(2,)`` that comes to its middle, and how they are known.

    ``scale_error`` is the relative error to expect, None where the scale is known.
    """

    spacing_mm: np.ndarray
    middle: np.ndarray
    scale_from: str
    scale_error: float | None


def place_pictures(pictures: tuple[Picture, Picture]) -> tuple[tuple[Place, Place], list[str]]:
    """Scale and shift of a PA and a lateral, upright; and what is doubtful.

    Where the lungs are found, their middle comes to the detector's, and both views show them in the same rows. A scale
    that nobody states is that of the other view, as the lungs are equally high, or the one that makes the lungs as
    large as a typical person's: the geometric mean of width, depth and height, of which breath changes only one.
    """
    spacing, known_from, errors = [], [], []
    for number, picture in enumerate(pictures):
        other = pictures[1 - number]
        error = None
        step, source = picture.spacing_mm, picture.scale_from
        if step is None:
            step, source, error = _scale(picture, other, number)
        spacing.append(np.asarray(step, dtype=float))
        known_from.append(source)
        errors.append(error)
    doubts = []
    middles = [_middle(picture) for picture in pictures]
    ends = [picture.box[1] for picture in pictures if picture.box is not None]
    spreads = [picture.spread[1] for picture in pictures if picture.spread is not None]
    if len(ends) == len(spreads) == 2:
        ends = [of_view * step[1] for of_view, step in zip(ends, spacing, strict=True)]
        spreads = [of_view * step[1] for of_view, step in zip(spreads, spacing, strict=True)]
        heights = [np.diff(of_view)[0] for of_view in ends]
        if abs(np.log(heights[0] / heights[1])) > HEIGHTS_DIFFER:
            doubts.append(
                f"the lungs are {heights[0]:.0f} mm high in the PA and {heights[1]:.0f} mm in the lateral view; "
                "are they of one patient, and is the scale right?"
            )
        _share_rows(pictures, ends, spreads, spacing, middles)
    places = tuple(map(Place, spacing, middles, known_from, errors))
    return (places[0], places[1]), doubts


def level_places(places: tuple[Place, Place], lower_mm: float) -> tuple[Place, Place]:
    """Move the PA down and the lateral up by half of ``lower_mm``, on the detector."""
    levelled = [
        place._replace(middle=place.middle - [0, half * lower_mm / place.spacing_mm[1]])
        for place, half in zip(places, (0.5, -0.5), strict=True)
    ]
    return levelled[0], levelled[1]


def _scale(picture: Picture, other: Picture, number: int) -> tuple[np.ndarray, str, float | None]:
    if picture.box is None:  # nothing to go by
        step = frame.detector_size_mm() / (np.diff(picture.window).max() + 1)
        return np.full(2, step), "picture", None
    across, height = np.diff(picture.box)[:, 0]
    if other.box is not None and other.spacing_mm is not None:
        step = np.diff(other.box[1])[0] * other.spacing_mm[1] / height
        return np.full(2, step), "other view", OTHER_VIEW_ERROR
    typical = np.array(TYPICAL_MM)[[number, 2]]
    sizes = [across, height]
    if other.box is not None:
        other_across, other_height = np.diff(other.box)[:, 0]
        typical = np.array(TYPICAL_MM)[[number, 2, 1 - number]]
        sizes.append(other_across * height / other_height)
    ratio = typical * magnification(frame.SOURCE_TO_DETECTOR_MM) / np.array(sizes)
    return np.full(2, np.exp(np.log(ratio).mean())), "typical chest", TYPICAL_ERROR


def _middle(picture: Picture) -> np.ndarray:
    return (picture.window if picture.placed or picture.box is None else picture.box).mean(axis=1)


def _share_rows(
    pictures: tuple[Picture, Picture],
    ends: list[np.ndarray],
    spreads: list[np.ndarray],
    spacing: list[np.ndarray],
    middles: list[np.ndarray],
) -> None:
    """Shift both pictures along v so that the lungs' ``ends`` in mm meet, the surer end the better."""
    weight = 1 / (spreads[0] ** 2 + spreads[1] ** 2)
    apart = ((ends[0] - ends[1]) * weight).sum() / weight.sum()
    centre = ends[0].mean() + ends[1].mean()
    rows = [(centre + apart) / 2, (centre - apart) / 2]
    for number, picture in enumerate(pictures):
        if picture.placed:
            own = middles[number][1] * spacing[number][1]
            rows = [own, own - apart] if number == 0 else [own + apart, own]
    for number, picture in enumerate(pictures):
        if not picture.placed:
            middles[number] = np.array([middles[number][0], rows[number] / spacing[number][1]])

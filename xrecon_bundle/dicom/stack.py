"""Which images of a DICOM series make one volume: one geometry, one pass, one image at a place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..files import InputError, one_line
from .headers import Slice, Traits, read_dataset

SAME_PLACE_MM = 0.1  # images closer than this, a tenth of thin CT slices, stand at one place
SAME_DIRECTION = 2e-3  # radians: half a millimetre at the edge of the field of view
MOST_GAP_MM = 10.0  # a wider hole between slices is not filled by interpolation
WHOLE = 0.9  # of the series' extent or places: a pass that has as much is a volume by itself
MANY = 0.1  # of the volume's images
COMPARED = 8  # pairs of images at one place whose pixels are compared


@dataclass
class Remarks:
    """What was left out or put right. ``warnings``: those of the ``notes`` that can matter for what is measured."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """What one may know."""
        self.notes.append(text)

    def warn(self, text: str) -> None:
        """What one should look at."""
        self.notes.append(text)
        self.warnings.append(text)


def select_slices(slices: Sequence[Slice], remarks: Remarks) -> list[Slice]:
    """The images of the volume in order along their normal, each at a place of its own.

    Of several geometries the axial one, else the largest is taken; of several passes, phases or reconstructions of the
    whole one; of several images at a place the first. What is left out is remarked.

    Raises:
        InputError: many images that would continue the volume are of another size or spacing, or some images have a
            rescale and others none.
    """
    kept, others = geometries(slices)
    plain = [part for part in kept if not part.projection]
    if 2 <= len(plain) < len(kept):
        remarks.warn(f"{len(kept) - len(plain)} images that are projections (ImageType) left out")
        kept = plain
    kept = _one_pass(kept, remarks)
    kept = _one_at_a_place(kept, remarks)
    _check_others(kept, others, remarks)
    _check_rescale(kept, remarks)
    return kept


def geometries(slices: Sequence[Slice]) -> tuple[list[Slice], list[Slice]]:
    """Images of one size, spacing and orientation, and all others. Axial ones are preferred unless they are few."""
    groups: list[list[Slice]] = []
    for part in slices:
        fitting = next((group for group in groups if _same_geometry(group[0], part)), None)
        if fitting is None:
            groups.append([part])
        else:
            fitting.append(part)
    most = max(map(len, groups), default=0)
    chosen = max(groups, key=lambda group: (group[0].axial and 5 * len(group) >= most, len(group)), default=[])
    return chosen, [part for group in groups if group is not chosen for part in group]


def heights_of(slices: Sequence[Slice], normal: np.ndarray | None = None) -> np.ndarray:
    """Where images stand along ``normal``, in mm; default: the first one's."""
    normal = slices[0].normal if normal is None else normal
    return np.array([np.dot(part.position, normal) for part in slices])


def places_of(heights: np.ndarray) -> np.ndarray:
    """Distinct places among heights, sorted: of those closer than :data:`SAME_PLACE_MM` the lowest."""
    heights = np.sort(heights)
    return heights[np.diff(heights, prepend=-np.inf) > SAME_PLACE_MM]


def uneven(places: np.ndarray) -> bool:
    """Whether distances between sorted places differ by more than rounding explains."""
    steps = np.diff(places)
    step = np.median(steps) if steps.size else 0.0
    return bool(steps.size and np.abs(steps - step).max() >= max(0.05 * step, 0.02))


def widest_allowed(step: float) -> float:
    """The widest gap in mm that interpolation may fill between slices ``step`` mm apart."""
    return max(MOST_GAP_MM, 1.5 * step)


def _same_geometry(one: Slice, other: Slice) -> bool:
    """One size, and pixels that lie on one another within half a pixel over the whole image."""
    edge = np.abs(np.subtract(one.spacing, other.spacing)) * one.shape
    turned = np.abs(np.subtract(one.orientation, other.orientation)).max()
    return one.shape == other.shape and bool((edge < 0.5 * np.array(one.spacing)).all()) and turned < SAME_DIRECTION


def _one_pass(slices: list[Slice], remarks: Remarks) -> list[Slice]:
    """Of images that hold the body several times (passes, phases, kernels), the ones of one time."""
    for name in (*Traits._fields, "pass"):
        places = places_of(heights_of(slices))
        groups = _passes(slices) if name == "pass" else _by_trait(slices, name)
        if len(places) < 2 or len(groups) < 2:
            continue
        whole = {value: group for value, group in groups.items() if _is_volume(group, places)}
        doubled = len(places) < len(slices)
        if len(whole) == 1 and not (doubled or uneven(places)):
            continue
        fitting = {
            value: group
            for value, group in whole.items()
            if len(whole) > 1
            or (doubled and len(places_of(heights_of(group))) >= WHOLE * len(places))
            or (not doubled and not uneven(places_of(heights_of(group))))
        }
        if not fitting:
            continue
        value = min(fitting, key=lambda value: _preference(fitting[value]))
        chosen = fitting[value]
        if len(whole) == 1:
            chosen = chosen + _where_missing(chosen, slices)
        rest = ", ".join(str(other) or "none" for other in groups if other != value)
        called = name.replace("_", " ")
        if len(chosen) < len(slices):
            remarks.warn(
                f"the series holds the body more than once: {len(slices) - len(chosen)} images of {called} "
                f"{_short(rest)} left out, {called} {value or 'none'} taken"
            )
        slices = chosen
    return slices


def _where_missing(chosen: Sequence[Slice], slices: Sequence[Slice]) -> list[Slice]:
    """Images that stand where the chosen ones have none: of one volume, with a header that says something else."""
    own = places_of(heights_of(chosen))
    step = float(np.median(np.diff(own)))
    ids = {(part.path, part.frame) for part in chosen}
    rest = [part for part in slices if (part.path, part.frame) not in ids]
    return [part for part in rest if np.abs(own - np.dot(part.position, chosen[0].normal)).min() > 0.75 * step]


def _by_trait(slices: Sequence[Slice], name: str) -> dict[str, list[Slice]]:
    groups: dict[str, list[Slice]] = defaultdict(list)
    for part in slices:
        groups[getattr(part.traits, name)].append(part)
    return groups


def _passes(slices: Sequence[Slice]) -> dict[str, list[Slice]]:
    """Images in the order of their numbers, a new pass wherever they go back."""
    ordered = sorted(slices, key=_order)
    steps = np.diff(heights_of(ordered, slices[0].normal))
    forwards = np.sign(np.sum(np.sign(steps))) or 1.0
    number = np.cumsum(np.r_[0, (steps * forwards) < -SAME_PLACE_MM])
    groups: dict[str, list[Slice]] = defaultdict(list)
    for part, index in zip(ordered, number, strict=True):
        groups[str(index + 1)].append(part)
    return groups


def _is_volume(group: Sequence[Slice], places: np.ndarray) -> bool:
    """Whether a part of a series by itself goes from end to end of all ``places``, without holes."""
    own = places_of(heights_of(group, group[0].normal))
    if len(own) < 2 or own[-1] - own[0] < WHOLE * (places[-1] - places[0]):
        return False
    return bool(np.diff(own).max() <= widest_allowed(float(np.median(np.diff(places)))))


def _preference(group: Sequence[Slice]) -> tuple[object, ...]:
    """Of several volumes in a series the evenest comes first, then the one with most slices, then the first."""
    places = places_of(heights_of(group))
    return uneven(places), -len(places), len(group), min(map(_order, group))


def _order(part: Slice) -> tuple[int, str, int]:
    return part.number, str(part.path), part.frame


def _one_at_a_place(slices: list[Slice], remarks: Remarks) -> list[Slice]:
    """Sorted along the normal, the lowest number of each place."""
    heights = heights_of(slices)
    place = np.searchsorted(places_of(heights), heights, side="right")
    at: dict[int, list[Slice]] = defaultdict(list)
    for index, _, _, part in sorted(  # of passes a little apart whose numbers are the same, always the lower one
        zip(place.tolist(), [part.number for part in slices], heights, slices, strict=True),
        key=lambda entry: (*entry[:3], _order(entry[3])),
    ):
        at[index].append(part)
    doubles = [(first, other) for first, *more in at.values() for other in more]
    if doubles:
        text = f"{len(doubles)} images at positions already taken left out"
        sample = doubles[:: max(1, len(doubles) // COMPARED)]
        if all(_same_content(*pair) for pair in sample):
            remarks.note(f"{text} (copies)")
        else:
            remarks.warn(f"{text}, and they show something else: two passes or reconstructions in one series?")
    return [parts[0] for parts in at.values()]


def _same_content(one: Slice, other: Slice) -> bool:
    if one.uid and one.uid == other.uid and one.frame == other.frame and one.path != other.path:
        return True
    if one.path == other.path or one.rescale != other.rescale:
        return False
    try:
        pixels = [read_dataset(part.path).get("PixelData") for part in (one, other)]
    except Exception as error:
        raise InputError(
            f"{other.path}: the pixels cannot be read ({one_line(error)}); export the series again"
        ) from error
    return pixels[0] == pixels[1]


def _check_others(kept: Sequence[Slice], others: Sequence[Slice], remarks: Remarks) -> None:
    """Images of another geometry: few are remarked, many that would continue the volume are refused."""
    if not others:
        return
    places = heights_of(kept)
    step = float(np.median(np.diff(places))) if len(places) > 1 else 0.0
    parallel = [part for part in others if np.dot(part.normal, kept[0].normal) > 1 - SAME_DIRECTION]
    off = [np.abs(places - height).min() for height in heights_of(parallel, kept[0].normal)] if parallel else []
    alone = [part for part, distance in zip(parallel, off, strict=True) if distance > max(SAME_PLACE_MM, 0.25 * step)]
    if alone and len(alone) >= MANY * len(kept) and min(d for d in off if d > SAME_PLACE_MM) <= widest_allowed(step):
        sizes = " and ".join(_size(part) for part in (kept[0], alone[0]))
        raise InputError(
            f"images of two sizes in one series: {len(kept)} and {len(alone)}, of {sizes}; "
            "export each as a series of its own"
        )
    text = f"{len(others)} images of another size or orientation left out"
    if len(others) > 3 or alone:
        remarks.warn(text)
    else:
        remarks.note(text)


def _check_rescale(kept: Sequence[Slice], remarks: Remarks) -> None:
    """Stored values become HU by slope and intercept: all images have them or none."""
    for name, missing in zip(
        ("RescaleSlope", "RescaleIntercept"),
        np.transpose([[value is None for value in part.rescale] for part in kept]),
        strict=True,
    ):
        if missing.any() and not missing.all():
            example = kept[int(np.argmax(missing))].path.name
            raise InputError(
                f"{missing.sum()} of {len(kept)} images have no {name} ({example}), the others have one, so their "
                "values are not comparable; export the series again"
            )
    if any(part.rescale[0] == 0 for part in kept):
        raise InputError("RescaleSlope is 0, which leaves no grey values; export the series again")
    slope, intercept = kept[0].rescale
    if slope is None and intercept is None:
        remarks.note("no RescaleSlope and RescaleIntercept in the header")
    elif slope is None or intercept is None:
        remarks.warn(
            "no RescaleSlope in the header, 1 taken" if slope is None else "no RescaleIntercept in the header, 0 taken"
        )


def _size(part: Slice) -> str:
    rows, columns = part.shape
    return f"{columns} x {rows} pixels of {part.spacing[1]:.4g} x {part.spacing[0]:.4g} mm"


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[:most]}..."

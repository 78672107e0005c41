"""Two radiographs, as read, come to the chest frame's detector: set upright, at one scale and one height."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..io.radiograph import Radiograph, rearrange
from ..io.radiograph_files import VIEWS, View
from ..io.radiograph_tags import NAMES
from .aligner import PIXELS, find_lower
from .finder import exposed_window, find_chest, look_closer, turn_found
from .orientation import CERTAIN, SIDE_UNCLEAR, judge_orientation, mirrored_share, shows_chest
from .place import Picture, Place, level_places, place_pictures
from .resample import detector_matrix, resample_to_detector, shown_on_detector
from .turning import to_upright, way_of

LOOK = "; look how it was placed (on the page, or with --picture)"
KEEP = f"{LOOK}, and set keep_orientation if that is wrong"


class Placement(NamedTuple):
    """A pair on the detector.

    Attributes:
        image: ``(2, S, S)`` float32: PA, lateral; NaN where a film shows nothing.
        exchanged: the radiograph given as PA is the lateral.
        views: of each view how it came there, see docs/radiographs.md.
        doubts: what to look at, a sentence each.
    """

    image: np.ndarray
    exchanged: bool
    views: dict[str, dict[str, Any]]
    doubts: list[str]


def place_radiographs(pair: tuple[Radiograph, Radiograph], spatial_size: int, keep_orientation: bool) -> Placement:
    """Place a PA and a lateral radiograph; where one is in the chest frame already, it stays.

    Args:
        pair: with what is known of scale (``spacing_mm``, ``scale_from``) and orientation.
        spatial_size: pixels S along each edge of the result.
        keep_orientation: take them as they lie, and in the order given.
    """
    doubts = [doubt for item in pair for doubt in item.warnings]
    stated = [item.oriented or keep_orientation for item in pair]
    found = [None if item.placed else find_chest(item.grey, item.exposed) for item in pair]
    exchanged, ways, confidence = judge_orientation(found, stated, may_exchange=not any(stated))
    order = (1, 0) if exchanged else (0, 1)
    uprights, pictures = [], []
    for number in order:
        item, seen = rearrange(pair[number], *to_upright(ways[number])), found[number]
        picture = Picture(exposed_window(item.grey.shape, item.exposed), item.spacing_mm, item.scale_from, item.placed)
        if seen is not None and shows_chest(seen):
            upright = turn_found(seen, ways[number], pair[number].grey.shape)
            closer = look_closer(item.grey, item.exposed, upright)
            picture = picture._replace(box=closer.box, spread=closer.spread)
        uprights.append(item)
        pictures.append(picture)
    places, more = place_pictures((pictures[0], pictures[1]))
    if all(picture.box is not None and not picture.placed for picture in pictures):
        both = zip(uprights, places, strict=True)
        places = level_places(places, find_lower(np.stack([_resample(item, place, PIXELS) for item, place in both])))
    views: dict[str, dict[str, Any]] = {}
    for view, number, item, picture, place in zip(VIEWS, order, uprights, pictures, places, strict=True):
        views[view] = _record(item, picture, place, confidence[number], spatial_size)
        seen = found[number]
        side = mirrored_share(seen, ways[number]) if view == "pa" and seen is not None else 0.0
        doubts += _doubts(view, views[view], stated[number], picture, side)
    image = np.stack([_resample(item, place, spatial_size) for item, place in zip(uprights, places, strict=True)])
    return Placement(image, exchanged, views, doubts + more)


def _resample(item: Radiograph, place: Place, spatial_size: int) -> np.ndarray:
    grey = resample_to_detector(item.grey, place.spacing_mm, spatial_size, place.middle)
    shown = shown_on_detector(item.grey.shape, item.exposed, place.spacing_mm, spatial_size, place.middle)
    return np.where(shown, grey, np.float32(np.nan))


def _record(item: Radiograph, picture: Picture, place: Place, confidence: float, spatial_size: int) -> dict[str, Any]:
    to_detector = detector_matrix(place.spacing_mm, spatial_size, place.middle)
    turns, mirrored = divmod(way_of(item.file_to_grey), 2)
    box = None
    if picture.box is not None:
        box = (to_detector[:2, :2] @ picture.box + to_detector[:2, 2:]).round(2).tolist()
    return {
        "file_to_image": (to_detector @ item.file_to_grey).tolist(),
        "turned": -90 * turns % 360,
        "mirrored": bool(mirrored),
        "scale_from": place.scale_from,
        "scale_error": place.scale_error,
        "confidence": round(confidence, 3),
        "lungs": box,
    }


def _doubts(view: View, record: dict[str, Any], stated: bool, picture: Picture, mirrored: float) -> list[str]:
    name = NAMES[view]
    if picture.placed:
        return []
    if picture.box is None:
        return [f"no chest was found in the {name} view: its middle and its size are taken for the chest's"]
    changes = [f"turned by {record['turned']} degrees"] if record["turned"] else []
    changes += ["mirrored"] if record["mirrored"] else []
    sure = record["confidence"] >= CERTAIN
    if stated or (sure and not changes and mirrored <= SIDE_UNCLEAR):
        return []
    if sure and not changes:
        return [
            f"the {name} view may be mirrored: on which side the heart is, is not clear ({mirrored:.0%} that it is "
            f"mirrored){LOOK}, mirror the file if it is, or set keep_orientation"
        ]
    if changes:
        return [f"the {name} view was {' and '.join(changes)} (confidence {record['confidence']:.2f}){KEEP}"]
    return [f"the {name} view may be turned or mirrored (confidence that it is not: {record['confidence']:.2f}){KEEP}"]

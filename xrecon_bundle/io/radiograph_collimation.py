"""What the DICOM tags of a radiograph say of its collimator and its shutter: rectangles, circles, polygons.

PS3.3 C.8.7.3 and C.7.6.11. Several shapes overlap: what is outside any of them is not exposed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from .radiograph_tags import tag_text

LEAST_EXPOSED = 1 / 3  # of each side of the detector: a narrower collimation shows no chest
LEAST_EXPOSED_MM = 100.0
LEAST_FILLED = 0.7  # of the smallest believable rectangle; a circle fills 0.79
MOST_CORNERS = 1000
_LONGEST = 80  # letters of the tags in a message

_Shape = tuple[int, int]


def exposed_by_tags(
    dataset: Dataset, shape: _Shape, spacing_mm: np.ndarray | None, doubts: list[str]
) -> np.ndarray | None:
    """Bool ``(rows, columns)``: False outside the collimator or the shutter; None: True everywhere.

    Args:
        dataset: the header.
        shape: rows and columns of the image.
        spacing_mm: along columns and rows, on the chest frame's detector.
        doubts: receives why a shape is not believed: outside the image (in mm, or counted from its middle), its edges
            exchanged, its sides crossing, or with less inside than a chest needs.
    """
    step = np.ones(2) if spacing_mm is None else spacing_mm
    least = [LEAST_EXPOSED * size for size in shape]
    if spacing_mm is not None:
        least = [max(one, LEAST_EXPOSED_MM / along) for one, along in zip(least, spacing_mm[::-1], strict=True)]
    inside = None
    for device in ("Collimator", "Shutter"):
        shapes = tag_text(dataset, f"{device}Shape")
        for kind, (noun, names, draw) in _SHAPES.items():
            if kind not in shapes:
                continue
            texts = [tag_text(dataset, name.format(device)) for name in names]
            values = _numbers(texts)
            drawn = "are missing or no numbers" if values is None else draw(values, shape, step[0] / step[1])
            if not isinstance(drawn, str):
                drawn = drawn if inside is None else drawn & inside
                drawn = "leave too little for a chest" if _too_small(drawn, least) else drawn
            if isinstance(drawn, str):
                text = ", ".join(texts)
                text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
                doubts.append(f"the {device.lower()}'s {noun} ({text}) {drawn}: not believed")
            else:
                inside = drawn
    return None if inside is None or inside.all() else inside


def _numbers(texts: list[str]) -> np.ndarray | None:
    try:
        values = np.array([float(part) for text in texts for part in text.split("\\")])
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None


def _too_small(inside: np.ndarray, least: list[float]) -> bool:
    for axis, wanted in enumerate(least):
        shown = np.flatnonzero(inside.any(axis=1 - axis))
        if not len(shown) or shown[-1] - shown[0] + 1 < wanted:
            return True
    return bool(np.count_nonzero(inside) < LEAST_FILLED * np.prod(least))


# --- Shapes: pixels (rows, columns) inside, or what is wrong. DICOM counts rows and columns from 1. -----------------


def _rectangle(values: np.ndarray, shape: _Shape, aspect: float) -> np.ndarray | str:
    """Upper, lower, left and right edge; a pixel that an edge goes through is inside."""
    if len(values) != 4:
        return "are missing or no numbers"
    edges = values.astype(int).reshape(2, 2)
    if ((edges < 0) | (edges > np.array(shape)[:, None] + 1)).any():
        return "lie outside the image"
    if (edges[:, 1] <= edges[:, 0]).any():
        return "are exchanged"
    inside = np.zeros(shape, dtype=bool)
    inside[max(edges[0, 0] - 1, 0) : edges[0, 1], max(edges[1, 0] - 1, 0) : edges[1, 1]] = True
    return inside


def _circle(values: np.ndarray, shape: _Shape, aspect: float) -> np.ndarray | str:
    """Row and column of the centre, radius in columns; it may reach beyond the image."""
    if len(values) != 3:
        return "are missing or no numbers"
    centre, radius = values[:2] - 1, values[2]
    if (centre < 0).any() or (centre > np.array(shape) - 1).any():
        return "lie outside the image"
    height = np.abs(np.arange(shape[0]) - centre[0])[:, None] / max(radius * aspect, 1e-9)
    half = np.where(height <= 1, max(radius, 0) * np.sqrt(np.clip(1 - height**2, 0, None)) + 1e-6, -1)
    columns = np.arange(shape[1])
    return (columns >= centre[1] - half) & (columns <= centre[1] + half)


def _polygon(values: np.ndarray, shape: _Shape, aspect: float) -> np.ndarray | str:
    """Row and column of each corner; a pixel that a side goes through is inside."""
    if len(values) % 2 or len(values) < 6:
        return "are missing or no numbers"
    if len(values) > 2 * MOST_CORNERS:
        return "are more than a field has"
    corners = values.reshape(-1, 2)
    corners = corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)]  # some repeat the first at the end
    if (corners < 0).any() or (corners > np.array(shape) + 1).any():
        return "lie outside the image"
    if _crosses_itself(corners):
        return "make sides that cross"
    picture = Image.new("1", shape[::-1])
    if len(corners) > 2:
        ImageDraw.Draw(picture).polygon([(column - 1, row - 1) for row, column in corners], fill=1, outline=1)
    return np.array(picture)


def _crosses_itself(corners: np.ndarray) -> bool:
    """Whether two sides of a polygon ``(n, 2)`` cross, as where its corners come in a wrong order."""
    starts, ends = corners, np.roll(corners, -1, axis=0)

    def beside(points: np.ndarray) -> np.ndarray:
        """``(n, n)`` on which side of each side's line (rows) a point (columns) lies."""
        along, to = (ends - starts)[:, None], points[None] - starts[:, None]
        return np.sign(along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0])

    apart = beside(starts) * beside(ends) < 0
    return bool((apart & apart.T).any())


_SHAPES: dict[str, tuple[str, tuple[str, ...], Callable[[np.ndarray, _Shape, float], np.ndarray | str]]] = {
    "RECTANGULAR": (
        "edges",
        ("{}UpperHorizontalEdge", "{}LowerHorizontalEdge", "{}LeftVerticalEdge", "{}RightVerticalEdge"),
        _rectangle,
    ),
    "CIRCULAR": ("centre and radius", ("CenterOfCircular{}", "RadiusOfCircular{}"), _circle),
    "POLYGONAL": ("corners", ("VerticesOfThePolygonal{}",), _polygon),
}

"""A picture of a segmented CT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ..files import atomic_path
from ..segmentation.labels import COLOURS, REGIONS, SIDES, WINDOW_HU

HEIGHT, GAP, TEXT = 440, 16, 18  # pixels of the longest edge, between planes, of the letters
OPACITY = 0.3


def write_segmentation_picture(
    path: str | Path, hu: np.ndarray, labels: np.ndarray, spacing: np.ndarray, statistics: Mapping[str, Any]
) -> None:
    """Write a PNG of the axial, coronal and sagittal plane with the label map on it.

    They are cut where most free air is, else most lung.

    Args:
        path: the file.
        hu: ``(X, Y, Z)`` in HU, LPI.
        labels: label map of the same shape.
        spacing: voxel size ``(3,)`` in mm.
        statistics: what :func:`measure_pneumothorax` returned.
    """
    shown = labels > 2 if np.count_nonzero(labels > 2) else labels > 0
    x, y, z = (int(np.argmax(shown.sum(axis=tuple({0, 1, 2} - {axis})))) for axis in range(3))
    dx, dy, dz = spacing
    scale = HEIGHT / max(dx * hu.shape[0], dy * hu.shape[1], dz * hu.shape[2])
    planes = {
        "axial": _plane(hu[:, :, z], labels[:, :, z], (dx * scale, dy * scale)),
        "coronal": _plane(hu[:, y], labels[:, y], (dx * scale, dz * scale)),
        "sagittal": _plane(hu[x], labels[x], (dy * scale, dz * scale)),
    }
    lines = [
        f"{side}: pneumothorax {statistics[side]['pneumothorax_ml']:.0f} mL, "
        f"{100 * statistics[side]['occupancy']:.1f} % of the cavity ({statistics[side]['size']}), "
        f"lung {statistics[side]['lung_ml']:.0f} mL"
        for side in SIDES
    ]
    font = ImageFont.load_default(TEXT)
    words = [name.replace("_", " ") for name in REGIONS]
    legend = sum(font.getlength(word) + 2 * TEXT for word in words)
    least = max(legend, *(font.getlength(line) for line in lines))
    width = round(max(sum(plane.width + GAP for plane in planes.values()), least)) + GAP
    line = TEXT + 6
    sheet = Image.new("RGB", (width, (len(lines) + 2) * line + HEIGHT + 3 * GAP))
    pen = ImageDraw.Draw(sheet)
    for number, text in enumerate(lines):
        pen.text((width / 2, GAP + number * line), text, "white", font, anchor="ma")
    top = 2 * GAP + len(lines) * line
    left = (width - sum(plane.width + GAP for plane in planes.values()) + GAP) // 2
    for name, plane in planes.items():
        pen.text((left + plane.width / 2, top), name, "white", font, anchor="ma")
        sheet.paste(plane, (left, top + line + (HEIGHT - plane.height) // 2))
        left += plane.width + GAP
    place = (width - legend) / 2
    for colour, word in zip(COLOURS, words, strict=True):
        pen.text((place, sheet.height - line), word, colour, font)
        place += font.getlength(word) + 2 * TEXT
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def _plane(hu: np.ndarray, labels: np.ndarray, pixel: tuple[float, float]) -> Image.Image:
    """One plane with its regions tinted and outlined; ``pixel``: of a voxel along both axes, in pixels."""
    size = tuple(max(1, round(edge * step)) for edge, step in zip(hu.shape, pixel, strict=True))
    low, high = WINDOW_HU
    grey = Image.fromarray(np.clip((hu.T - low) / (high - low) * 255, 0, 255).astype(np.uint8))
    colours = np.repeat(np.asarray(grey.resize(size, Image.Resampling.BILINEAR), np.float32)[..., None], 3, axis=-1)
    regions = np.asarray(Image.fromarray(labels.T.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))
    edges = np.zeros(regions.shape, dtype=bool)
    for axis in range(2):
        differ = np.diff(regions, axis=axis) != 0
        edges |= np.pad(differ, [(0, int(axis == 0)), (0, int(axis == 1))])
        edges |= np.pad(differ, [(int(axis == 0), 0), (int(axis == 1), 0)])
    for colour, label in zip(COLOURS, REGIONS.values(), strict=True):
        inside = regions == label
        share = np.where(edges, 1.0, OPACITY)[inside][:, None]
        colours[inside] = (1 - share) * colours[inside] + share * np.array(ImageColor.getrgb(colour))
    return Image.fromarray(colours.astype(np.uint8))

"""A picture of how a pair of radiographs was placed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from ..files import atomic_path
from ..frame import radiograph_to_unit
from ..io.radiograph_files import VIEWS

EDGE = 512  # pixels of one view
NOT_SHOWN = (40, 50, 80)
BOX = (255, 165, 0)


def write_placement_picture(path: str | Path, radiographs: ArrayLike, placement: Mapping[str, Any]) -> None:
    """Write a PNG of both views as the network sees them: the lungs' box in orange, what a film does not show in blue.

    Args:
        path: the file.
        radiographs: ``(2, S, S)``, NaN where a film shows nothing.
        placement: the record of :class:`xrecon_bundle.placement.radiographs.PlacedPair`.
    """
    pair = np.asarray(radiograph_to_unit(np.asarray(radiographs, dtype=np.float32)))
    sheet = Image.new("RGB", (2 * EDGE, EDGE))
    for number, (view, grey) in enumerate(zip(VIEWS, pair, strict=True)):
        colours = np.repeat(np.nan_to_num(grey.T)[..., None] * 255, 3, axis=-1)
        colours[np.isnan(grey.T)] = NOT_SHOWN
        picture = Image.fromarray(colours.astype(np.uint8)).resize((EDGE, EDGE), Image.Resampling.BILINEAR)
        pen, record = ImageDraw.Draw(picture), placement.get(view, {})
        scale = EDGE / len(grey)
        if record.get("lungs") is not None:
            (left, right), (top, bottom) = (np.array(record["lungs"]) + 0.5) * scale
            pen.rectangle((left, top, right, bottom), outline=BOX, width=2)
        pen.text((6, 4), _words(view, record), fill=BOX)
        sheet.paste(picture, (number * EDGE, 0))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def _words(view: str, record: Mapping[str, Any]) -> str:
    words = [view]
    if record.get("turned"):
        words.append(f"turned {record['turned']} degrees")
    if record.get("mirrored"):
        words.append("mirrored")
    if record.get("scale_from"):
        words.append(f"scale from {record['scale_from']}")
    return ", ".join(words)

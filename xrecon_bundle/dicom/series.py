"""CT series from DICOM files: which one to read, and its images as a volume in Hounsfield units.

The geometry comes from the images' positions and orientations, never from their numbers or thickness.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from ..files import InputError, one_line
from ..volume import LPS_TO_RAS, CTVolume
from .headers import Series, Slice, is_dicom, number, read_dataset, scan_dicom
from .pixels import stored_pixels
from .stack import Remarks, geometries, heights_of, places_of, select_slices, uneven, widest_allowed

__all__ = ["CHEST_WORDS", "choose_series", "is_dicom", "load_series", "other_series", "scan_dicom", "volume_slices"]

OFF_LINE_MM = 1.0  # how far a slice may stand from the line through all slices
LEAST_HEIGHT_MM = 100.0  # a lower stack shows no lungs from top to bottom
CHEST_WORDS = ("CHEST", "THORA", "LUNG", "TORSO")


def choose_series(found: Sequence[Series], uid: str | None = None) -> Series:
    """The CT series to read: the one asked for, else the best by these, in this order.

    Axial; no projection (MIP, rendering, subtraction) by ImageType or description; high enough for a chest; chest,
    thorax, lung or torso in its description; original, not derived or secondary; most places with an image.

    Raises:
        InputError: no such series, no CT among them, or a CT whose images say nothing about their position.
    """
    if uid is not None:
        named = [series for series in found if series.uid == uid]
        if not named:
            known = ", ".join(series.name() for series in found if series.modality == "CT") or "none"
            raise InputError(f"no series {uid} in this folder; its CT series: {known}")
        found = named
    cts = [series for series in found if series.modality == "CT"]
    if not cts:
        seen = ", ".join(sorted({series.modality for series in found})) or "no DICOM images"
        raise InputError(f"no CT series (found: {seen}); give a folder with the DICOM files of a chest CT")
    best = max(cts, key=lambda series: (_rank(series), series.uid))
    if len(best.slices) < 2:
        what = (
            "localizers (scout views)"
            if best.localizers
            else "colour pictures"
            if best.colour
            else "images without position, orientation or pixel spacing, or with a damaged rescale"
            if best.unusable
            else "a single slice"
        )
        raise InputError(
            f"the CT series {best.uid} has only {what}; give the folder with all axial slices of the chest"
        )
    return best


def other_series(found: Sequence[Series], chosen: Series) -> list[dict[str, Any]]:
    """The CT series that were not chosen: ``{"series": UID, "description": text, "images": count}`` each."""
    return [
        {"series": series.uid, "description": series.description, "images": len(series.slices)}
        for series in found
        if series is not chosen and series.modality == "CT" and series.slices
    ]


def volume_slices(series: Series) -> list[Slice]:
    """The images that :func:`load_series` makes the volume of, from its first slice to its last."""
    return select_slices(series.slices, Remarks())


def load_series(series: Series) -> CTVolume:
    """Read a series as a volume. Images are sorted by position, doubles dropped, small gaps filled by interpolation.

    Gantry tilt is kept as a sheared affine: each slice stands where its position says. ``source`` has ``series``,
    ``description``, ``images`` (how many were read), ``notes`` and ``warnings`` (see :class:`.stack.Remarks`).

    Raises:
        InputError: a file is damaged, or the images make no volume (a gap over 10 mm, positions off one line, two
            sizes, some with a rescale and some without).
    """
    remarks = Remarks()
    slices = select_slices(series.slices, remarks)
    if len(slices) < 2:
        raise InputError("the slices all stand at one position; give the folder with all slices of the chest")
    for files, what in (
        (series.unusable, "without usable position, orientation, pixel spacing or rescale"),
        (series.colour, "in colour"),
    ):
        if files:
            remarks.warn(f"{len(files)} images {what} left out ({_names(files)})")
    first, last = slices[0], slices[-1]
    heights = heights_of(slices)
    across = (np.array(last.position) - first.position) / (heights[-1] - heights[0])
    strays = [
        np.linalg.norm(np.array(first.position) + (at - heights[0]) * across - part.position)
        for part, at in zip(slices, heights, strict=True)
    ]
    if max(strays) > OFF_LINE_MM:
        raise InputError(
            f"slices stand up to {max(strays):.1f} mm off one line (a moved table or tilt?); export one acquisition"
        )
    hu, step = _evenly(_read_hu(slices), heights, remarks)
    if abs(np.dot(across / np.linalg.norm(across), first.normal)) < 0.9999:
        remarks.note("gantry tilt kept in the affine")

    affine = np.eye(4)
    affine[:3, 0] = np.array(first.orientation[:3]) * first.spacing[1]  # along a row: from column to column
    affine[:3, 1] = np.array(first.orientation[3:]) * first.spacing[0]
    affine[:3, 2] = across * step
    affine[:3, 3] = first.position
    source = {
        "format": "DICOM",
        "series": series.uid,
        "description": series.description,
        "images": len(slices),
        "notes": remarks.notes,
        "warnings": remarks.warnings,
    }
    return CTVolume(hu.transpose(2, 1, 0), LPS_TO_RAS @ affine, source)


def _rank(series: Series) -> tuple[bool, bool, bool, bool, bool, int]:
    """What :func:`choose_series` maximises."""
    slices, _ = geometries(series.slices)
    if not slices:
        return (False,) * 5 + (0,)
    projections = sum(part.projection for part in slices)
    places = places_of(heights_of(slices))
    return (
        slices[0].axial,
        2 * projections < len(slices),
        bool(places[-1] - places[0] >= LEAST_HEIGHT_MM),
        any(word in series.description.upper() for word in CHEST_WORDS),
        2 * sum(part.original for part in slices) >= len(slices),
        len(places),
    )


def _evenly(hu: np.ndarray, heights: np.ndarray, remarks: Remarks) -> tuple[np.ndarray, float]:
    """Slices at even distance, by linear interpolation where the scan's own are not; and that distance in mm."""
    steps = np.diff(heights)
    step = float(np.median(steps))
    if not uneven(heights):
        return hu, float(steps.mean())
    widest = int(np.argmax(steps))
    if steps[widest] > widest_allowed(step):
        raise InputError(
            f"slices are missing: a gap of {steps[widest]:.1f} mm after slice {widest + 1} of {len(heights)} "
            f"(slices are {step:.2f} mm apart); export the series again"
        )
    count = min(round((heights[-1] - heights[0]) / step) + 1, 2 * len(heights))
    wanted = np.linspace(heights[0], heights[-1], count)
    below = np.clip(np.searchsorted(heights, wanted, side="right") - 1, 0, len(heights) - 2)
    share = ((wanted - heights[below]) / steps[below]).astype(np.float32)
    even = np.empty((count, *hu.shape[1:]), np.float32)
    for index, (start, weight) in enumerate(zip(below, share, strict=True)):
        even[index] = (1 - weight) * hu[start] + weight * hu[start + 1]
    remarks.warn(
        f"slices unevenly spaced (widest gap {steps[widest]:.2f} mm), interpolated to {wanted[1] - wanted[0]:.2f} mm"
    )
    return even, float(wanted[1] - wanted[0])


def _read_hu(slices: Sequence[Slice]) -> np.ndarray:
    """Slices ``(K, rows, columns)`` in HU, float32, padding as air."""
    hu = np.empty((0, *slices[0].shape), np.float32)
    wanted = defaultdict(list)
    for index, part in enumerate(slices):
        wanted[part.path].append((index, part))
    for path, parts in wanted.items():
        try:
            dataset = read_dataset(path)
            stored = _stored(dataset, slices[0].shape)
            padding = _padding(dataset)
            if not len(hu):  # only now, so that a damaged size asks for no memory
                hu = np.empty((len(slices), *slices[0].shape), np.float32)
            for index, part in parts:
                slope, intercept = part.rescale
                frame = stored[part.frame]
                hu[index] = frame * np.float32(1 if slope is None else slope) + np.float32(intercept or 0)
                if padding is not None:
                    hu[index][(frame >= padding[0]) & (frame <= padding[1])] = -1024.0
        except InputError:
            raise
        except Exception as error:  # tags are parsed when they are asked for
            raise InputError(
                f"{path}: the pixels cannot be read ({one_line(error)}); export the series again"
            ) from error
    return hu


def _stored(dataset: Dataset, shape: tuple[int, int]) -> np.ndarray:
    """Stored values ``(frames, rows, columns)`` of a file of grey images of ``shape``."""
    stored = stored_pixels(dataset)
    if stored.ndim not in (2, 3) or stored.shape[-2:] != shape:
        raise ValueError(f"pixels of shape {stored.shape}, where the header says {shape}")
    return stored.reshape(-1, *shape)


def _padding(dataset: Dataset) -> tuple[float, float] | None:
    """Lowest and highest stored value that stands for "no image here"."""
    value, limit = (number(dataset.get(f"PixelPadding{name}"), strict=False) for name in ("Value", "RangeLimit"))
    if value is None:
        return None
    limit = value if limit is None else limit
    return min(value, limit), max(value, limit)


def _names(files: Sequence[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"

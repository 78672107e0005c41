"""The viewer: a CT with its overlays, radiographs and measurements as one HTML file that needs no network.

Drawn by NiiVue (https://github.com/niivue/niivue), which lies beside this module with its licences and is written into
every page.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from PIL import Image

from ..files import write_text
from ..frame import is_sheared, voxel_spacing
from ..segmentation.grid import block_mean
from ..segmentation.labels import COLOURS, REGIONS

LARGEST_PAGE = 12_000_000  # bytes
LARGEST_EDGE = 256  # voxels; a finer CT is shown by means of blocks
SMALLER_EDGES = (128, 64, 32)  # where rounding alone does not make a page small enough
LARGEST_DEVIATION_EDGE = 128  # likewise of a deviation, which as noise would take the CT's place in the page
SHOWN_HU = (-1024, 3071)
STEPS_HU = (1, 2, 4, 8, 16)  # a page that would be too large holds its CT rounded, as little as does
OTHER_COLOURS = ("#c77dff", "#5ce1e6", "#ff8fc7", "#d4e157", "#a1887f", "#90a4ae")
PICTURE_PIXELS = 448


@dataclass(frozen=True)
class Overlay:
    """A label map that can be laid over the CT, on its grid.

    Attributes:
        name: what the page calls it.
        data: ``(X, Y, Z)``, integers; 0 is nothing.
        names: of its values; those of :data:`.REGIONS` by default.
        of: the volume that it belongs to, with which it comes and goes; empty: to all.
    """

    name: str
    data: np.ndarray
    names: dict[int, str] | None = None
    of: str = ""


@dataclass(frozen=True)
class Table:
    """Measurements: a caption, the header's cells, and rows of cells."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def viewer_page(
    title: str,
    volumes: dict[str, np.ndarray],
    affine: np.ndarray,
    overlays: Sequence[Overlay] = (),
    deviation: np.ndarray | None = None,
    pictures: Sequence[tuple[str, ArrayLike]] = (),
    tables: Sequence[Table] = (),
    warnings: Sequence[str] = (),
    notice: str = "",
) -> str:
    """The page as text. It opens from disk, asks for nothing outside itself, and says what it shows less finely.

    Args:
        title: heading and title.
        volumes: CTs by name, each ``(X, Y, Z)`` in HU on the same grid; the first is shown, the others can be chosen.
        affine: ``(4, 4)``, voxel index to RAS+ mm.
        overlays: label maps on the same grid.
        deviation: ``(X, Y, Z)`` standard deviation in HU on the same grid, laid over the CT in colours; NaN is not
            known, and not coloured.
        pictures: pairs of caption and picture ``(U, V)`` (columns first), any grey scale; NaN is drawn black.
        tables: what was measured.
        warnings: shown on top.
        notice: shown under the title.
    """
    from jinja2 import Environment, PackageLoader

    first = next(iter(volumes.values()))
    blocks = _blocks(first.shape, LARGEST_EDGE)
    grid = _coarser(affine, blocks)
    laid = [_labels(overlay, blocks, grid) for overlay in overlays]
    coarser = [""]
    if deviation is not None:
        wide = _blocks(deviation.shape, LARGEST_DEVIATION_EDGE)
        laid.append(_deviation(deviation, wide, _coarser(affine, wide)))
        coarser.append(_in_words("The deviation is shown", wide, _coarser(affine, wide)))
    shown = [(caption, _picture_uri(picture)) for caption, picture in pictures]
    niivue, application = _read("niivue/niivue.umd.js"), _read("templates/viewer.js")
    left = LARGEST_PAGE - len(niivue) - len(application) - 50_000
    left -= sum(len(uri) for _, uri in shown) + sum(len(layer["data"]) for layer in laid)
    blocks, step, encoded = _fit(list(volumes.values()), affine, left)
    coarser[0] = _in_words("Shown", blocks, _coarser(affine, blocks), step)
    layers = [
        {"name": name, "kind": "volume", "data": data} for name, data in zip(volumes, encoded, strict=True)
    ] + laid
    environment = Environment(loader=PackageLoader("xrecon_bundle.report"), autoescape=True)
    return environment.get_template("viewer.html.j2").render(
        title=title,
        notice=notice,
        warnings=warnings,
        tables=tables,
        pictures=shown,
        layers=layers,
        settings=[{name: value for name, value in layer.items() if name != "data"} for layer in layers],
        coarser=" ".join(filter(None, coarser)),
        niivue=niivue,
        application=application,
        licences=_read("niivue/LICENSES.txt"),
        script_hashes=[_csp_hash(niivue), _csp_hash(application)],
    )


def write_viewer(path: str | Path, title: str, volumes: dict[str, np.ndarray], affine: np.ndarray, **rest: Any) -> None:
    """Write :func:`viewer_page` to ``path``, atomically."""
    write_text(path, viewer_page(title, volumes, affine, **rest))


def _fit(volumes: list[np.ndarray], affine: np.ndarray, most: int) -> tuple[tuple[int, ...], int, list[str]]:
    """The volumes as base64 of at most ``most`` bytes together, and the blocks and the step in HU that do it."""
    low, high = SHOWN_HU
    shape = volumes[0].shape
    for blocks in dict.fromkeys(_blocks(shape, edge) for edge in (LARGEST_EDGE, *SMALLER_EDGES)):
        reduced = [_reduced(volume, blocks) for volume in volumes]
        grid = _coarser(affine, blocks)
        for step in STEPS_HU:
            rounded = (np.rint(np.nan_to_num(volume.clip(low, high), nan=low) / step) * step for volume in reduced)
            encoded = [_nifti_base64(volume.astype(np.int16), grid) for volume in rounded]
            if sum(map(len, encoded)) <= most:
                return blocks, step, encoded
    return blocks, step, encoded


def _blocks(shape: tuple[int, ...], edge: int) -> tuple[int, ...]:
    """Voxels to take together along each axis so that none has more than ``edge``."""
    return tuple(-(-size // edge) for size in shape)


def _deviation(deviation: np.ndarray, blocks: tuple[int, ...], affine: np.ndarray) -> dict[str, Any]:
    """What the page's script reads of a standard deviation, with its data; ``top`` is where its colours end, in HU.

    The few highest values, which are at edges, would leave no colours for the rest.
    """
    data = np.nan_to_num(_reduced(deviation, blocks).clip(0)).astype(np.float32)
    top = _round_up(np.percentile(data[data > 0], 99)) if data.any() else 1.0
    return {"name": "deviation", "kind": "deviation", "top": top} | {
        "data": _nifti_base64(data, affine, stored=np.uint8)
    }


def _round_up(value: float) -> float:
    """To 1, 1.5, 2, 3, 5 or 8 times a power of ten."""
    power = 10 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 1.5, 2, 3, 5, 8, 10) if step * power >= value * 0.999))


def _labels(overlay: Overlay, blocks: tuple[int, ...], affine: np.ndarray) -> dict[str, Any]:
    """What the page's script reads of a label map, with its data."""
    middle = [
        np.minimum(np.arange(0, full, size) + size // 2, full - 1)
        for full, size in zip(overlay.data.shape, blocks, strict=True)
    ]
    labels = np.asarray(overlay.data)[np.ix_(*middle)]  # a mean of labels would be another label
    names = overlay.names or {value: name.replace("_", " ") for name, value in REGIONS.items()}
    colours = [*COLOURS, *OTHER_COLOURS]
    entries = [
        {"value": value, "name": names.get(value, f"label {value}"), "colour": colours[(value - 1) % len(colours)]}
        for value in np.unique(overlay.data).tolist()
        if value
    ]
    data = _nifti_base64(labels.astype(np.uint8), affine)
    return {"name": overlay.name, "kind": "labels", "of": overlay.of, "labels": entries, "data": data}


def _reduced(volume: np.ndarray, blocks: tuple[int, ...]) -> np.ndarray:
    return block_mean(volume, blocks) if max(blocks) > 1 else volume


def _coarser(affine: np.ndarray, blocks: tuple[int, ...]) -> np.ndarray:
    """The affine of a grid whose voxels are blocks of the given one's."""
    step = np.diag([*blocks, 1.0])
    step[:3, 3] = (np.array(blocks) - 1) / 2
    return affine @ step


def _in_words(what: str, blocks: tuple[int, ...], affine: np.ndarray, step: int = 1) -> str:
    """What the page shows less finely than the file has it."""
    edges = " x ".join(f"{edge:.2g}" for edge in voxel_spacing(affine))
    said = [f"in voxels of {edges} mm"] if max(blocks) > 1 else []
    said += [f"in steps of {step} HU"] if step > 1 else []
    return f"{what} {' and '.join(said)}; the file is finer." if said else ""


def _nifti_base64(array: np.ndarray, affine: np.ndarray, stored: DTypeLike | None = None) -> str:
    """The array as a compressed NIfTI in base64; ``stored``: the type on disk, scaled to it."""
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(None if is_sheared(affine) else affine, code=0 if is_sheared(affine) else 1)
    if stored is not None:
        image.set_data_dtype(stored)
    return base64.b64encode(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)).decode()


def _picture_uri(picture: ArrayLike) -> str:
    """A picture ``(U, V)`` upright as a JPEG, from its 0.5th to its 99.5th percentile of grey."""
    grey = np.asarray(picture, np.float32).T
    known = grey[np.isfinite(grey)]
    low, high = np.percentile(known, [0.5, 99.5]) if known.size else (0.0, 1.0)
    unit = np.nan_to_num((grey - low) / max(high - low, 1e-6)).clip(0, 1)
    image = Image.fromarray((255 * unit).astype(np.uint8))
    if max(image.size) > PICTURE_PIXELS:
        image.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


@functools.cache
def _read(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _csp_hash(script: str) -> str:
    """How a Content Security Policy names the one script that it lets run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"

"""Well-formed nonsense: values and header fields that no sane program writes are read or refused, and nothing else.

Damage to single bytes is tested beside each reader. A case is made of its number alone: `case(kind, number)` makes it
again.
"""

from __future__ import annotations

import functools
import gzip
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import pydicom
import pytest
from chest_phantom import dicom_slices, phantom, phantom_affine
from PIL import Image
from radiograph_cases import write_dicom

from xrecon_bundle import frame
from xrecon_bundle.datasets.radiograph_pairs import find_pairs
from xrecon_bundle.datasets.sources import find_sources
from xrecon_bundle.files import InputError
from xrecon_bundle.io.on_grid import read_on_grid
from xrecon_bundle.io.radiograph import read_radiograph
from xrecon_bundle.io.readers import read_ct
from xrecon_bundle.placement.biplanar import load_biplanar
from xrecon_bundle.volume import CTVolume

AFFINE = phantom_affine(30.0, (16, 12, 6))
HU = phantom(AFFINE, (16, 12, 6))
RAMP = np.add.outer(np.arange(48), 2 * np.arange(40)).astype(np.uint16)
TEXTS = (
    *("", "0", "-1", "1", "1e400", "nan", "inf", "-inf", "1/2", "1,5", "999999999999", "-0", "1e-320", "x" * 70, " "),
    *("\\", "0\\0", "1\\2\\3", "0\\0\\0\\0\\0\\0", "1\\0\\0\\1\\0\\0", "1\\0\\0\\0\\1\\0", "nan\\nan\\nan", "1\\" * 40),
    *("CT", "ORIGINAL\\PRIMARY\\AXIAL", "MONOCHROME1", "RGB", "PALETTE COLOR", "1.2.840.10008.1.2.4.90", "SUPINE"),
)
VALUES = (
    *(text.encode() for text in TEXTS),
    b"\0",
    b"\xff\xff",
    b"\0\0",
    b"\x01\0",
    b"\xff\x7f\0\0",
    b"\xfe\xff\0\xe0",
)
VRS = (None, None, None, "DS", "IS", "US", "SS", "SQ", "UN", "OW", "UI", "AT", "FD")
NUMBERS = (0, 1, -1, 2, 3, 127, 255, 32767, -32768, 1e-30, 1e30, -1e30, np.nan, np.inf, -np.inf)


class Element(NamedTuple):
    """Of a DICOM file in explicit VR little endian."""

    tag: int
    vr: str
    value: bytes


def elements(content: bytes) -> tuple[bytes, list[Element]]:
    """What comes before the data set, and its elements."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    raw = [dataset.get_item(tag) for tag in sorted(dataset.keys())]
    first = struct.pack("<HH", raw[0].tag.group, raw[0].tag.elem) + raw[0].VR.encode()
    return content[: content.index(first, 132)], [Element(item.tag, item.VR, item.value or b"") for item in raw]


def dicom_file(head: bytes, items: list[Element]) -> bytes:
    body = b""
    for tag, vr, value in items:
        long = vr in ("OB", "OW", "SQ", "UN")
        length = struct.pack("<HI", 0, len(value)) if long else struct.pack("<H", len(value) % 2**16)
        body += struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode() + length + value
    return head + body


def dicom_nonsense(rng: np.random.Generator, files: list[bytes]) -> list[bytes]:
    """Give elements of one or of most images another value or VR, another's value, or take them away."""
    heads, images = zip(*map(elements, files), strict=True)
    for _ in range(rng.integers(1, 4)):
        chosen = [image for image in images if rng.random() < 0.8] if rng.random() < 0.6 else [images[0]]
        tags = [item.tag for item in images[0]]
        tag, other = (tags[rng.integers(len(tags))] for _ in range(2))
        value, vr = VALUES[rng.integers(len(VALUES))], VRS[rng.integers(len(VRS))]
        kind = rng.integers(5)
        for image in chosen:
            values = {item.tag: item.value for item in image}
            for number, item in reversed(list(enumerate(image))):
                if item.tag != tag:
                    continue
                if kind == 0:
                    del image[number]
                elif kind == 1:
                    image[number] = item._replace(value=values.get(other, b""))
                else:
                    image[number] = Element(tag, vr or item.vr, value + b" " * (len(value) % 2))
    return [dicom_file(head, image) for head, image in zip(heads, images, strict=True)]


def nifti_nonsense(rng: np.random.Generator, content: bytes) -> bytes:
    """Give some header fields extreme numbers."""
    header = nibabel.Nifti1Header(content[:348], check=False)
    fields = header.structarr
    numeric = [name for name in fields.dtype.names if fields.dtype[name].base.kind in "iuf"]
    for _ in range(rng.integers(1, 5)):
        name = numeric[rng.integers(len(numeric))]
        number = np.float64(NUMBERS[rng.integers(len(NUMBERS))])
        kind = fields.dtype[name].base
        with np.errstate(all="ignore"):
            limits = np.iinfo(kind) if kind.kind in "iu" else None
            value = number if limits is None else np.clip(np.nan_to_num(number), limits.min, limits.max)
            where = ... if fields[name].ndim == 0 else rng.integers(fields[name].size)
            fields[name][where] = value
    return fields.tobytes() + content[348:]


def png_nonsense(rng: np.random.Generator, content: bytes) -> bytes:
    """Change, repeat or leave out chunks, with checksums that are right."""
    chunks, place = [], 8
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunks.append((content[place + 4 : place + 8], bytearray(content[place + 8 : place + 8 + length])))
        place += 12 + length
    for _ in range(rng.integers(1, 4)):
        number = rng.integers(len(chunks))
        kind, body = chunks[number]
        match rng.integers(4):
            case 0 if len(body):
                body[rng.integers(len(body))] = rng.integers(256)
            case 1:
                chunks.insert(number, (kind, bytearray(body)))
            case 2 if len(chunks) > 1:
                del chunks[number]
            case _:
                del body[len(body) // 2 :]
    return content[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@functools.cache
def series() -> list[bytes]:
    """The files of a small CT."""
    files = [io.BytesIO() for _ in range(HU.shape[2])]
    for file, part in zip(files, dicom_slices(HU, AFFINE), strict=True):
        pydicom.dcmwrite(file, part)
    return [file.getvalue() for file in files]


def ct_series(rng: np.random.Generator, folder: Path) -> list[Callable]:
    for number, content in enumerate(dicom_nonsense(rng, series())):
        (folder / f"{number}.dcm").write_bytes(content)
    return [lambda: read_ct(folder), lambda: find_sources(folder)]


def ct_nifti(rng: np.random.Generator, folder: Path) -> list[Callable]:
    name = ("ct.nii", "ct.nii.gz")[rng.integers(2)]
    content = nifti_nonsense(rng, nibabel.Nifti1Image(HU, AFFINE).to_bytes())
    (folder / name).write_bytes(gzip.compress(content, 1) if name.endswith("gz") else content)
    whole = CTVolume(HU.astype(np.float32), AFFINE, {})
    return [
        lambda: read_ct(folder / name),
        lambda: find_sources(folder),
        lambda: read_on_grid(folder / name, whole, "whole.nii.gz"),
    ]


def radiograph_readers(folder: Path, name: str) -> list[Callable]:
    return [
        lambda: read_radiograph(folder / name, "pa"),
        lambda: read_radiograph(folder / name, "lateral", accept_any_view=True),
        lambda: find_pairs(folder),
    ]


def radiograph_dicom(rng: np.random.Generator, folder: Path) -> list[Callable]:
    write_dicom(folder / "x.dcm", RAMP, ViewPosition="PA", PatientOrientation=["L", "F"])
    (folder / "x.dcm").write_bytes(dicom_nonsense(rng, [(folder / "x.dcm").read_bytes()])[0])
    return radiograph_readers(folder, "x.dcm")


def radiograph_nifti(rng: np.random.Generator, folder: Path) -> list[Callable]:
    pair = rng.random() < 0.5
    image = np.stack([RAMP, RAMP[::-1]], -1) if pair else RAMP[..., None]
    content = nibabel.Nifti1Image(image.astype(np.float32), frame.radiograph_affine(48)).to_bytes()
    name = "radiographs.nii" if rng.random() < 0.5 else "pair.nii"
    (folder / name).write_bytes(nifti_nonsense(rng, content))
    return [*radiograph_readers(folder, name), lambda: load_biplanar(folder / name, 32)]


def radiograph_png(rng: np.random.Generator, folder: Path) -> list[Callable]:
    picture = io.BytesIO()
    modes = (RAMP * 400, RAMP.astype(np.uint8), np.stack([RAMP.astype(np.uint8)] * 3, -1))
    Image.fromarray(modes[rng.integers(3)]).save(picture, "PNG")
    (folder / "pa.png").write_bytes(png_nonsense(rng, picture.getvalue()))
    return radiograph_readers(folder, "pa.png")


KINDS = [ct_series, ct_nifti, radiograph_dicom, radiograph_nifti, radiograph_png]


def case(kind: Callable, number: int, folder: Path) -> None:
    """Make one file or series, and read it in every way."""
    folder.mkdir()
    for read in kind(np.random.default_rng(number), folder):
        try:
            read()
        except InputError:
            continue
        except Exception as error:
            error.add_note(f"{kind.__name__} {number}")
            raise


def cases(kind: Callable, numbers: range, folder: Path) -> None:
    for number in numbers:
        case(kind, number, folder / str(number))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_nonsense_is_read_or_refused(kind, tmp_path):
    cases(kind, range(25), tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_much_nonsense_is_read_or_refused(kind, tmp_path):
    cases(kind, range(25, 1500), tmp_path)

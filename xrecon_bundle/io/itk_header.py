"""The text headers of MetaImage and NRRD: do they say where left and right are, and which files hold the voxels?

ITK reads both formats, but takes the identity for what is missing and passes over what contradicts, units and slopes.
MetaImage: https://itk.org/Wiki/ITK/MetaIO/Documentation. NRRD: https://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import math
import os
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..files import InputError

METAIMAGE_SUFFIXES = (".mha", ".mhd")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
LONGEST_HEADER = 2**20
MOST_FILES = 100_000
AGAIN = "convert the CT from DICOM again"
# NRRD's names of spaces with anatomical axes, as ITK knows them; "scanner-xyz" and "3D-right-handed" have none.
ANATOMICAL_SPACES = {
    *("left-posterior-superior", "right-anterior-superior", "left-anterior-superior"),
    *("lps", "ras", "las"),
}
UNITS_MM = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0, "meter": 1000.0, "um": 1e-3, "micron": 1e-3}
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
MATRIX = ("TransformMatrix", "Rotation", "Orientation")  # MetaIO's names for it
# AnatomicalOrientation's letters say where an axis comes from: LPS axis and direction.
COMES_FROM = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "I": (2, 1), "S": (2, -1)}
LEAST_ALONG = 0.4  # cosine between an axis and the one that its letter names; oblique axes have at least 0.58


class VolumeHeader(NamedTuple):
    """What ITK does not look at.

    Attributes:
        fields: the header's entries, those of NRRD in lower case.
        voxel_files: the files that hold the voxels, where they are not in the file itself; they need not exist.
        size: bytes of the header; behind it are the voxels where there are no ``voxel_files``.
    """

    fields: dict[str, str]
    voxel_files: tuple[Path, ...]
    size: int


def read_header(path: Path) -> VolumeHeader:
    """Read the header of a MetaImage or NRRD file, by its suffix.

    Raises:
        InputError: it is none, or it names voxels outside its folder.
    """
    with open(path, "rb") as file:
        raw = file.read(LONGEST_HEADER).split(b"\n")
    lines = [os.fsdecode(line).rstrip("\r") for line in raw]
    if path.name.lower().endswith(NRRD_SUFFIXES):
        fields, rest = _nrrd_fields(lines)
        data = fields.get("data file", fields.get("datafile", ""))
    else:
        fields, rest = _metaimage_fields(lines)
        data = fields["ElementDataFile"]
        data = "" if data in ("LOCAL", "Local", "local") else data
    size = sum(len(line) + 1 for line in raw[: len(raw) - len(rest)])
    return VolumeHeader(fields, _voxel_files(path, data, rest) if data else (), size)


def check_voxels(path: Path, header: VolumeHeader, shape: tuple[int, ...], voxel_bytes: int) -> None:
    """Raise :class:`InputError` where a MetaImage's files do not hold all voxels, which ITK would leave unset."""
    if path.name.lower().endswith(NRRD_SUFFIXES) or header.fields.get("BinaryData", "True")[:1] in "Ff0":
        return  # there ITK looks itself
    files, data = header.voxel_files or (path,), header.fields["ElementDataFile"].split()
    listed = data[0] == "LIST"
    if (listed and data[1:] not in ([], [str(len(shape) - 1)])) or (
        (listed or "%" in data[0]) and len(files) != shape[-1]
    ):
        raise InputError(
            f"the header names {len(files)} files ({' '.join(data)}) for {shape[-1]} slices, and one a slice is read; "
            "convert it again"
        )
    wanted = math.prod(shape) * voxel_bytes // len(files)
    compressed = header.fields.get("CompressedData", "False")[:1] in "Tt1"
    for file in files:
        start = 0 if header.voxel_files else header.size
        if not file.is_file():
            found = 0
        elif compressed:
            found = _unpacked(file, start, wanted)
        else:
            found = file.stat().st_size - start
        if found < wanted:
            raise InputError(
                f"damaged ({file.name} holds {max(found, 0)} of {wanted} bytes of voxels, or cannot be unpacked); "
                "copy or convert it again"
            )


def _unpacked(file: Path, start: int, wanted: int) -> int:
    """How many bytes a zlib or gzip stream unpacks to; -1 where it is damaged or goes on beyond ``wanted``."""
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        found = len(unpack.decompress(file.read_bytes()[start:], wanted + 1))
    except (OSError, zlib.error):
        return -1
    return found if unpack.eof else -1


def millimetres(path: Path, header: VolumeHeader) -> float:
    """How many mm the header's unit of length has.

    Raises:
        InputError: the header does not say where left and right are or how large the voxels are, contradicts itself, or
            gives a slope that ITK would not apply. The message gives the reason and the remedy.
    """
    check = _check_nrrd if path.name.lower().endswith(NRRD_SUFFIXES) else _check_metaimage
    return check(header.fields)


def _metaimage_fields(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """Entries as far as ElementDataFile, which is the last one, and the lines behind it."""
    fields: dict[str, str] = {}
    for number, line in enumerate(lines):
        name, *value = (part.strip() for part in re.split("[=:]", line, maxsplit=1))
        if not value:
            break
        if fields.setdefault(name, value[0]) != value[0]:
            raise InputError(f"the header gives {name} twice; copy or convert it again")
        if name == "ElementDataFile":
            return fields, lines[number + 1 :]
    raise InputError("damaged or not a MetaImage (no ElementDataFile in the header); copy or convert it again")


def _nrrd_fields(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """Entries as far as the empty line, and the lines behind a list of data files."""
    if not lines[0].startswith("NRRD"):
        raise InputError("damaged or not an NRRD file (it does not begin with NRRD); copy or convert it again")
    fields: dict[str, str] = {}
    for number, line in enumerate(lines[1:], start=1):
        if not line:
            break
        name, colon, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        if line.startswith("#") or value.startswith("="):  # a comment, or a key of the user's
            continue
        if not colon or CONTROL.search(line):  # where the header has no end, ITK would go on through the voxels
            raise InputError(f"damaged (line {number + 1} of the header is none); copy or convert it again")
        if fields.setdefault(name, value) != value:
            raise InputError(f"the header gives '{name}' twice; copy or convert it again")
        if name in ("data file", "datafile") and value.split()[:1] == ["LIST"]:
            return fields, lines[number + 1 :]
    return fields, []


def _voxel_files(path: Path, data: str, rest: list[str]) -> tuple[Path, ...]:
    """The files that one name, a list of names, or a pattern (``slice%03d.raw 1 40 1``) stands for."""
    words = data.split()
    if words[0] == "LIST":
        return tuple(_inside(path, line.strip()) for line in rest if line.strip() and "\0" not in line)
    if "%" not in data:
        return (_inside(path, data),)
    numbers = words[1:4]
    if not re.fullmatch(r"[^%]*%\d*[di][^%]*", words[0]) or not re.fullmatch(
        r"(\d{1,9} ){3}", " ".join([*numbers, ""])
    ):
        raise InputError(
            f"the header's pattern of file names, {data!r}, is not like 'slice%03d.raw 1 40 1'; convert it again"
        )
    first, last, step = map(int, numbers)
    if step <= 0 or not 0 <= last - first < MOST_FILES:
        raise InputError(f"the header's pattern of file names, {data!r}, stands for no files; convert it again")
    return tuple(_inside(path, words[0] % number) for number in range(first, last + 1, step))


def _inside(path: Path, name: str) -> Path:
    """The file that a header names, which must lie in the header's folder or below: headers are not to be trusted."""
    folder = os.path.abspath(path.parent)
    if "\0" in name:
        raise InputError("damaged (a zero in the name of the voxels' file); copy or convert it again")
    file = os.path.normpath(os.path.join(folder, name))
    if not Path(file).is_relative_to(folder):
        raise InputError(f"the header names voxels outside its folder ({name}); put the file beside the header")
    return path.parent / os.path.relpath(file, folder)


def _check_metaimage(fields: dict[str, str]) -> float:
    matrix = next((fields[name] for name in MATRIX if name in fields), None)
    if matrix is None:
        raise InputError(f"the header gives no TransformMatrix, so left and right are unknown; {AGAIN}")
    spacing = fields.get("ElementSpacing", fields.get("ElementSize"))
    if spacing is None:
        raise InputError(f"the header gives no ElementSpacing, so the voxel size is unknown; {AGAIN}")
    if not (_numbers(spacing)[:3] > 0).all():
        raise InputError(f"the header gives a voxel size of {spacing}; {AGAIN}")
    axes = _numbers(matrix)
    edge = round(np.sqrt(axes.size))
    if edge < 3 or edge**2 != axes.size:
        raise InputError(f"the header's TransformMatrix has {axes.size} numbers; {AGAIN}")
    axes = axes.reshape(edge, edge)[:3, :3]
    if not np.allclose(np.linalg.norm(axes, axis=1), 1, atol=0.01):
        raise InputError(f"the rows of the header's TransformMatrix ({matrix}) are not of length 1; {AGAIN}")
    letters = fields.get("AnatomicalOrientation", "")
    for row, letter in zip(axes, letters if re.fullmatch("[RLAPIS]{3}", letters) else "", strict=False):
        axis, sign = COMES_FROM[letter]
        if sign * row[axis] < LEAST_ALONG:
            raise InputError(
                f"the header's TransformMatrix ({matrix}) and AnatomicalOrientation ({letters}) contradict each other, "
                f"so left and right are unknown; {AGAIN}, or take out the line that is wrong"
            )
    slope, offset = (fields.get(f"ElementToIntensityFunction{name}", "") for name in ("Slope", "Offset"))
    if (slope and _numbers(slope)[0] != 1) or (offset and _numbers(offset)[0] != 0):
        raise InputError("the header gives a slope or offset of the values, which few programs apply; write HU")
    return _unit([fields.get("DistanceUnits", "mm").replace("?", "mm")])


def _check_nrrd(fields: dict[str, str]) -> float:
    if "space" not in fields:
        raise InputError(f"the NRRD header gives no space, so left and right are unknown; {AGAIN}")
    if fields["space"].lower() not in ANATOMICAL_SPACES:
        raise InputError(
            f"the NRRD's space, {fields['space']}, is not anatomical, so left and right are unknown; {AGAIN}"
        )
    directions = fields.get("space directions", "")
    vectors = re.findall(r"\(([^)]*)\)", directions)
    if len(vectors) != 3 or any(_numbers(vector.replace(",", " ")).size != 3 for vector in vectors):
        raise InputError(
            f"the NRRD header gives no space directions of three axes ({directions or 'none at all'}), "
            f"so left and right are unknown; {AGAIN}"
        )
    return _unit(re.findall('"([^"]*)"', fields.get("space units", '"mm"')))


def _numbers(text: str) -> np.ndarray:
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError:
        values = np.array([])
    if values.size == 0 or not np.isfinite(values).all():
        raise InputError(f"damaged (the header has {text!r} in the place of numbers); copy or convert it again")
    return values


def _unit(names: list[str]) -> float:
    """Millimetres in the unit that all axes have."""
    units = {UNITS_MM.get(name.strip().lower().removesuffix("s")) for name in names}
    unit = units.pop() if len(units) == 1 else None
    if unit is None:
        raise InputError(f"the header gives lengths in {', '.join(names) or 'no unit'}; convert the CT to mm")
    return unit

"""What a browser sends becomes files: of limited size, under names that lead nowhere else."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO

from ..files import InputError

LIMITS_MB = {"pa": 256, "lateral": 256, "ct": 2048}  # by slot, of a file as sent
UNPACKED_MB = 4096  # of all files of a zip
MOST_FILES = 20_000
BLOCK = 1 << 20


def receive(stream: BufferedIOBase | BinaryIO, length: int, folder: Path, slot: str, name: str) -> Path:
    """Write what a browser sends for a slot, in place of what was there.

    Args:
        stream: the body.
        length: bytes that it has.
        folder: the session's; the slot gets a folder in it.
        slot: one of :data:`LIMITS_MB`.
        name: the file's name as the browser has it. A zip is unpacked: then the result is a folder.

    Raises:
        InputError: too large, cut off, or a zip that cannot be unpacked.
    """
    place = folder / slot
    shutil.rmtree(place, ignore_errors=True)
    name = safe_name(name)
    check_size(length, slot, name)
    place.mkdir(parents=True)
    path = place / name
    left = length
    with open(path, "wb") as file:
        while left:
            block = stream.read(min(BLOCK, left))
            if not block:
                shutil.rmtree(place)
                raise InputError(f"{name}: the transfer was cut off; send it again")
            file.write(block)
            left -= len(block)
    if not name.lower().endswith(".zip"):
        return path
    try:
        return unpack(path, place / Path(name).stem)
    except InputError:
        shutil.rmtree(place)
        raise


def check_size(length: int, slot: str, name: str) -> None:
    """Raise :class:`InputError` for a file that is larger than its slot takes."""
    if length > LIMITS_MB[slot] * 2**20:
        raise InputError(f"{name} has {length / 2**20:.0f} MB, {LIMITS_MB[slot]} are allowed; use the command line")


def safe_name(name: str) -> str:
    """A plain file name: no folders, no leading dot, nothing that a shell or a page would read otherwise."""
    plain = re.sub(r"[^\w.\- ()+]", "_", os.path.basename(name.replace("\\", "/"))).lstrip(". ")
    return plain[-120:] or "file"


def unpack(archive: Path, folder: Path) -> Path:
    """The files of a zip, flat and under names of our own, so that no name in it leads anywhere; the zip goes.

    Raises:
        InputError: no zip, encrypted, damaged, or too much in it. What counts is what comes out, not what it claims.
    """
    name, left = archive.name, UNPACKED_MB * 2**20
    folder.mkdir()
    try:
        with zipfile.ZipFile(archive) as content:
            entries = [entry for entry in content.infolist() if not entry.is_dir()]
            if len(entries) > MOST_FILES:
                raise InputError(f"{name} holds {len(entries)} files, {MOST_FILES} are allowed; zip one CT series")
            for number, entry in enumerate(entries):
                suffix = re.sub(r"[^\w.]", "", Path(entry.filename).suffix)[:8]
                with content.open(entry) as source, open(folder / f"{number:05d}{suffix}", "wb") as target:
                    while block := source.read(BLOCK):
                        left -= len(block)
                        if left < 0:
                            raise InputError(f"{name} unpacks to more than {UNPACKED_MB} MB; zip one CT series")
                        target.write(block)
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and lzma each raise their own
        raise InputError(
            f"{name} cannot be unpacked ({error}); zip the CT's folder again, without a password"
        ) from error
    archive.unlink()
    return folder

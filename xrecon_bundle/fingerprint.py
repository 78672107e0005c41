"""Which code made a result: results kept from another day are taken for this one's only if the code is the same."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

SUFFIXES = {".py", ".png", ".pt"}  # the code, the average chest of the input gate, the networks that place radiographs


@cache
def code_fingerprint(*rooms: str) -> str:
    """SHA-256 (64 hex digits) of this package's sources, their names and contents.

    It changes with any edit, which ``__version__`` does not, and is the same wherever the package lies. A few
    milliseconds, once a process; what is edited while the process runs is not in it, as it is not in what runs.

    Args:
        rooms: folders and modules of the package whose code counts, such as ``"io"``; none: all of it.
    """
    return folder_fingerprint(Path(__file__).parent, rooms)


def folder_fingerprint(folder: Path, rooms: tuple[str, ...] = ()) -> str:
    """As :func:`code_fingerprint`, of the sources below ``folder``; a room that is not there is a ``ValueError``."""
    if missing := [room for room in rooms if not (folder / room).is_dir() and not (folder / f"{room}.py").is_file()]:
        raise ValueError(f"no such rooms: {', '.join(missing)}")
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES):
        name = path.relative_to(folder)
        if rooms and name.parts[0].removesuffix(".py") not in rooms:
            continue
        for part in (name.as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()

"""Which code made a result: results kept from another day are taken for this one's only if the code is the same."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

SUFFIXES = {".py", ".png"}  # the code, and the average chest that the input gate compares with


@cache
def code_fingerprint() -> str:
    """SHA-256 (64 hex digits) of this package's sources, their names and contents.

    It changes with any edit, which ``__version__`` does not, and is the same wherever the package lies. A few
    milliseconds, once a process; what is edited while the process runs is not in it, as it is not in what runs.
    """
    return _fingerprint(Path(__file__).parent)


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES):
        for part in (path.relative_to(folder).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()

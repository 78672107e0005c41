"""How many cases a minute ``xrecon prepare`` makes: copies of the LIDC chest CT, each standing elsewhere.

``python scripts/benchmarks/prepare.py [--sizes 64,128,224] [--cases 8] [--workers 2]``
"""

from __future__ import annotations

import gzip
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel

from xrecon_bundle.cli import start
from xrecon_bundle.datasets.lidc import fetch_lidc
from xrecon_bundle.datasets.prepare import prepare

CACHE = Path(__file__).parents[2] / ".cache"


def run(sizes: Sequence[int] = (64, 128, 224), cases: int = 8, workers: int = 2) -> None:
    """Prepare ``cases`` CTs of 512 x 512 x 133 voxels (``.nii.gz``) at each size and print the times.

    Times are wall clock of the whole command: workers started, CTs read, standardised, radiographs simulated, written.
    """
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "cts"
        _write_copies(fetch_lidc(CACHE)[0], folder, cases)
        print(f"{workers} workers\n\n| cases | size | seconds | cases a minute |\n| ---: | ---: | ---: | ---: |")
        for size in sizes:
            start = time.perf_counter()
            summary = prepare(folder, Path(scratch) / str(size), size, workers=workers)
            seconds = time.perf_counter() - start
            assert summary.prepared == cases
            print(f"| {cases} | {size} | {seconds:.1f} | {60 * cases / seconds:.1f} |", flush=True)


def _write_copies(ct: Path, folder: Path, count: int) -> None:
    """The CT, each copy 1 mm further right. The voxels are compressed once: gzip members may be joined."""
    folder.mkdir(parents=True)
    content = gzip.decompress(ct.read_bytes())
    offset = nibabel.load(ct).dataobj.offset
    voxels = gzip.compress(content[offset:], 1)
    for number in range(count):
        header = bytearray(content[:offset])
        for origin_x in (268, 292):  # of qform and sform
            struct.pack_into("<f", header, origin_x, struct.unpack_from("<f", header, origin_x)[0] + number)
        (folder / f"patient{number:03d}.nii.gz").write_bytes(gzip.compress(header) + voxels)


if __name__ == "__main__":
    start(run)

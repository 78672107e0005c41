"""Pack the bundle as the MONAI Model Zoo wants it: `make zoo` writes dist/xray_ct_reconstruction_v<version>.zip.

The archive holds one folder that runs as it is, the Python package included. What goes in is listed below, so that no
cache and no private file can; equal files give an equal archive, byte for byte.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

from xrecon_bundle.files import InputError, atomic_path

ROOT = Path(__file__).parents[1]
NAME = "xray_ct_reconstruction"
CONTENT = (
    "LICENSE",
    "configs/**/*.json",
    "configs/**/*.yaml",
    "configs/**/*.conf",
    "docs/**/*.md",
    "docs/**/*.txt",
    "docs/**/*.csv",
    "docs/**/*.png",
    "docs/**/*.jpg",
    "models/README.md",
    "models/fine.pt",
    "models/thickness.pt",
    "models/bones.pt",
    "models/model.json",
    "xrecon_bundle/**/*",
)
WEIGHTS = "models/model.pt"
LARGEST_MB = 25  # larger files would have to be hosted elsewhere and named in large_files.yml
NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


def bundle_files(weights: Path = ROOT / WEIGHTS) -> dict[str, Path]:
    """What the bundle consists of: paths inside it, sorted, and where each file is.

    Args:
        weights: the state dict that becomes ``models/model.pt``.

    Raises:
        InputError: there are no such weights, or a file is larger than the zoo takes.
    """
    if not weights.is_file():
        raise InputError(f"{weights}: no weights to pack; train with configs/train.yaml first")
    found = (path for pattern in CONTENT for path in ROOT.glob(pattern) if path.is_file())
    files = {path.relative_to(ROOT).as_posix(): path for path in found if "__pycache__" not in path.parts}
    files[WEIGHTS] = weights
    for path in files.values():
        if path.stat().st_size > LARGEST_MB * 2**20:
            raise InputError(f"{path} is larger than {LARGEST_MB} MB, the most that the zoo takes in an archive")
    return dict(sorted(files.items()))


def build(folder: str | Path = ROOT / "dist", weights: str | Path = ROOT / WEIGHTS) -> Path:
    """Write the archive into ``folder``; returns its path. Errors as :func:`bundle_files`."""
    version = json.loads((ROOT / "configs" / "metadata.json").read_text())["version"]
    archive = Path(folder) / f"{NAME}_v{version}.zip"
    files = bundle_files(Path(weights))
    with atomic_path(archive) as temporary, zipfile.ZipFile(temporary, "w") as content:
        for name, path in files.items():
            entry = zipfile.ZipInfo(f"{NAME}/{name}", NO_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16  # a plain file, readable by all
            content.writestr(entry, path.read_bytes())
    return archive


if __name__ == "__main__":
    try:
        print(f"wrote {build()}")
    except InputError as error:
        sys.exit(f"zoo: error: {error}")

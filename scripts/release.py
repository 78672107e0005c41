"""Check that a tag, the package, the bundle, the citation and the changelog say the same version.

python scripts/release.py v0.2.0
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = {  # file: where it says the version
    "xrecon_bundle/__init__.py": r'^__version__ = "(.+)"$',
    "CITATION.cff": r"^version: (.+)$",
    "CHANGELOG.md": r"^## (\d.+)$",
}


def versions() -> dict[str, str]:
    """The version that each place states; the changelog's is the newest below Unreleased."""
    found = {"configs/metadata.json": json.loads((ROOT / "configs/metadata.json").read_text())["version"]}
    for name, pattern in PLACES.items():
        match = re.search(pattern, (ROOT / name).read_text(), re.MULTILINE)
        found[name] = match.group(1) if match else "none"
    return found


def main() -> None:
    """Exit 1 and say where a version differs from the tag's."""
    wanted = sys.argv[1].removeprefix("v")
    wrong = {name: version for name, version in versions().items() if version != wanted}
    if wrong:
        sys.exit(
            f"the tag says {wanted}, but " + ", ".join(f"{name} says {version}" for name, version in wrong.items())
        )
    print(f"every place says {wanted}")


if __name__ == "__main__":
    main()

"""The bundle as a Hugging Face repository: `make hugging-face` writes dist/hugging_face.

The files of the Model Zoo's archive, and README.md, the model card of docs/README.md with the front matter that the Hub
reads. `hf upload OWNER/xray_ct_reconstruction dist/hugging_face` publishes it. Equal files give an equal folder.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml
from zoo import NAME, ROOT, WEIGHTS, bundle_files

from xrecon_bundle.files import InputError, atomic_path

JUDGED = {"model": "network", "cases": "angiography CT"}  # the person that the weights have not seen
METRICS = {  # of models/model.json: type and name on the Hub
    "psnr": ("psnr", "PSNR, dB"),
    "ssim_avg": ("ssim", "SSIM, mean of the three planes' slices"),
    "mae_hu": ("mae", "mean absolute error, HU"),
    "cavity_dice": ("dice", "Dice of the lungs"),
}
TAGS = ("monai", "medical", "chest", "x-ray", "computed-tomography", "image-to-3d", "pneumothorax")
LARGE = ("*.pt", "*.png", "*.jpg")  # stored by Git LFS


def front_matter(figures: Path = ROOT / "models" / "model.json") -> dict[str, Any]:
    """What the Hub shows and searches: licence, library, task, tags, and the figures that ``models/model.json`` holds.

    Raises:
        InputError: the figures are not there.
    """
    try:
        row = next(row for row in json.loads(figures.read_text()) if JUDGED.items() <= row.items())
        metrics = [
            {"type": kind, "name": name, "value": round(row[key], 3), "verified": False}
            for key, (kind, name) in METRICS.items()
        ]
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise InputError(f"{figures}: no figures of the weights ({error!r}); `make weights` writes them") from error
    dataset = {"type": "totalsegmentator-test-ct", "name": "CT angiography of one person, simulated radiographs"}
    task = {"type": "image-to-3d", "name": "chest CT from two radiographs"}
    return {
        "license": "apache-2.0",
        "library_name": "monai",
        "pipeline_tag": task["type"],
        "tags": list(TAGS),
        "model-index": [{"name": NAME, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}],
    }


def card() -> str:
    """README.md of the repository: front matter, and docs/README.md with its links as seen from one folder above."""

    def moved(match: re.Match) -> str:
        target = match[1]
        if "://" in target or target.startswith("#"):
            return match[0]
        return f"]({target.removeprefix('../') if target.startswith('../') else f'docs/{target}'})"

    text = re.sub(r"\]\(([^)\s]+)\)", moved, (ROOT / "docs" / "README.md").read_text())
    header = yaml.safe_dump(front_matter(), sort_keys=False, allow_unicode=True)
    return f"---\n{header}---\n\n{text}"


def build(folder: str | Path = ROOT / "dist" / "hugging_face", weights: str | Path = ROOT / WEIGHTS) -> Path:
    """Write the repository's files into ``folder``, which is replaced; returns it.

    Raises:
        InputError: there are no weights or no figures, or ``folder`` holds something else.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / "configs" / "metadata.json").exists():
        raise InputError(f"{folder} holds something else; give another folder")
    files, text = bundle_files(Path(weights)), card()
    with atomic_path(folder) as temporary:
        for name, path in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, temporary / name)
        (temporary / "README.md").write_text(text, encoding="utf-8")
        lines = [f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE]
        (temporary / ".gitattributes").write_text("".join(lines))
        if folder.exists():
            shutil.rmtree(folder)
    return folder


if __name__ == "__main__":
    try:
        print(f"wrote {build()}")
    except InputError as error:
        sys.exit(f"hugging_face: error: {error}")

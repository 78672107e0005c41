"""Every command in docs/guides is run as it stands there, in a copy of the bundle, on one patient's files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest
import torch

from xrecon_bundle.datasets.cohort import write_synthetic_cohort
from xrecon_bundle.networks import build_generator
from xrecon_bundle.networks.weights import save_weights

ROOT = Path(__file__).parents[1]
GUIDES = ROOT / "docs" / "guides"
SHORT = " --max_epochs 1 --val_interval 1"  # a training is the same command, over sooner
OWN_WEIGHTS = "xrecon reconstruct pa.png lateral.png --output ct.nii.gz"  # at 224; the rest with the weights of 64


def commands(guide: str) -> list[str]:
    """The lines of the guide's ```bash blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", (GUIDES / guide).read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The bundle as after cloning, and the files that the guides speak of."""
    for name in ("configs", "xrecon_bundle", "models"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    if not (tmp_path / "models" / "model.pt").exists():
        torch.manual_seed(0)
        save_weights(build_generator("compact", 64).state_dict(), tmp_path / "models" / "model.pt")
    if (ROOT / ".cache").exists():
        (tmp_path / ".cache").symlink_to(ROOT / ".cache")
    write_synthetic_cohort(tmp_path / "cohort", cases=4, spatial_size=64, seed=3, workers=1)
    for number, case in enumerate(sorted((tmp_path / "cohort").glob("synthetic-*"))):
        (tmp_path / "cts").mkdir(exist_ok=True)
        shutil.copy(case / "ct.nii.gz", tmp_path / "cts" / f"{number}.nii.gz")
        patient = tmp_path / "patients" / str(number % 2)  # two are a folder of patients
        patient.mkdir(parents=True, exist_ok=True)
        for view in ("pa", "lateral"):
            shutil.copy(case / f"{view}.png", patient)
            shutil.copy(case / f"{view}.png", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("guide", "results"),
    [
        ("try-it.md", ["try/ct.nii.gz", "try/ct.json", "try/segmentation.nii.gz"]),
        (
            "reconstruct.md",
            ["ct.nii.gz", "ct.json", "ct_430.nii.gz", "reconstructed/summary.csv", "ct_series", "segmentation.dcm"],
        ),
        pytest.param(
            "train.md",
            ["datasets/mine/manifest.json", "models/mine/model.pt", "eval/mine/report.html", "models/few/model.pt"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_guides_commands_work_as_written(folder, lidc, guide, results):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "PYTHONWARNINGS": "ignore"}
    lines = commands(guide)
    assert lines
    for line in lines:
        weights = ROOT / "models" / "fine.pt" if line == OWN_WEIGHTS else folder / "models" / "model.pt"
        shutil.copy(weights, folder / "models" / "fine.pt")
        command = line + SHORT if " training " in line else line.replace("--spatial_size 224", "--spatial_size 64")
        result = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{line}\n{result.stdout[-1500:]}\n{result.stderr[-1500:]}"
    for name in results:
        assert (folder / name).exists(), name
    if guide == "reconstruct.md":
        assert nib.load(folder / "ct.nii.gz").shape == (224, 224, 224)


def anchors(document: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)", document.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_link_in_the_documents_leads_somewhere():
    documents = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "models" / "README.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
    broken = []
    for document in documents:
        for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", document.read_text()):
            page = document.parent / target if target else document
            if "://" not in target and (not page.exists() or (anchor and anchor not in anchors(page))):
                broken.append(f"{document.relative_to(ROOT)}: {target}#{anchor}")
    assert not broken

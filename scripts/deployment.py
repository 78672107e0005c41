"""What `make zoo-test`, `make label-test` and `make deploy-test` share."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import torch
from zoo import NAME, ROOT, WEIGHTS, build

from xrecon_bundle.networks import build_generator
from xrecon_bundle.networks.weights import SPATIAL_SIZE, save_weights
from xrecon_bundle.workflows.predictor import Predictor

SIZE = 224  # of the weights that inference uses
SHIPPED = Path("models") / "fine.pt"


def unpacked_bundle(folder: Path) -> Path:
    """Pack the bundle and unzip it into ``folder``; returns the bundle's folder.

    With the weights in models/, else those of `make demo`, else random ones: what is tested is the way of the data.
    """
    weights = next((path for path in (ROOT / WEIGHTS, ROOT / "demo" / WEIGHTS) if path.exists()), folder / "random.pt")
    print(f"weights: {weights}")
    if not weights.exists():
        torch.manual_seed(0)
        save_weights(build_generator("compact", SPATIAL_SIZE).state_dict(), weights)
    with zipfile.ZipFile(build(folder / "dist", weights)) as archive:
        archive.extractall(folder)
    return folder / NAME


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Run a command without this repository on Python's path; returns what it printed.

    A command that fails ends the test with its output.
    """
    command = [str(part) for part in command]
    print("$", shlex.join(command), flush=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | environment
    result = subprocess.run(
        command, cwd=cwd, env=clean, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if result.returncode != 0:
        sys.exit(f"{result.stdout[-5000:]}\nexit code {result.returncode}: {shlex.join(command)}")
    return result.stdout


def expected_ct(bundle: Path, radiographs: Path) -> np.ndarray:
    """What the package itself makes of a biplanar image ``(U, V, 2)``: the CT ``(S, S, S)`` in HU."""
    return Predictor(bundle / SHIPPED)([radiographs]).hu


def compare(path: Path, hu: np.ndarray, affine: np.ndarray, tolerance_hu: float = 1.0) -> str:
    """Check that the NIfTI at ``path`` holds ``hu`` within ``tolerance_hu`` and ``affine`` within 0.01 mm.

    Returns a line that says how close it is.
    """
    image = nibabel.load(path)
    found = np.asarray(image.dataobj)
    assert found.shape == hu.shape, (found.shape, hu.shape)
    moved = float(np.abs(image.affine - affine).max())
    differing = float(np.abs(found.astype(float) - hu).max())
    assert moved <= 0.01, f"{path}: affine\n{image.affine}\nnot\n{affine}"
    assert differing <= tolerance_hu, f"{path}: differs by {differing} HU"
    return f"{path.name}: {found.shape}, greatest difference {differing:g} HU, of the affine {moved:.2g} mm"

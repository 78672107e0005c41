"""`pip install .`: what a wheel holds, and that it works where nothing else is."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from xrecon_bundle.io.radiograph_files import write_radiograph_png

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_weights_and_all_that_the_package_reads(wheel):
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        assert content.read("xrecon_bundle/models/fine.pt") == (ROOT / "models/fine.pt").read_bytes()
    package = ROOT / "xrecon_bundle"
    wanted = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.relative_to(ROOT).as_posix() for path in wanted} <= names


@pytest.mark.slow
def test_an_empty_environment_reconstructs(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    bin_ = tmp_path / "venv" / "bin"
    pins = tmp_path / "constraints.txt"
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins.write_text("\n".join(line for line in lines if "==" in line and "[" not in line))
    subprocess.run([bin_ / "python", "-m", "pip", "install", "--quiet", "--constraint", pins, wheel], check=True)
    help_text = subprocess.run([bin_ / "xrecon", "--help"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert all(command in help_text.stdout + help_text.stderr for command in ("reconstruct", "segment", "view"))
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    for name, across in (("pa", 0.0), ("lateral", 0.5)):
        body = np.exp(-(((x - across) / 0.4) ** 2) - y**4)
        write_radiograph_png(tmp_path / f"{name}.png", body + 0.01 * rng.random((64, 64)))
    command = [bin_ / "xrecon", "reconstruct", "pa.png", "lateral.png", "--output", "ct.nii.gz", "--accept_any_view"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "ct.nii.gz").stat().st_size > 10_000

"""The trainings of the fine generator as a user runs them, one step each, on a store of two people."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from xrecon_bundle.datasets.training_store import RECORD, SIZE, arrays_of
from xrecon_bundle.networks.fine import FineGenerator
from xrecon_bundle.networks.weights import load_generator

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ann, who is learnt from, and Bob, who is held out: a body with two lungs."""
    folder = tmp_path_factory.mktemp("store")
    x, y, z = np.ogrid[:SIZE, :SIZE, :SIZE]
    ct = np.full((SIZE,) * 3, -1000, dtype=np.int16)
    ct[((x - 112) / 90) ** 2 + ((y - 112) / 65) ** 2 + 0 * z < 1] = 40
    labels = np.zeros(ct.shape, dtype=np.uint8)
    for label, middle in ((1, 70), (2, 154)):
        labels[((x - middle) / 32) ** 2 + ((y - 112) / 45) ** 2 + ((z - 105) / 75) ** 2 < 1] = label
    ct[labels > 0] = -850
    arrays = arrays_of(ct, labels)
    for name in ("ann-00000", "bob-00001"):
        case = folder / "cases" / name
        case.mkdir(parents=True)
        for file, array in arrays.items():
            np.save(case / file, array)
        (case / RECORD).write_text("{}")
    return folder


@pytest.mark.parametrize("overlays", [[], ["first"], ["coarse"], ["sharp"]])
def test_one_step_leaves_weights_that_load(store, overlays, tmp_path):
    files = [f"configs/{name}.yaml" for name in ("fine", *overlays)]
    shutil.copyfile(ROOT / "models" / "fine.pt", tmp_path / "initial.pt")
    overrides = {
        "store_dir": store,
        "ckpt_dir": tmp_path / "run",
        "initial_weights": tmp_path / "initial.pt",
        "held_out": ["bob"],
        "epoch_steps": 1,
        "max_epochs": 1,
        "decay_start": 1,
        "val_interval": 1,
        "val_cases": 1,
        "num_workers": 0,
    }
    if overlays not in (["first"], ["coarse"]):
        overrides["edge"] = 32
    flags = [flag for name, value in overrides.items() for flag in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(files), *flags]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    before, after = (load_generator(path) for path in (tmp_path / "initial.pt", tmp_path / "run" / "model.pt"))
    assert isinstance(after, FineGenerator)
    assert after.spatial_size == SIZE
    moved = {
        name.split(".")[0]
        for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(old, new)
    }
    assert moved
    assert ("coarse" in moved) is ("first" in overlays)
    assert not moved & {"thickness", "bones"}
    assert ("join" in moved) is ("coarse" in overlays)
    checkpoint = torch.load(max((tmp_path / "run" / "checkpoints").glob("*.pt")), weights_only=True)
    assert ("discriminator" in checkpoint) is ("sharp" in overlays)

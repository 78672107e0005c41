"""What a command does not use is not imported: it starts at once. `scripts/benchmark.py startup` gives seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xrecon_bundle.datasets.cases import write_case
from xrecon_bundle.frame import cube_affine
from xrecon_bundle.networks.generator import build_generator
from xrecon_bundle.networks.weights import save_weights

HEAVY = ("torch", "monai", "ignite", "scipy", "skimage", "nibabel", "pydicom", "itk", "SimpleITK", "matplotlib", "h5py")
LISTING = """
import atexit, gc, sys
atexit.register(lambda: print("imported:", *sys.modules, gc.get_freeze_count() > 100_000 and "frozen"))
from xrecon_bundle.cli import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case whose CT is air with a block in it: no chest, and small; and a network's weights."""
    folder = tmp_path_factory.mktemp("startup") / "chest"
    ct = np.full((64, 64, 64), -1000, np.int16)
    ct[16:48, 20:44, 8:56] = 40
    write_case(folder, ct, cube_affine(64))
    save_weights(build_generator("compact", 64).state_dict(), folder / "small.pt", 64)
    return folder


def imported(*arguments: object) -> set[str]:
    """The modules that a command imports in a process of its own; ``frozen``: no garbage is looked for in them."""
    command = [sys.executable, "-c", LISTING, *map(str, arguments)]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return set(output.rpartition("imported:")[2].split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["segment", "--help"],
        ["recontruct"],
        ["segment", "{chest}/ct.nii.gz", "{chest}/labels.nii.gz", "--colour", "red"],
        ["reconstruct", "{chest}/pa.png", "{chest}/latteral.png", "{chest}/out.nii.gz"],
        ["reconstruct", "{chest}/pa.png", "{chest}/lateral.png", "{chest}/out.jpg"],
        ["reconstruct", "{chest}/pa.png", "{chest}/lateral.png", "{chest}/out.nii.gz", "--model", "{chest}/none.pt"],
        ["reconstruct-folder", "{chest}/none", "{chest}/out"],
        ["segment", "{chest}/none.nii.gz", "{chest}/labels.nii.gz"],
        ["segment", "{chest}/ct.nii.gz", "{chest}/labels.jpg"],
        ["simulate", "{chest}/none", "{chest}/out"],
        ["prepare", "{chest}/none", "{chest}/out"],
        ["evaluate", "{chest}/none.nii.gz", "{chest}/ct.nii.gz"],
    ],
    ids=" ".join,
)
def test_help_and_mistyped_names_are_answered_without_heavy_imports(arguments: list[str], chest: Path) -> None:
    modules = imported(*(argument.format(chest=chest) for argument in arguments))
    assert "xrecon_bundle.cli" in modules
    assert not modules & set(HEAVY)


@pytest.mark.parametrize(
    ("arguments", "used", "unused"),
    [
        (
            ["segment", "{chest}/ct.nii.gz", "{chest}/labels.nii.gz"],
            {"nibabel", "SimpleITK"},
            {"torch", "monai", "itk", "h5py", "skimage.transform", "skimage.morphology", "scipy.spatial", "matplotlib"},
        ),
        (
            ["reconstruct", "{chest}/pa.png", "{chest}/lateral.png", "{chest}/out.nii.gz", "--accept_any_view"],
            {"torch", "nibabel", "frozen"},
            {
                *("monai", "ignite", "monai.engines", "itk", "SimpleITK", "matplotlib", "pandas", "torch._dynamo"),
                *("scipy.spatial", "scipy.stats", "skimage.transform", "h5py", "xrecon_bundle.projection.film"),
            },
        ),
        (
            ["reconstruct-folder", "{chest}", "{chest}/all", "--accept_any_view", "--model", "{chest}/small.pt"],
            {"torch", "nibabel", "frozen"},
            {
                *("monai", "ignite", "itk", "SimpleITK", "matplotlib", "pandas", "torch._dynamo", "scipy.spatial"),
                *("scipy.stats", "skimage.transform", "h5py", "xrecon_bundle.projection.film"),
                "xrecon_bundle.segmentation.ptxseg",
            },
        ),
        (
            ["evaluate", "{chest}/ct.nii.gz", "{chest}/ct.nii.gz"],
            {"torch", "nibabel", "frozen"},
            {"monai", "ignite", "itk", "SimpleITK", "matplotlib", "scipy.stats", "skimage", "h5py"},
        ),
        (
            ["simulate", "{chest}/ct.nii.gz", "{chest}/simulated", "--spatial_size", "64"],
            {"torch", "nibabel", "frozen"},
            {"monai", "ignite", "itk", "SimpleITK", "matplotlib", "scipy.spatial", "scipy.stats", "skimage", "h5py"},
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_imports_what_it_uses(arguments: list[str], used: set[str], unused: set[str], chest: Path) -> None:
    modules = imported(*(argument.format(chest=chest) for argument in arguments))
    assert used <= modules
    assert not modules & unused

"""A biplanar NIfTI comes to the network's size as MONAI's transforms would bring it, and stays where it stood."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Resized

from xrecon_bundle.files import InputError, write_nifti
from xrecon_bundle.frame import cube_affine, radiograph_affine, reconstruction_affine
from xrecon_bundle.placement.radiographs import load_biplanar, place_pair

CENTRE = (5.0, -170.0, -200.0)


def write_pair(path: Path, shape: tuple[int, int], affine: np.ndarray) -> np.ndarray:
    views = np.random.default_rng(0).random((*shape, 2)).astype(np.float32)
    write_nifti(path, views, affine)
    return views


@pytest.mark.parametrize("size", [16, 24, 37, 64])
def test_the_pixels_and_the_affine_are_those_of_monais_transforms(size: int, tmp_path: Path) -> None:
    path = tmp_path / "radiographs.nii.gz"
    write_pair(path, (48, 40), radiograph_affine(48, CENTRE))
    monai = Compose(
        [LoadImaged("image"), EnsureChannelFirstd("image", channel_dim=-1), Resized("image", (size, size), mode="area")]
    )
    expected = monai({"image": str(path)})["image"]
    image = load_biplanar(path, size)
    assert torch.equal(image.as_tensor(), expected.as_tensor())
    assert image.dtype == torch.float32
    np.testing.assert_allclose(image.affine, expected.affine, atol=1e-5)
    assert image.meta["filename_or_obj"] == str(path)


@pytest.mark.parametrize("pixels", [32, 48, 96])
def test_the_cube_stands_where_it_stood_whatever_the_sizes(pixels: int, tmp_path: Path) -> None:
    path = tmp_path / "radiographs.nii.gz"
    write_pair(path, (pixels, pixels), radiograph_affine(pixels, CENTRE))
    placed = place_pair([path], 48)
    assert placed.image.shape == (2, 48, 48)
    np.testing.assert_allclose(reconstruction_affine(placed.affine, 48, 48), cube_affine(48, CENTRE), atol=1e-3)


def test_a_file_that_is_no_pair_is_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8), np.float32), np.eye(4)), tmp_path / "radiographs.nii.gz")
    with pytest.raises(InputError, match="a radiograph pair is"):
        load_biplanar(tmp_path / "radiographs.nii.gz", 64)
    (tmp_path / "radiographs.nii.gz").write_bytes(b"no")
    with pytest.raises(InputError, match="cannot be read"):
        load_biplanar(tmp_path / "radiographs.nii.gz", 64)

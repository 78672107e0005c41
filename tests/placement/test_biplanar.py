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
from xrecon_bundle.io.radiograph_files import VIEWS, write_radiograph_nifti
from xrecon_bundle.placement.biplanar import load_biplanar
from xrecon_bundle.placement.radiographs import PlacedPair, place_pair
from xrecon_bundle.placement.standardize import standardize_ct
from xrecon_bundle.projection.radiographs import simulate_radiographs

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


# --- how it came to the network's image --------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "size"), [((48, 48), 24), ((48, 40), 37), ((64, 64), 64), ((32, 32), 64)])
def test_every_pixel_is_where_file_to_image_says(shape: tuple[int, int], size: int, tmp_path: Path) -> None:
    path = tmp_path / "radiographs.nii.gz"
    views = np.random.default_rng(0).random((*shape, 2)).astype(np.float32)
    blocks = {"pa": (5, 22), "lateral": (19, 8)}  # each eight pixels long and six high
    for number, (column, row) in enumerate(blocks.values()):
        views[column : column + 8, row : row + 6, number] += 1000
    write_nifti(path, views, radiograph_affine(shape[0], CENTRE))
    placed = place_pair([path], size)
    assert placed.record["exchanged"] is False
    for image, (view, (column, row)) in zip(placed.image.numpy(), blocks.items(), strict=True):
        record = placed.record[view]
        expected = np.array(record["file_to_image"]) @ [column + 3.5, row + 2.5, 1]
        weight = image.clip(100) - 100  # the noise is left out
        middle = (np.indices((size, size)) * weight).sum((1, 2)) / weight.sum()
        np.testing.assert_allclose(expected, [*middle, 1], atol=0.5)
        assert (record["turned"], record["mirrored"], record["file"]) == (0, False, str(path))


@pytest.fixture(scope="module")
def views(lidc: tuple[Path, Path]) -> np.ndarray:
    """The radiographs ``(U, V, 2)`` of a real CT."""
    ct = nibabel.load(lidc[0])
    hu = standardize_ct(np.asarray(ct.dataobj), ct.affine, 96).ct
    return np.moveaxis(simulate_radiographs(torch.from_numpy(hu.astype(np.float32)), 96).numpy(), 0, -1)


def test_our_file_is_recorded_as_its_two_views_are(views: np.ndarray, tmp_path: Path) -> None:
    write_nifti(tmp_path / "radiographs.nii.gz", views, radiograph_affine(96, CENTRE))
    files = [tmp_path / f"{view}.nii.gz" for view in VIEWS]
    for number, (view, path) in enumerate(zip(VIEWS, files, strict=True)):
        write_radiograph_nifti(path, views[..., number], view, CENTRE)
    pair, file = place_pair(files, 64), place_pair([tmp_path / "radiographs.nii.gz"], 64)
    for view in VIEWS:
        expected, found = (dict(placed.record[view]) for placed in (pair, file))
        assert expected.pop("file").endswith(f"{view}.nii.gz")
        assert found.pop("file") == str(file_of(tmp_path))
        np.testing.assert_allclose(found.pop("file_to_image"), expected.pop("file_to_image"), atol=1e-6)
        assert found == expected
        assert found["scale_from"] == "file"
    assert file.record["exchanged"] is pair.record["exchanged"] is False
    assert file.warnings == pair.warnings == []


def file_of(folder: Path) -> Path:
    return folder / "radiographs.nii.gz"


def other(folder: Path, views: np.ndarray, affine: np.ndarray | None = None) -> PlacedPair:
    write_nifti(file_of(folder), np.ascontiguousarray(views), np.eye(4) if affine is None else affine)
    return place_pair([file_of(folder)], 64)


def test_in_a_file_of_another_program_the_chest_is_looked_for(views: np.ndarray, tmp_path: Path) -> None:
    placed = other(tmp_path, views)
    assert placed.warnings == []
    for view in VIEWS:
        record = placed.record[view]
        assert record["scale_from"] == "biplanar file"
        assert 0.9 <= record["confidence"] <= 1
        assert np.mean(record["lungs"], axis=1) == pytest.approx([31.5, 31.5], abs=3)  # the cube's middle


def test_a_spacing_that_is_not_the_detectors_is_not_taken_for_it(views: np.ndarray, tmp_path: Path) -> None:
    smaller = radiograph_affine(96) * [[0.8], [0.8], [0.8], [1]]
    assert other(tmp_path, views, smaller).record["pa"]["scale_from"] == "biplanar file"


@pytest.mark.parametrize(
    ("change", "warned"),
    [
        (lambda pair: np.stack([pair[..., 0], pair[::-1, :, 1]], -1), ["the left lateral view may be"]),
        (lambda pair: np.stack([pair[:, ::-1, 0], pair[..., 1]], -1), ["the PA view may be"]),
        (lambda pair: pair[..., ::-1], ["the PA view may be", "the left lateral view may be"]),
        (
            lambda pair: np.stack([pair[..., 0], np.roll(pair[..., 1], 14, axis=1)], -1),
            ["the lungs are not in the same rows"],
        ),
    ],
    ids=["lateral mirrored", "PA upside down", "exchanged", "lateral shifted"],
)
def test_a_file_of_another_program_is_warned_of(change, warned, views: np.ndarray, tmp_path: Path) -> None:
    placed = other(tmp_path, change(views))
    np.testing.assert_array_equal(placed.image, load_biplanar(file_of(tmp_path), 64).as_tensor())  # stays as it is
    assert len(placed.warnings) == len(warned)
    for warning, beginning in zip(placed.warnings, warned, strict=True):
        assert warning.startswith(beginning)
        assert "give two files" in warning

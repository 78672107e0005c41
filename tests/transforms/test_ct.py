from __future__ import annotations

from itertools import permutations, product

import nibabel
import numpy as np
import pytest
import torch
from chest_phantom import CENTRE, MARKER, SHAPE, phantom, phantom_affine
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from nibabel.orientations import apply_orientation, inv_ornt_aff
from scipy import ndimage
from scipy.spatial.transform import Rotation

from xrecon_bundle import frame
from xrecon_bundle.files import InputError
from xrecon_bundle.io.readers import read_ct
from xrecon_bundle.placement.standardize import StandardizedCT, resize_cube, standardize_ct
from xrecon_bundle.transforms import StandardizeChestCTd

SIZE = 64
AFFINE = phantom_affine()


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    return phantom(AFFINE)


@pytest.fixture(scope="module")
def standard(hu) -> StandardizedCT:
    return standardize_ct(hu, AFFINE, SIZE)


def marker_world(result: StandardizedCT) -> np.ndarray:
    """Where the dense ball in the left upper lung lies, RAS+ mm (the spine, also dense, is behind)."""
    dense = np.where(result.ct > 0, result.ct.astype(float), 0)
    half = result.ct.shape[0] // 2
    dense[:, half:], dense[:half] = 0, 0
    dense[ndimage.label(dense > 200)[0] != np.bincount(ndimage.label(dense > 200)[0].ravel())[1:].argmax() + 1] = 0
    return nibabel.affines.apply_affine(result.affine, ndimage.center_of_mass(dense))


def truth(result: StandardizedCT, collapsed: bool = False) -> np.ndarray:
    """The phantom sampled on the result's own grid."""
    return phantom(result.affine, result.ct.shape, collapsed)


def test_every_structure_lies_where_the_affine_says(standard):
    body = ((np.abs(truth(standard) - standard.ct)) < 200)[12:-12, 20:-20, 8:-8]
    assert body.mean() > 0.93  # all but voxels on an edge between two tissues
    np.testing.assert_allclose(marker_world(standard), MARKER, atol=1.5)
    np.testing.assert_allclose(frame.grid_centre(standard.affine, standard.ct.shape), CENTRE, atol=12)


def test_axes_are_left_back_feet(standard):
    x, y, z = np.linalg.inv(standard.affine)[:3] @ [*MARKER, 1]  # left, in front, high
    assert x > SIZE / 2 > max(y, z)
    assert "".join(nibabel.aff2axcodes(standard.affine)) == frame.AXCODES
    assert standard.ct.dtype == np.int16


@pytest.mark.parametrize("order", permutations(range(3)))
def test_any_order_and_direction_of_axes_gives_the_same_volume(order, hu, standard):
    for flips in product((1, -1), repeat=3):
        orientation = np.stack([order, flips], axis=1)
        turned = apply_orientation(hu, orientation)
        result = standardize_ct(turned, AFFINE @ inv_ornt_aff(orientation, SHAPE), SIZE)
        np.testing.assert_array_equal(result.ct, standard.ct)
        np.testing.assert_allclose(result.affine, standard.affine, atol=1e-9)


@settings(deadline=None, max_examples=8, derandomize=True)
@given(angles=st.tuples(*[st.floats(-30, 30)] * 3), shear=st.floats(-0.4, 0.4))
def test_oblique_and_sheared_grids_stand_where_they_stood(angles, shear):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ AFFINE[:3, :3]
    turn[:3, 2] += shear * turn[:3, 1]  # gantry tilt: slices shifted along the columns
    shape = (104, 96, 96)
    turn[:3, 3] = CENTRE - turn[:3, :3] @ ((np.array(shape) - 1) / 2)
    result = standardize_ct(phantom(turn, shape), turn, SIZE)
    np.testing.assert_allclose(marker_world(result), MARKER, atol=2.5)
    np.testing.assert_allclose(frame.grid_centre(result.affine, result.ct.shape), CENTRE, atol=15)


@pytest.mark.parametrize("size", [64, 96, 224, 320])
def test_any_size_shows_the_same_cube(size, hu, standard):
    result = standardize_ct(hu, AFFINE, size)
    assert result.ct.shape == (size,) * 3
    np.testing.assert_allclose(
        frame.grid_centre(result.affine, result.ct.shape), frame.grid_centre(standard.affine, standard.ct.shape)
    )
    assert abs(result.ct.mean() - standard.ct.mean()) < 4
    np.testing.assert_allclose(marker_world(result), MARKER, atol=1.5)


def test_fine_detail_is_averaged_and_not_aliased():
    affine = phantom_affine(2.5, (200, 120, 144))
    noise = np.random.default_rng(0).normal(0, 100, (200, 120, 144))
    plain, noisy = (standardize_ct(phantom(affine, noise.shape) + extra, affine, SIZE).ct for extra in (0, noise))
    muscle = np.abs(plain[20:44, 24:44, 24:40] - 40) < 1
    assert muscle.sum() > 500
    assert (noisy - plain)[20:44, 24:44, 24:40][muscle].std() < 30


def test_table_gown_and_arm_become_air(standard):
    index = np.stack(np.meshgrid(*map(np.arange, standard.ct.shape), indexing="ij"), axis=-1)
    left, back, _ = np.moveaxis(CENTRE - (index @ standard.affine[:3, :3].T + standard.affine[:3, 3]), -1, 0)
    trunk = (left / 165) ** 2 + (back / 110) ** 2
    assert standard.ct[trunk > 1.35].max() < -900
    inside = standard.ct[(trunk < 0.85) & (np.abs(np.arange(SIZE) - 31.5) < 25)]
    expected = truth(standard)[(trunk < 0.85) & (np.abs(np.arange(SIZE) - 31.5) < 25)]
    assert abs(inside.mean() - expected.mean()) < 10


def test_a_collapsed_lung_keeps_its_side_and_the_centre(standard):
    result = standardize_ct(phantom(AFFINE, collapsed=True), AFFINE, SIZE)
    np.testing.assert_allclose(result.affine, standard.affine, atol=6)
    x, y, z = np.round(np.linalg.inv(result.affine)[:3] @ [*CENTRE + np.array([-110, 0, 0]), 1]).astype(int)
    assert result.ct[x, y, z] < -980  # the pneumothorax is air, not lung


def test_the_thorax_is_found_in_a_whole_body_scan(standard):
    shape = (*SHAPE[:2], 240)
    affine = AFFINE.copy()
    affine[2, 3] += 5 * 40  # 20 cm above the chest scan begins, 64 cm below it ends
    hu = phantom(affine, shape)
    bowel = hu[40:55, 20:30, 150:170]
    bowel[:] = -1000
    result = standardize_ct(hu, affine, SIZE)
    np.testing.assert_allclose(result.affine, standard.affine, atol=3)


def test_padding_and_nan_count_as_air(hu, standard):
    padded = hu.astype(np.float32)
    padded[:3], padded[-3:], padded[:, :2] = -3024, -2000, np.nan
    np.testing.assert_array_equal(standardize_ct(padded, AFFINE, SIZE).ct, standard.ct)


def test_labels_follow_the_ct(hu, standard):
    result = standardize_ct(hu, AFFINE, SIZE, labels=(hu > 900).astype(np.uint8) * 7)
    np.testing.assert_array_equal(result.ct, standard.ct)
    assert set(np.unique(result.labels)) == {0, 7}
    where = nibabel.affines.apply_affine(result.affine, ndimage.center_of_mass(result.labels))
    np.testing.assert_allclose(where, MARKER, atol=3)


def test_the_dictionary_transform_does_the_same(hu, standard):
    def tensor(array: np.ndarray) -> MetaTensor:
        return MetaTensor(torch.from_numpy(array.astype(np.float32))[None], affine=torch.as_tensor(AFFINE))

    result = StandardizeChestCTd("ct", SIZE, label_key="seg")({"ct": tensor(hu), "seg": tensor(hu > 900), "case": "a"})
    np.testing.assert_array_equal(result["ct"].numpy()[0], standard.ct)
    assert result["seg"].shape == (1, SIZE, SIZE, SIZE)
    assert result["case"] == "a"
    for key in ("ct", "seg"):
        np.testing.assert_allclose(result[key].affine.numpy(), standard.affine)


def test_a_cube_at_another_size_stays_where_it_stands(standard):
    larger = resize_cube(standard.ct, standard.affine, 96)
    np.testing.assert_allclose(marker_world(larger), MARKER, atol=1.5)
    np.testing.assert_array_equal(resize_cube(standard.ct, standard.affine, SIZE).ct, standard.ct)


def head() -> np.ndarray:
    hu = phantom(AFFINE)
    hu[hu < -400] = -1000
    x, y, z = np.ogrid[-50:50, -30:30, -36:36]
    skull = (x / 16) ** 2 + (y / 20) ** 2 + (z / 24) ** 2
    hu[:] = np.where(skull < 1, np.where(skull > 0.8, 900, 40), -1000)
    hu[48:54, 12:18, 5:12] = -1000  # a sinus
    return hu


def opaque_side() -> np.ndarray:
    hu = phantom(AFFINE)
    hu[50:][(hu[50:] == -850)] = 20
    return hu


@pytest.mark.parametrize(
    ("hu", "reason"),
    [
        pytest.param(head(), "too little thorax", id="head"),
        pytest.param(phantom(AFFINE)[:, :, 45:], "cuts the lung apices|mm high", id="abdomen with lung bases"),
        pytest.param(phantom(AFFINE)[:, :, 62:], "too little thorax|no air", id="abdomen"),
        pytest.param(phantom(AFFINE)[:, :, 25:55], "cuts the lung", id="heart scan"),
        pytest.param(phantom(AFFINE)[:, :, :36], "cuts the lung bases", id="upper chest"),
        pytest.param(opaque_side(), "no air in the left half", id="one lung opaque"),
        pytest.param(np.full(SHAPE, -1000, np.int16), "dense as a patient", id="air"),
        pytest.param(np.zeros(SHAPE, np.int16), "no air inside the body", id="water"),
        pytest.param(np.zeros((64, 64), np.int16), "three axes", id="2D"),
        pytest.param(np.zeros((8, 8, 8, 2), np.int16), "three axes", id="4D"),
        pytest.param(np.zeros((64, 64, 1), np.int16), "three axes", id="one slice"),
    ],
)
def test_a_scan_without_enough_thorax_is_refused(hu, reason):
    with pytest.raises(InputError, match=reason):
        standardize_ct(hu, AFFINE, SIZE)


@pytest.mark.parametrize(
    ("affine", "reason"),
    [
        (np.zeros((4, 4)), "singular"),
        (np.diag([1.0, 1.0, 0.0, 1.0]), "singular"),
        (np.full((4, 4), np.nan), "finite"),
        (np.eye(3), "4x4"),
        (np.diag([1.0, 1.0, 20.0, 1.0]), "thinner slices"),
        (np.diag([5e-3, 5e-3, 5e-3, 1.0]), "affine in mm"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
    ],
)
def test_a_useless_affine_is_refused(affine, reason, hu):
    with pytest.raises(InputError, match=reason):
        standardize_ct(hu, affine, SIZE)


@pytest.fixture(scope="module")
def lidc_standard(lidc) -> StandardizedCT:
    volume = read_ct(lidc[0])
    labels = np.asarray(nibabel.load(lidc[1]).dataobj)
    return standardize_ct(volume.hu, volume.affine, 128, labels)


def test_lidc_from_nifti_and_from_dicom_are_the_same_volume(lidc_standard, lidc_dicom):
    volume = read_ct(lidc_dicom)
    result = standardize_ct(volume.hu, volume.affine, 128)
    assert np.abs(result.ct.astype(int) - lidc_standard.ct).max() <= 1
    np.testing.assert_allclose(result.affine, lidc_standard.affine, atol=1e-3)


def test_lidc_stands_upright_and_not_mirrored(lidc_standard):
    centre = {
        name: np.mean([ndimage.center_of_mass(lidc_standard.labels == label) for label in labels], axis=0)
        for name, labels in {
            "liver": (5,),
            "stomach": (6,),
            "left": (10, 11),
            "right": (12, 13, 14),
            "T12": (33,),
        }.items()
    }
    assert centre["liver"][0] < centre["stomach"][0]
    assert centre["right"][0] < 64 < centre["left"][0]
    assert centre["T12"][1] > centre["left"][1]
    assert centre["T12"][2] > centre["left"][2]


def test_lidc_lungs_are_whole_and_the_table_is_gone(lidc, lidc_standard):
    lungs = np.isin(lidc_standard.labels, (10, 11, 12, 13, 14))
    source = nibabel.load(lidc[1])
    volume = np.isin(np.asarray(source.dataobj), (10, 11, 12, 13, 14)).sum() * abs(np.linalg.det(source.affine[:3, :3]))
    assert lungs.sum() * frame.voxel_size(128) ** 3 == pytest.approx(volume, rel=0.005)
    middle = [(low + high) / 2 for low, high in ((where.min(), where.max()) for where in np.nonzero(lungs))]
    np.testing.assert_allclose(middle, 63.5, atol=3)
    # One body remains; what lay beside it in the scan (table, blanket) was more than 200 mL.
    pieces, _ = ndimage.label(lidc_standard.ct > -400)
    body = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    body = np.stack([ndimage.binary_fill_holes(level) for level in np.moveaxis(body, 2, 0)], axis=2)
    assert np.sum((lidc_standard.ct > -400) & ~body) == 0
    scan = nibabel.load(lidc[0])
    matrix = np.linalg.inv(scan.affine) @ lidc_standard.affine
    raw = ndimage.affine_transform(
        scan.get_fdata(dtype=np.float32), matrix, output_shape=(128,) * 3, order=0, cval=-1024
    )
    removed = (raw > -400) & (lidc_standard.ct == -1024)
    assert removed.sum() * frame.voxel_size(128) ** 3 / 1000 > 200

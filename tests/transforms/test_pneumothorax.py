from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from xrecon_bundle import frame
from xrecon_bundle.anatomy.pneumothorax import Pneumothorax, insert_pneumothorax
from xrecon_bundle.files import InputError
from xrecon_bundle.placement.standardize import standardize_ct
from xrecon_bundle.transforms import InsertPneumothoraxd, RandInsertPneumothoraxd

SIZE = 64
SPACING = (frame.voxel_size(SIZE),) * 3
SIDES = {"right": (1, 3), "left": (2, 4)}
# TotalSegmentator's labels in this file: 10, 11 are the left lung's lobes, 12 to 14 the right's (checked below).
LOBES = {1: (12, 13, 14), 2: (10, 11)}


@pytest.fixture(scope="module")
def chest(lidc) -> tuple[np.ndarray, np.ndarray]:
    """The LIDC CT at 64 and its lungs."""
    ct, mask = (nibabel.load(path) for path in lidc)
    standard = standardize_ct(np.asarray(ct.dataobj), ct.affine, SIZE, np.asarray(mask.dataobj).astype(np.uint8))
    lungs = np.zeros(standard.labels.shape, dtype=np.uint8)
    for lung, lobes in LOBES.items():
        lungs[np.isin(standard.labels, lobes)] = lung
    return standard.ct, lungs


def mass(hu: np.ndarray) -> float:
    """Tissue in voxels of water."""
    return float((hu.astype(float) / 1000 + 1).sum())


def test_the_right_lung_of_the_fixture_lies_on_the_patients_right(chest):
    _, lungs = chest
    assert np.argwhere(lungs == 1)[:, 0].mean() < SIZE / 2 < np.argwhere(lungs == 2)[:, 0].mean()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("occupancy", [0.05, 0.15, 0.3, 0.5, 0.7, 0.9])
def test_occupancy_is_within_two_percent_of_the_asked(chest, side, occupancy):
    _, labels = insert_pneumothorax(*chest, SPACING, side, occupancy, seed=1)
    lung, air = (np.count_nonzero(labels == value) for value in SIDES[side])
    assert air / (air + lung) == pytest.approx(occupancy, rel=0.02)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("occupancy", "tolerance"), [(0.1, 0.01), (0.3, 0.01), (0.5, 0.03), (0.7, 0.03)])
def test_tissue_is_neither_lost_nor_made(chest, side, occupancy, tolerance):
    hu, lungs = chest
    after, _ = insert_pneumothorax(hu, lungs, SPACING, side, occupancy, seed=1)
    of_the_lung = mass(hu[lungs == SIDES[side][0]])
    assert abs(mass(after) - mass(hu)) < tolerance * of_the_lung


def test_a_lung_pressed_beyond_airless_loses_blood_but_never_turns_denser_than_tissue(chest):
    hu, lungs = chest
    after, labels = insert_pneumothorax(hu, lungs, SPACING, "right", 0.9, seed=1)
    assert np.percentile(after[labels == 1], 50) == pytest.approx(30, abs=15)
    assert after[labels == 1].max() <= hu.max()


def test_density_rises_with_the_collapse_and_the_free_space_is_air(chest):
    means = []
    for occupancy in (0.1, 0.4, 0.6, 0.8):
        hu, labels = insert_pneumothorax(*chest, SPACING, "left", occupancy, seed=3)
        means.append(hu[labels == 2].mean())
        inside = ndimage.binary_erosion(labels == 4)  # at 64 a thin crescent is all partial volume
        if occupancy >= 0.4:
            assert hu[inside].mean() == pytest.approx(-1000, abs=20)
    assert means == sorted(means)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("posture", "axis", "less"), [("supine", 1, 3), ("erect", 2, 10)])
def test_air_gathers_where_it_rises_to_and_the_lung_stays_at_its_hilum(chest, side, posture, axis, less):
    lung, air = SIDES[side]
    _, labels = insert_pneumothorax(*chest, SPACING, side, 0.3, seed=2, posture=posture)
    assert np.argwhere(labels == air)[:, axis].mean() < np.argwhere(labels == lung)[:, axis].mean() - less
    _, labels = insert_pneumothorax(*chest, SPACING, side, 0.8, seed=2, posture=posture)
    distance = [np.abs(np.argwhere(labels == value)[:, 0] - SIZE / 2).mean() for value in (lung, air)]
    assert distance[0] < distance[1]


@pytest.mark.parametrize("posture", ["erect", "supine"])
@pytest.mark.parametrize(("occupancy", "bare"), [(0.05, (0.1, 0.4)), (0.2, (0.25, 0.7)), (0.8, (0.85, 1.0))])
def test_the_lung_stays_at_the_wall_away_from_a_small_one_and_leaves_it_all_round_a_large_one(
    chest, posture, occupancy, bare
):
    """Share of the cavity's outer voxels that hold air."""
    _, labels = insert_pneumothorax(*chest, SPACING, "right", occupancy, seed=3, posture=posture)
    cavity = np.isin(labels, (1, 3))
    outer = cavity & ~ndimage.binary_erosion(cavity)
    assert bare[0] < np.mean(labels[outer] == 3) < bare[1]


def test_where_the_lung_stays_apposed_its_outline_is_as_dense_as_before(chest):
    hu, lungs = chest
    after, labels = insert_pneumothorax(hu, lungs, SPACING, "right", 0.1, seed=3, posture="erect")
    low = np.arange(SIZE) > np.argwhere(labels == 3)[:, 2].max() + 2
    rim = (lungs == 1) & ~ndimage.binary_erosion(lungs == 1) & low
    assert np.count_nonzero(rim) > 1000
    assert np.median(after[rim] - hu[rim]) == pytest.approx(10, abs=10), "denser, since packed closer; no film of air"


def test_what_the_label_map_leaves_out_at_the_wall_is_no_lung_outside_the_air():
    hu, lungs = _two_boxes()
    after, labels = insert_pneumothorax(
        hu, np.where(ndimage.binary_erosion(lungs == 1), 1, 0), SPACING, "right", 0.3, seed=0, posture="supine"
    )
    front = np.s_[8:20, 12, 20:40]
    assert (labels[front] == 3).mean() > 0.9
    assert np.median(after[front]) < -950


@pytest.mark.parametrize(("side", "sign"), [("right", 1), ("left", -1)])
def test_only_a_large_pneumothorax_pushes_the_mediastinum_to_the_other_side(chest, side, sign):
    hu, lungs = chest
    block = (slice(SIZE // 4, 3 * SIZE // 4), slice(SIZE // 4, SIZE // 2), slice(SIZE // 2, SIZE // 2 + 8))

    def middle(volume: np.ndarray, labels: np.ndarray) -> float:
        tissue = (volume[block] > 0) & ~np.isin(labels[block], (1, 2, 3, 4))
        return np.argwhere(tissue)[:, 0].mean()

    before = middle(hu, lungs)
    small = middle(*insert_pneumothorax(hu, lungs, SPACING, side, 0.2, seed=4))
    large = middle(*insert_pneumothorax(hu, lungs, SPACING, side, 0.85, seed=4))
    assert abs(small - before) < 0.3
    assert sign * (large - before) > 0.5


def test_the_rest_of_the_patient_is_untouched_by_a_small_one(chest):
    hu, lungs = chest
    after, labels = insert_pneumothorax(hu, lungs, SPACING, "left", 0.2, seed=5)
    assert (labels[lungs == 1] == 1).all()
    changed = np.argwhere(np.abs(after - hu) > 1)
    cavity = np.argwhere(np.isin(labels, (2, 4)))
    assert (changed >= cavity.min(axis=0) - 1).all()
    assert (changed <= cavity.max(axis=0) + 1).all()
    bone = hu > 300
    np.testing.assert_array_equal(after[bone & (lungs == 0)], hu[bone & (lungs == 0)])


def test_same_seed_same_pneumothorax_other_seed_another_form(chest):
    first, second, third = (insert_pneumothorax(*chest, SPACING, "right", 0.4, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (first[1] != third[1]).any()


def test_organs_in_the_label_map_are_carried_along():
    hu, lungs = _two_boxes()
    lungs[24:40, 20:40, 20:44] = 9
    _, labels = insert_pneumothorax(hu, lungs, SPACING, "right", 0.9, seed=0)
    assert np.argwhere(labels == 9)[:, 0].mean() > np.argwhere(lungs == 9)[:, 0].mean()
    assert np.count_nonzero(labels == 9) == pytest.approx(np.count_nonzero(lungs == 9), rel=0.03)


def _two_boxes() -> tuple[np.ndarray, np.ndarray]:
    hu = np.full((64, 64, 64), 40, dtype=np.int16)
    lungs = np.zeros(hu.shape, dtype=np.uint8)
    lungs[4:24, 12:52, 12:52] = 1
    lungs[40:60, 12:52, 12:52] = 2
    hu[lungs > 0] = -850
    return hu, lungs


@pytest.mark.parametrize(
    ("side", "occupancy", "message"),
    [
        ("up", 0.2, "side must be"),
        ("left", 0.95, "between 0 and 0.9"),
        ("left", -0.1, "between 0 and 0.9"),
        ("left", 0.2, "no left lung"),
        ("right", 0.2, "already holds a right pneumothorax"),
    ],
)
def test_what_cannot_be_done_is_refused(side, occupancy, message):
    hu, lungs = _two_boxes()
    lungs[lungs == 2] = 0
    lungs[4:24, 12:14, 12:52] = 3
    with pytest.raises(ValueError, match=message):
        insert_pneumothorax(hu, lungs, SPACING, side, occupancy)


def test_a_posture_that_is_none_is_refused():
    with pytest.raises(ValueError, match="posture must be"):
        insert_pneumothorax(*_two_boxes(), SPACING, "right", 0.2, posture="prone")


def _item(chest, affine: np.ndarray | None = None) -> dict:
    affine = frame.cube_affine(SIZE, (5.0, -3.0, 8.0)) if affine is None else affine
    hu, lungs = (MetaTensor(torch.from_numpy(array)[None], affine=torch.as_tensor(affine)) for array in chest)
    return {"label": hu, "segmentation": lungs}


def test_dictionary_form_keeps_the_affine_and_writes_the_ground_truth(chest):
    item = _item(chest)
    result = InsertPneumothoraxd("label", "right", 0.35, seed=2)(item)
    hu, labels = insert_pneumothorax(*chest, SPACING, "right", 0.35, seed=2)
    np.testing.assert_array_equal(result["label"][0], hu)
    np.testing.assert_array_equal(result["segmentation"][0], labels)
    np.testing.assert_array_equal(result["label"].affine, item["label"].affine)
    np.testing.assert_array_equal(result["segmentation"].affine, item["label"].affine)


def test_without_a_segmentation_the_lungs_are_found(chest):
    item = _item(chest)
    known = item.pop("segmentation")[0]
    found = InsertPneumothoraxd("label", "left", 0.4)(item)["segmentation"][0]
    lung, air = (int((found == value).sum()) for value in SIDES["left"])
    assert air / (air + lung) == pytest.approx(0.4, rel=0.02)
    assert lung + air == pytest.approx(int((known == 2).sum()), rel=0.05)
    assert int((found == 1).sum()) == pytest.approx(int((known == 1).sum()), rel=0.05)


def test_other_orientations_are_refused_with_the_remedy(chest):
    with pytest.raises(InputError, match=r"RAS.*Orientationd"):
        InsertPneumothoraxd("label", "right", 0.35)(_item(chest, np.diag([5.6, 5.6, 5.6, 1.0])))


def test_random_form_is_seeded_and_draws_sides_and_sizes(chest):
    def draw(seed: int) -> list[tuple[int, float]]:
        transform = RandInsertPneumothoraxd("label", prob=0.7, occupancy=(0.1, 0.6)).set_random_state(seed)
        drawn = []
        for _ in range(8):
            labels = transform(_item(chest))["segmentation"][0].numpy()
            right, left = (labels == 3).sum(), (labels == 4).sum()
            drawn.append(
                (int(np.sign(left - right)), (right + left) / ((labels == (1 if right else 2)).sum() + right + left))
            )
        return drawn

    first = draw(3)
    assert first == draw(3)
    assert {side for side, _ in first} == {-1, 0, 1}
    assert all(0.09 < share < 0.61 for side, share in first if side)


def test_occupancy_range_is_checked_when_the_transform_is_made():
    with pytest.raises(ValueError, match="between 0 and"):
        RandInsertPneumothoraxd("label", occupancy=(0.1, 1.0))
    assert Pneumothorax("left", 0.0).occupancy == 0

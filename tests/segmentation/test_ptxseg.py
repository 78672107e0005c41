"""PTX-Seg on chests whose truth is known: an analytic phantom and the LIDC CT."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from tests.segmentation.conftest import SHAPE, SPACING, make_chest
from xrecon_bundle.anatomy.pneumothorax import Pneumothorax, insert_pneumothorax
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.datasets.cohort import resize_labelled
from xrecon_bundle.datasets.lidc import standard_lidc
from xrecon_bundle.files import InputError
from xrecon_bundle.frame import voxel_size
from xrecon_bundle.metrics import dice_score
from xrecon_bundle.segmentation import PTXSeg, cavities
from xrecon_bundle.segmentation.grid import WorkingGrid
from xrecon_bundle.segmentation.labels import SIDES
from xrecon_bundle.transforms.segmentation import PTXSegd


@pytest.fixture(scope="module")
def lidc_128(lidc):
    return standard_lidc(lidc[0].parents[1], 128)


def _occupancy(labels: np.ndarray, side: int) -> float:
    return np.count_nonzero(labels == side + 2) / max(1, np.count_nonzero(np.isin(labels, (side, side + 2))))


def test_healthy_lungs_are_told_apart_and_hold_no_free_air(healthy):
    labels = PTXSeg()(healthy.hu, healthy.spacing)
    assert labels.dtype == np.uint8
    assert dice_score(labels == 1, healthy.labels == 1) > 0.96
    assert dice_score(labels == 2, healthy.labels == 2) > 0.96
    assert np.count_nonzero(labels > 2) == 0
    assert labels[57, 40, 8] == 0, "the trachea is no lung"
    assert labels[80, 36, 74] == 0, "nor is the stomach's gas"


@pytest.mark.parametrize(("side", "label"), [("right", 1), ("left", 2)])
@pytest.mark.parametrize("depth", [20.0, 60.0])
def test_free_air_is_found_on_its_own_side(side, label, depth):
    chest = make_chest(air=side, depth=depth)
    labels = PTXSeg()(chest.hu, chest.spacing)
    assert dice_score(labels == label + 2, chest.labels == label + 2) > 0.85
    assert _occupancy(labels, label) == pytest.approx(_occupancy(chest.labels, label), abs=0.03)
    assert not (labels == 5 - label).any(), "nothing on the other side"


@pytest.mark.parametrize("opaque", [1, 2], ids=["right", "left"])
def test_where_one_lung_holds_no_air_the_other_is_not_split_in_two(healthy, opaque):
    """Atelectasis, a large effusion, a lung taken out: half of the other lung used to count as the opposite side."""
    hu = np.where(healthy.labels == opaque, 40, healthy.hu).astype(np.float32)
    labels = PTXSeg()(hu, healthy.spacing)
    assert dice_score(labels == 3 - opaque, healthy.labels == 3 - opaque) > 0.96
    assert not np.isin(labels, (opaque, 3, 4)).any()


@pytest.mark.parametrize("slices", [1, 2, 3, 5, 8])
def test_a_few_slices_of_a_chest_are_enough_to_find_the_lungs(healthy, slices):
    """Three slices used to end in an IndexError, six in one label for both lungs."""
    part = np.s_[..., 45 : 45 + slices]
    labels = PTXSeg()(healthy.hu[part], healthy.spacing)
    assert labels.shape == (*SHAPE[:2], slices)
    for side in (1, 2):
        assert dice_score(labels == side, healthy.labels[part] == side) > 0.95
    assert not (labels > 2).any()


@pytest.mark.parametrize("side", [1, 2], ids=["right", "left"])
def test_dense_lung_is_of_the_cavity_it_shares_more_surface_with(side):
    """A collapsed lung at its hilum can touch the other cavity: it used to count as right, whichever lung it was."""
    cavity, dense = np.zeros((30, 20, 16), bool), np.zeros((30, 20, 16), bool)
    cavity[:10] = True
    dense[10:18, 2:18, 3:14] = True  # broad against this cavity,
    dense[18:20, 5:7, 3:5] = True  # a tip of it against the other one
    dense[10:12, 0, 0] = True  # another piece, against this one alone
    dense[14:16, 19, 15] = True  # and one that touches nothing
    other = np.zeros_like(cavity)
    other[20:] = True
    beside = cavities._dense_lung_beside({side: cavity, 3 - side: other}, dense)
    alone = np.zeros_like(dense)
    alone[14:16, 19, 15] = True
    np.testing.assert_array_equal(beside[side], dense & ~alone)
    assert not beside[3 - side].any()


def test_free_air_is_found_in_a_single_slice(collapsed):
    labels = PTXSeg()(collapsed.hu[..., 45:46], collapsed.spacing)
    truth = collapsed.labels[..., 45:46]
    assert dice_score(labels == 4, truth == 4) > 0.9
    assert not (labels == 3).any()


def test_of_a_ct_of_the_belly_the_bases_of_both_lungs_are_found(healthy):
    """The smaller one, under 100 mL, used to pass for bowel gas, and the other one for both."""
    part = np.s_[..., 63:]
    assert 15 < np.count_nonzero(healthy.labels[part] == 2) * np.prod(SPACING) / 1000 < 100
    labels = PTXSeg()(healthy.hu[part], healthy.spacing)
    for side in (1, 2):
        assert dice_score(labels == side, healthy.labels[part] == side) > 0.9
    assert not (labels > 2).any()


def test_a_bulla_in_the_lung_is_no_pneumothorax():
    chest = make_chest(bulla=22.0)
    assert not (PTXSeg()(chest.hu, chest.spacing) > 2).any()


def test_air_in_the_chest_wall_is_no_pneumothorax(healthy):
    """Subcutaneous emphysema, which often comes with one: a shell 9 mm thick, 15 mm and more outside the right lung."""
    away = ndimage.distance_transform_edt(healthy.labels == 0, sampling=SPACING)
    streak = (away > 15) & (away < 24) & (healthy.hu > -300) & (np.arange(SHAPE[0]) < 35)[:, None, None]
    streak &= (np.arange(SHAPE[2]) % 20 < 16)[None, None]
    assert np.count_nonzero(streak) * np.prod(SPACING) > 60_000
    labels = PTXSeg()(np.where(streak, -960, healthy.hu).astype(np.float32), SPACING)
    assert not (labels > 2).any()
    assert not labels[streak].any()


@pytest.mark.parametrize(("depth", "least"), [(12.0, 0.85), (40.0, 0.95)])
def test_free_air_survives_the_blur_of_a_reconstruction(depth, least):
    """12 mm at its deepest are 3 sigmas of the blur."""
    chest = make_chest(air="right", depth=depth, blur_mm=4.0, noise=3.0)
    labels = PTXSeg()(chest.hu, chest.spacing)
    assert dice_score(labels == 3, chest.labels == 3) > least
    assert not (labels == 4).any()


def test_a_mirrored_chest_gives_mirrored_labels(collapsed):
    mirrored = PTXSeg()(collapsed.hu[::-1], collapsed.spacing)[::-1]
    swapped = np.array([0, 2, 1, 4, 3], np.uint8)[mirrored]
    labels = PTXSeg()(collapsed.hu, collapsed.spacing)
    assert np.mean(swapped != labels) < 0.002


def test_the_same_ct_gives_the_same_labels(collapsed):
    np.testing.assert_array_equal(PTXSeg()(collapsed.hu, SPACING), PTXSeg()(collapsed.hu.copy(), SPACING))


@pytest.mark.parametrize("hu", [np.full((40, 40, 40), -1000.0), np.full((40, 40, 40), 40.0)], ids=["air", "tissue"])
def test_where_there_is_no_lung_there_is_no_label(hu):
    assert not PTXSeg()(hu, (5.6, 5.6, 5.6)).any()


def test_lidc_lungs_agree_with_totalsegmentator(lidc):
    """At half the resolution in plane, for time's sake; the full study is ``scripts/benchmark.py ptxseg``."""
    chest = nibabel.orientations.axcodes2ornt("LPI")
    images = [nibabel.load(path) for path in lidc]
    hu, labels = (
        np.asarray(
            i.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(i.affine), chest)).dataobj
        )
        for i in images
    )
    hu, labels = hu[::2, ::2], labels[::2, ::2]
    found = PTXSeg()(hu, (1.40625, 1.40625, 2.5))
    assert dice_score(found == 1, np.isin(labels, (12, 13, 14))) > 0.95
    assert dice_score(found == 2, np.isin(labels, (10, 11))) > 0.95
    assert max(_occupancy(found, 1), _occupancy(found, 2)) < 0.01


@pytest.mark.parametrize(
    ("side", "occupancy", "least", "points"), [("right", 0.1, 0.6, 4), ("left", 0.4, 0.8, 10), ("right", 0.7, 0.88, 4)]
)
def test_a_pneumothorax_in_the_lidc_ct_is_found_at_64(lidc_128, side, occupancy, least, points):
    """The size of the reconstructions. 40 % used to be lost there as a whole; its thin ends still are."""
    spacing = (voxel_size(128),) * 3
    ct, truth = insert_pneumothorax(lidc_128.ct, lidc_128.labels, spacing, side, occupancy, seed=1)
    ct, truth = resize_labelled(ct, truth, 64)
    labels = PTXSeg()(ct.astype(np.float32), (voxel_size(64),) * 3)
    lung, air = SIDES[side]
    assert dice_score(labels == air, truth == air) > least
    assert _occupancy(labels, lung) == pytest.approx(_occupancy(truth, lung), abs=points / 100)
    assert not (labels == 7 - air).any(), "nothing on the other side"


@pytest.mark.parametrize("seed", [7, 31])
def test_the_dark_rim_of_a_healthy_lung_is_no_film_of_air(seed):
    """Two of the synthetic cohort: once 87 mL along the wall, 13 mL where the lungs nearly meet in front."""
    case = synthesize_thorax(seed, 128)
    assert not (PTXSeg()(case.ct.astype(np.float32), (voxel_size(128),) * 3) > 2).any()


@pytest.mark.parametrize(("seed", "occupancy"), [(6, 0.16), (32, 0.22)])
def test_stomach_gas_seen_through_coarse_voxels_is_no_free_air(seed, occupancy):
    """Its bubble reads as lung there. Once it was an island of lung, and 90 mL of free air in the left cavity."""
    case = synthesize_thorax(seed, 64, Pneumothorax("right", occupancy))
    labels = PTXSeg()(case.ct.astype(np.float32), (voxel_size(64),) * 3)
    assert not (labels == 4).any()
    assert _occupancy(labels, 1) == pytest.approx(_occupancy(case.segmentation, 1), abs=0.03)


def test_dictionary_transform_keeps_the_scans_own_orientation(collapsed):
    expected = PTXSeg()(collapsed.hu, SPACING)
    affine = np.diag([-SPACING[0], -SPACING[1], -SPACING[2], 1.0])  # LPI
    ct = MetaTensor(torch.from_numpy(collapsed.hu)[None], affine=torch.from_numpy(affine))
    turned = ct.flip(3).permute(0, 3, 1, 2)  # stored as S, L, P
    turned.affine = torch.tensor(
        [
            [0, -SPACING[0], 0, 0],
            [0, 0, -SPACING[1], 0],
            [SPACING[2], 0, 0, -SPACING[2] * (SHAPE[2] - 1)],
            [0, 0, 0, 1],
        ],
        dtype=torch.float64,
    )
    result = PTXSegd("ct")({"ct": turned})["segmentation"]
    assert result.shape == turned.shape
    np.testing.assert_array_equal(result[0].permute(1, 2, 0).flip(2).numpy(), expected)
    np.testing.assert_allclose(result.affine.numpy(), turned.affine.numpy())


@pytest.mark.parametrize(
    ("segmenter", "weights", "message"),
    [("unet", None, "classical, sam, lungmask"), ("sam", None, "local folder"), ("lungmask", "/nowhere.pth", "R231")],
)
def test_unknown_segmenters_and_missing_weights_are_refused(segmenter, weights, message):
    with pytest.raises(InputError, match=message):
        PTXSeg(segmenter, weights)


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 2.5), (0.5, 0.5, 0.5), (5.6, 5.6, 5.6), (2.8, 1.0, 7.0)])
def test_the_working_grid_gives_back_what_it_was_given(spacing):
    """Whole blocks and parts: a smooth volume and a large region survive the way there and back."""
    labels = np.zeros((23, 26, 17), np.uint8)
    labels[4:12, 4:20, 4:12], labels[12:20, 4:20, 4:12] = 1, 2
    grid = WorkingGrid(labels.shape, spacing, 1.3, 2.5)
    working = np.rint(grid.to_working(labels == 2) * 2).astype(np.uint8)
    back = grid.labels_to_scan(np.where(working == 2, 2, 0).astype(np.uint8))
    assert back.shape == labels.shape
    assert dice_score(back == 2, labels == 2) > 0.9
    assert not (back == 1).any()

"""PTX-Seg on CTs of people that it was not made with. What it must find was checked by eye in their pictures."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from xrecon_bundle.anatomy.pneumothorax import insert_pneumothorax
from xrecon_bundle.files import InputError
from xrecon_bundle.frame import AIR_HU
from xrecon_bundle.io.readers import read_ct
from xrecon_bundle.metrics import dice_score
from xrecon_bundle.segmentation import PTXSeg
from xrecon_bundle.segmentation.grid import WorkingGrid
from xrecon_bundle.workflows.segment import in_chest_axes, segment_file


@pytest.fixture(scope="module")
def angiography(open_ct):
    """The chest with contrast agent at 3 mm, LPI: HU, PTX-Seg's labels, spacing."""
    hu, spacing = in_chest_axes(read_ct(open_ct("angiography")))
    grid = WorkingGrid(hu.shape, spacing, 3.0, 3.0)
    hu = grid.to_working(np.maximum(hu, AIR_HU))
    return hu, PTXSeg()(hu, grid.spacing), grid.spacing


@pytest.mark.parametrize(
    ("name", "right_ml", "left_ml"),
    [("lung1", 1763, 1087), ("lung2", 2342, 1553), ("angiography", 2340, 1701)],
)
def test_healthy_pleurae_hold_no_free_air(open_ct, tmp_path, name, right_ml, left_ml):
    """Once, the right main bronchus of lung2 was: in slices of 5 mm it meets the lung below the carina."""
    found = segment_file(open_ct(name), tmp_path / "seg.nii.gz")
    assert found["right"]["lung_ml"] == pytest.approx(right_ml, rel=0.03)
    assert found["left"]["lung_ml"] == pytest.approx(left_ml, rel=0.03)
    assert found["total"]["occupancy"] == 0.0


def test_bowel_gas_in_an_abdomen_is_no_lung(open_ct, tmp_path):
    """Once, colon was a lung with a large pneumothorax."""
    with pytest.raises(InputError, match=r"abdomen.nii.gz: no lung was found; give a CT of the chest"):
        segment_file(open_ct("abdomen"), tmp_path / "seg.nii.gz")
    assert not list(tmp_path.iterdir())


def test_nor_where_the_scan_goes_on_into_the_abdomen(open_ct, angiography):
    """The other person's abdomen is set under the chest; both 3 mm."""
    chest, alone, spacing = angiography
    abdomen = nibabel.as_closest_canonical(nibabel.load(open_ct("abdomen")))
    below = np.flip(np.asarray(abdomen.dataobj, dtype=np.float32), axis=(0, 1, 2))  # RAS to LPI
    width, depth = (max(first, second) for first, second in zip(chest.shape[:2], below.shape[:2], strict=True))

    def widened(volume: np.ndarray, value: float) -> np.ndarray:
        missing = (width - volume.shape[0], depth - volume.shape[1])
        margins = [(gap // 2, gap - gap // 2) for gap in missing]
        return np.pad(volume, [*margins, (0, 0)], constant_values=value)

    both = np.concatenate([widened(chest, -1000.0), widened(below, -1000.0)], axis=2)
    labels = PTXSeg()(both, spacing)
    assert not labels[..., chest.shape[2] + 10 :].any()
    assert dice_score(labels[..., : chest.shape[2]] > 0, widened(alone, 0) > 0) > 0.98


@pytest.mark.parametrize(("side", "lung", "air"), [("right", 1, 3), ("left", 2, 4)])
@pytest.mark.parametrize(("occupancy", "tolerance"), [(0.1, 0.03), (0.7, 0.07)])
def test_occupancy_of_a_pneumothorax_put_in(angiography, side, lung, air, occupancy, tolerance):
    """Once, 70 % read as 88 %: with contrast agent in it, collapsed lung is nearly as dense as the mediastinum."""
    hu, labels, spacing = angiography
    ct, truth = insert_pneumothorax(hu, labels, spacing, side, occupancy, seed=0)
    found = PTXSeg()(ct.astype(np.float32), spacing)
    share = np.count_nonzero(found == air) / np.count_nonzero(np.isin(found, (lung, air)))
    assert share == pytest.approx(occupancy, abs=tolerance)
    assert dice_score(found == air, truth == air) > 0.85
    assert not (found == 7 - air).any(), "nothing on the other side"


def test_a_film_of_air_in_slices_of_5_mm(open_ct):
    """5 % of the left cavity, in-plane voxels doubled. Once lost: the blur across slices was taken for that within."""
    hu, spacing = in_chest_axes(read_ct(open_ct("lung2")))
    hu = np.maximum(hu, AIR_HU).reshape(256, 2, 256, 2, -1).mean(axis=(1, 3))
    spacing = np.array(spacing) * [2, 2, 1]
    ct, truth = insert_pneumothorax(hu, PTXSeg()(hu, spacing), spacing, "left", 0.05, seed=5)
    found = PTXSeg()(ct.astype(np.float32), spacing)
    assert dice_score(found == 4, truth == 4) > 0.75
    assert np.count_nonzero(found == 4) == pytest.approx(np.count_nonzero(truth == 4), rel=0.3)
    assert not (found == 3).any()

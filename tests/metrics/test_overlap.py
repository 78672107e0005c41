"""Overlap and surface measures of label maps, by hand and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from xrecon_bundle.metrics.overlap import region_overlap

SPACING = (2.0, 1.0, 3.0)


def _box(corner, size, label=1, shape=(30, 40, 24)) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(start, start + length) for start, length in zip(corner, size, strict=True))] = label
    return labels


def test_values_of_a_shifted_box_by_hand():
    true, pred = _box((5, 5, 5), (10, 20, 10)), _box((5, 10, 5), (10, 20, 10))
    values = region_overlap(pred, true, SPACING)
    assert values["dice_right_lung"] == pytest.approx(0.75)
    assert values["hd95_right_lung"] == pytest.approx(5.0)  # the far face moved by five voxels of 1 mm


@pytest.mark.parametrize(("axis", "expected"), list(enumerate(SPACING)))
def test_distances_are_in_millimetres_along_each_axis(axis, expected):
    shift = np.eye(3, dtype=int)[axis]
    values = region_overlap(_box(5 + shift, (10, 20, 10)), _box((5, 5, 5), (10, 20, 10)), SPACING)
    assert values["hd95_right_lung"] == pytest.approx(expected)


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 3), (1, 1, 2.5), (0.7, 0.7, np.float32(2.5)), np.array([1, 2, 3])])
def test_any_numbers_are_a_spacing(spacing):
    values = region_overlap(_box((5, 5, 6), (10, 20, 10)), _box((5, 5, 5), (10, 20, 10)), spacing)
    assert values["hd95_right_lung"] == pytest.approx(float(spacing[2]))


def test_surface_distances_equal_distances_between_surface_voxels():
    grid = np.stack(np.meshgrid(*map(np.arange, (30, 40, 24)), indexing="ij"), axis=-1) * SPACING
    true = (np.linalg.norm(grid - (28, 18, 35), axis=-1) < 14).astype(np.uint8) * 4
    pred = (np.linalg.norm(grid - (31, 20, 33), axis=-1) < 12).astype(np.uint8) * 4
    values = region_overlap(pred, true, SPACING)

    def surface(mask):
        return mask & ~ndimage.binary_erosion(mask)

    a, b = surface(pred == 4), surface(true == 4)
    to_b = ndimage.distance_transform_edt(~b, sampling=SPACING)[a]
    to_a = ndimage.distance_transform_edt(~a, sampling=SPACING)[b]
    assert values["asd_left_pneumothorax"] == pytest.approx(np.concatenate([to_a, to_b]).mean(), rel=1e-4)
    assert values["hd95_left_pneumothorax"] == pytest.approx(
        max(np.percentile(to_a, 95), np.percentile(to_b, 95)), rel=1e-4
    )


def test_a_region_in_neither_map_is_left_out_and_one_in_a_single_map_is_the_worst():
    true, pred = _box((5, 5, 5), (10, 20, 10), label=3), _box((5, 5, 5), (10, 20, 10), label=4)
    values = region_overlap(pred, true, SPACING)
    diagonal = np.sqrt(60**2 + 40**2 + 72**2)
    assert np.isnan([values[f"{name}_left_lung"] for name in ("dice", "hd95", "asd")]).all()
    for region in ("right_pneumothorax", "left_pneumothorax"):
        assert values[f"dice_{region}"] == 0
        assert values[f"hd95_{region}"] == values[f"asd_{region}"] == pytest.approx(diagonal)

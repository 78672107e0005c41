"""Volumes, occupancy and class by hand."""

from __future__ import annotations

import numpy as np
import pytest

from xrecon_bundle.segmentation import measure_pneumothorax
from xrecon_bundle.segmentation.labels import pleural_cavity_labels


def _case(right_lung=0, left_lung=0, right_air=0, left_air=0):
    labels = np.repeat(np.arange(5, dtype=np.uint8), [10, right_lung, left_lung, right_air, left_air])
    hu = np.select([labels == 1, labels == 2, labels > 2], [-850.0, -700.0, -1000.0], 40.0)
    return labels.reshape(1, 1, -1), hu.reshape(1, 1, -1)


def test_values_by_hand():
    labels, hu = _case(right_lung=600, left_lung=300, right_air=200, left_air=0)
    values = measure_pneumothorax(labels, hu, (10.0, 10.0, 10.0))  # voxels of 1 mL
    assert values["right"] == {
        "lung_ml": 600, "pneumothorax_ml": 200, "occupancy": 0.25, "mean_lung_hu": -850, "size": "large",
    }  # fmt: skip
    assert values["left"]["occupancy"] == 0
    assert values["total"]["occupancy"] == pytest.approx(200 / 1100)
    assert values["total"]["mean_lung_hu"] == pytest.approx((-850 * 600 - 700 * 300) / 900)
    assert values["total"]["size"] == "large", "the class in all is that of the worse side"


@pytest.mark.parametrize(("air", "size"), [(0, "none"), (9, "none"), (10, "small"), (199, "small"), (200, "large")])
def test_small_ends_at_twenty_percent(air, size):
    labels, hu = _case(left_lung=1000 - air, left_air=air)
    assert measure_pneumothorax(labels, hu, (1, 1, 1))["left"]["size"] == size


def test_a_side_without_voxels_is_unknown():
    labels, hu = _case(left_lung=10)
    right = measure_pneumothorax(labels, hu, (1, 1, 1))["right"]
    assert np.isnan(right["occupancy"])
    assert np.isnan(right["mean_lung_hu"])
    assert right["size"] == "none"


def test_lung_and_free_air_of_a_side_are_its_pleural_cavity():
    cavities = pleural_cavity_labels(np.array([0, 1, 2, 3, 4, 9]))
    assert cavities.dtype == np.uint8
    assert cavities.tolist() == [0, 1, 2, 1, 2, 0]

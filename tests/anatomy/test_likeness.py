"""A flow from one chest to another: found in phantoms whose difference is known."""

from __future__ import annotations

import numpy as np
import pytest

from xrecon_bundle.anatomy.likeness import velocity_between
from xrecon_bundle.anatomy.pseudo_patients import jacobian, make_pseudo_patient, random_deformation
from xrecon_bundle.metrics import dice_score

SIZE = 26
SPACING = (8.0,) * 3


def chest(radius: float = 1.0, dome_mm: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two lungs of unlike size in an elliptic body; ``radius`` scales all, the right dome is higher by ``dome_mm``."""
    x, y, z = (axis * 8.0 - 8.0 * (SIZE - 1) / 2 for axis in np.ogrid[:SIZE, :SIZE, :SIZE])
    x, y, z = x / (0.6 * radius), y / (0.6 * radius), z / 0.6
    body = (x / 140) ** 2 + (y / 95) ** 2 + 0 * z < 1
    right = ((x + 60) / 45) ** 2 + (y / 65) ** 2 < 1
    left = ((x - 65) / 38) ** 2 + ((y - 5) / 60) ** 2 < 1
    labels = np.where(right & (z > -110) & (z < 100 - dome_mm), 1, 0) + np.where(left & (z > -110) & (z < 95), 2, 0)
    hu = np.where(labels > 0, -850.0, np.where(body, 40.0, -1024.0))
    return hu, labels.astype(np.uint8)


@pytest.mark.parametrize("other", [{"radius": 1.15}, {"radius": 0.9, "dome_mm": 40.0}])
def test_the_whole_way_ends_at_the_other_chest_and_half_of_it_between(other):
    (hu, labels), (other_hu, other_labels) = chest(), chest(**other)
    velocity = velocity_between(hu, labels, other_hu, other_labels, SPACING)
    moved = [
        make_pseudo_patient(hu, labels, SPACING, 0, spread=0.0, towards=share * velocity)[1]
        for share in (0.0, 0.5, 1.0)
    ]
    near = [[dice_score(part == side, other_labels == side) for side in (1, 2)] for part in moved]
    assert np.mean(near[0]) < np.mean(near[1]) < np.mean(near[2])
    # The usual breath and pose of seed 0 remain; what they alone do to the other chest is the measure.
    usual = make_pseudo_patient(other_hu, other_labels, SPACING, 0, spread=0.0)[1]
    assert min(dice_score(moved[2] == side, usual == side) for side in (1, 2)) > 0.9


def test_to_oneself_nothing_moves_and_nothing_folds():
    hu, labels = chest()
    assert np.abs(velocity_between(hu, labels, hu, labels, SPACING)).max() < 1.0
    other = chest(radius=1.15, dome_mm=50.0)
    velocity = velocity_between(hu, labels, *other, SPACING)
    assert jacobian(random_deformation(labels, SPACING, 3, towards=velocity)).min() > 0


def test_chests_of_unlike_shape_are_refused():
    hu, labels = chest()
    with pytest.raises(ValueError, match="one shape"):
        velocity_between(hu, labels, hu[1:], labels[1:], SPACING)

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from xrecon_bundle.projection.pose import rotation_matrix

deterministic = settings(deadline=None, max_examples=50, derandomize=True)
angle = st.floats(-720, 720)
angles = st.tuples(angle, angle, angle).map(lambda degrees: torch.tensor(degrees, dtype=torch.float64))


@pytest.mark.parametrize(
    ("degrees", "moved", "to"),
    [
        ((90, 0, 0), (0, 1, 0), (0, 0, 1)),
        ((0, 90, 0), (0, 0, 1), (1, 0, 0)),
        ((0, 0, 90), (1, 0, 0), (0, 1, 0)),
        ((90, 0, 90), (1, 0, 0), (0, 0, 1)),  # about z first: x to y; then about x: y to z
    ],
)
def test_what_a_positive_angle_carries_where_and_in_which_order(degrees, moved, to):
    moved = rotation_matrix(torch.tensor(degrees, dtype=torch.float64)) @ torch.tensor(moved, dtype=torch.float64)
    torch.testing.assert_close(moved, torch.tensor(to, dtype=torch.float64))


@deterministic
@given(angles)
def test_rotation_is_scipys_intrinsic_xyz_and_orthonormal(degrees):
    rotation = rotation_matrix(degrees)
    expected = Rotation.from_euler("XYZ", degrees.numpy(), degrees=True).as_matrix()
    torch.testing.assert_close(rotation, torch.from_numpy(expected))
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(torch.det(rotation), torch.ones((), dtype=torch.float64))


def test_batches_go_through_and_gradients_are_those_of_finite_differences():
    batch = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 30
    one_by_one = torch.stack([torch.stack([rotation_matrix(degrees) for degrees in row]) for row in batch])
    torch.testing.assert_close(rotation_matrix(batch), one_by_one)
    assert torch.autograd.gradcheck(rotation_matrix, batch[0].requires_grad_())

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from xrecon_bundle.projection.pose import compose, invert, matrix_pose, pose_matrix, rotation_angles, rotation_matrix

deterministic = settings(deadline=None, max_examples=50, derandomize=True)
angle, shift = st.floats(-720, 720), st.floats(-500, 500)
poses = st.tuples(angle, angle, angle, shift, shift, shift).map(lambda p: torch.tensor(p, dtype=torch.float64))
IDENTITY = torch.eye(4, dtype=torch.float64)


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
@given(poses)
def test_rotation_is_scipys_intrinsic_xyz_and_orthonormal(pose):
    rotation = rotation_matrix(pose[:3])
    expected = Rotation.from_euler("XYZ", pose[:3].numpy(), degrees=True).as_matrix()
    torch.testing.assert_close(rotation, torch.from_numpy(expected))
    torch.testing.assert_close(rotation @ rotation.mT, IDENTITY[:3, :3])
    torch.testing.assert_close(torch.det(rotation), torch.ones((), dtype=torch.float64))


@deterministic
@given(poses, poses)
def test_composition_is_the_product_of_matrices(after, before):
    torch.testing.assert_close(pose_matrix(compose(after, before)), pose_matrix(after) @ pose_matrix(before))


@deterministic
@given(poses)
def test_inverse_undoes_on_both_sides(pose):
    for both in (compose(pose, invert(pose)), compose(invert(pose), pose)):
        torch.testing.assert_close(pose_matrix(both), IDENTITY, atol=1e-9, rtol=0)


@deterministic
@given(st.tuples(st.floats(-179, 179), st.floats(-89, 89), st.floats(-179, 179)))
def test_angles_come_back_from_the_matrix(degrees):
    degrees = torch.tensor(degrees, dtype=torch.float64)
    torch.testing.assert_close(rotation_angles(rotation_matrix(degrees)), degrees)


@pytest.mark.parametrize("ry", [90.0, -90.0])
def test_a_gimbal_locked_pose_still_gives_its_matrix_back(ry):
    pose = torch.tensor([30.0, ry, 50.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(pose_matrix(matrix_pose(pose_matrix(pose))), pose_matrix(pose))


def test_batches_go_through():
    batch = torch.randn(4, 2, 6, generator=torch.Generator().manual_seed(0)) * 30
    one_by_one = torch.stack([torch.stack([compose(p, invert(p * 0.5)) for p in row]) for row in batch])
    torch.testing.assert_close(compose(batch, invert(batch * 0.5)), one_by_one)

"""Poses: rigid motions of the imaging system (source and detector together) as six numbers.

A pose is ``(rx, ry, rz, tx, ty, tz)``: angles in **degrees**, translations in **mm**, in the axes of the volume's frame
(chest frame: x to the left, y to the back, z to the feet; origin at the volume's centre). It moves a point of the
imaging system as column vector::

    p' = R p + t,    R = Rx(rx) Ry(ry) Rz(rz)

so the system is turned about the volume's centre first, about z, then y, then x, all three axes fixed, and then
shifted; the patient stays where it is. ``Rx`` by +90 degrees carries +y to +z, ``Ry`` +z to +x, ``Rz`` +x to +y.
Because the LPI axes are left-handed, a positive angle is clockwise for an observer towards whom the axis points.

Every function takes leading batch dimensions, keeps dtype and device, and is differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotation_matrix(degrees: Tensor) -> Tensor:
    """Rotation matrices ``Rx Ry Rz``, ``(..., 3, 3)``, of angles ``(rx, ry, rz)`` in degrees, ``(..., 3)``."""
    cos, sin = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    (cx, cy, cz), (sx, sy, sz) = cos.unbind(-1), sin.unbind(-1)
    rows = (
        torch.stack([cy * cz, -cy * sz, sy], -1),
        torch.stack([cx * sz + sx * sy * cz, cx * cz - sx * sy * sz, -sx * cy], -1),
        torch.stack([sx * sz - cx * sy * cz, sx * cz + cx * sy * sz, cx * cy], -1),
    )
    return torch.stack(rows, -2)


def rotation_angles(rotation: Tensor) -> Tensor:
    """Angles in degrees ``(..., 3)`` of rotation matrices ``(..., 3, 3)``; inverse of :func:`rotation_matrix`.

    ``ry`` is in [-90, 90]. Where it is +-90, only the sum or the difference of ``rx`` and ``rz`` is determined and
    ``rz`` is one choice out of many: the matrix is still reproduced, gradients are not defined there.
    """
    cos_y = torch.hypot(rotation[..., 1, 2], rotation[..., 2, 2])
    ry = torch.atan2(rotation[..., 0, 2], cos_y)
    regular = cos_y > 1e-6
    rx = torch.where(
        regular,
        torch.atan2(-rotation[..., 1, 2], rotation[..., 2, 2]),
        torch.atan2(rotation[..., 2, 1], rotation[..., 1, 1]),
    )
    rz = torch.where(regular, torch.atan2(-rotation[..., 0, 1], rotation[..., 0, 0]), torch.zeros_like(rx))
    return torch.rad2deg(torch.stack([rx, ry, rz], -1))


def pose_matrix(poses: Tensor) -> Tensor:
    """Homogeneous matrices ``(..., 4, 4)`` of poses ``(..., 6)``."""
    rigid = torch.cat([rotation_matrix(poses[..., :3]), poses[..., 3:, None]], -1)
    last = poses.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*poses.shape[:-1], 1, 4)
    return torch.cat([rigid, last], -2)


def matrix_pose(matrix: Tensor) -> Tensor:
    """Poses ``(..., 6)`` of rigid matrices ``(..., 4, 4)``, angles as :func:`rotation_angles` gives them."""
    return torch.cat([rotation_angles(matrix[..., :3, :3]), matrix[..., :3, 3]], -1)


def compose(after: Tensor, before: Tensor) -> Tensor:
    """The pose ``(..., 6)`` that does ``before`` and then ``after``."""
    return matrix_pose(pose_matrix(after) @ pose_matrix(before))


def invert(poses: Tensor) -> Tensor:
    """The poses ``(..., 6)`` that undo ``poses``."""
    rotation = rotation_matrix(poses[..., :3]).mT
    translation = -(rotation @ poses[..., 3:, None])[..., 0]
    return torch.cat([rotation_angles(rotation), translation], -1)

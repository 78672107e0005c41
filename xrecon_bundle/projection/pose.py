"""Poses: rigid motions of the imaging system (source and detector together) as six numbers.

A pose is ``(rx, ry, rz, tx, ty, tz)``: angles in **degrees**, translations in **mm**, in the axes of the volume's frame
(chest frame: x to the left, y to the back, z to the feet; origin at the volume's centre). It moves a point of the
imaging system as column vector::

    p' = R p + t,    R = Rx(rx) Ry(ry) Rz(rz)

so the system is turned about the volume's centre first, about z, then y, then x, all three axes fixed, and then
shifted; the patient stays where it is. ``Rx`` by +90 degrees carries +y to +z, ``Ry`` +z to +x, ``Rz`` +x to +y.
Because the LPI axes are left-handed, a positive angle is clockwise for an observer towards whom the axis points.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotation_matrix(degrees: Tensor) -> Tensor:
    """Rotation matrices ``Rx Ry Rz``, ``(..., 3, 3)``, of angles ``(rx, ry, rz)`` in degrees, ``(..., 3)``.

    Differentiable, which SciPy's ``Rotation`` is not; dtype and device are kept.
    """
    cos, sin = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    (cx, cy, cz), (sx, sy, sz) = cos.unbind(-1), sin.unbind(-1)
    rows = (
        torch.stack([cy * cz, -cy * sz, sy], -1),
        torch.stack([cx * sz + sx * sy * cz, cx * cz - sx * sy * sz, -sx * cy], -1),
        torch.stack([sx * sz - cx * sy * cz, sx * cz + cx * sy * sz, cx * cy], -1),
    )
    return torch.stack(rows, -2)

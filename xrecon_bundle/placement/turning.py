"""The eight ways in which a picture can lie: turned by quarters, mirrored or not.

A way is a number from 0 to 7: ``2 * turns + mirrored``. The picture ``(U, V)`` that hangs as it should was first
mirrored (u reversed) or not, and then turned clockwise by so many quarters, as a viewer sees it.
"""

from __future__ import annotations

import numpy as np

WAYS = 8


def lay(upright: np.ndarray, way: int) -> np.ndarray:
    """The picture ``(..., U, V)`` as it lies in that ``way``; a view, no copy."""
    turns, mirrored = divmod(way, 2)
    picture = upright[..., ::-1, :] if mirrored else upright
    # NumPy turns the first axis (u, to the right) towards the second (v, down): clockwise for a viewer.
    return np.rot90(picture, turns, (-2, -1))


def set_upright(picture: np.ndarray, way: int) -> np.ndarray:
    """The inverse of :func:`lay`."""
    turns, mirrored = divmod(way, 2)
    picture = np.rot90(picture, -turns, (-2, -1))
    return picture[..., ::-1, :] if mirrored else picture


def upright_matrix(way: int, shape: tuple[int, int]) -> np.ndarray:
    """``(3, 3)``, from (u, v, 1) of a picture of ``shape`` that lies in that ``way`` to (u, v, 1) of it set upright."""
    places = np.stack(np.meshgrid(*map(np.arange, (2, 2)), indexing="ij"))
    corners = np.array(shape)[:, None, None] - 1
    moved = set_upright(places * corners, way)
    source = np.array([moved[:, 0, 0], moved[:, 1, 0], moved[:, 0, 1]]).astype(float)
    size = np.array(shape)[::-1] - 1 if (way // 2) % 2 else np.array(shape) - 1
    target = np.array([[0, 0], [size[0], 0], [0, size[1]]], dtype=float)
    ones = np.ones((3, 1))
    return np.linalg.solve(np.hstack([source, ones]), np.hstack([target, ones])).T


def to_upright(way: int) -> tuple[bool, tuple[int, ...]]:
    """What sets a picture that lies in that ``way`` upright: exchange u and v or not, then reverse these axes."""
    linear = _linear(way)
    return bool(linear[0, 0] == 0), tuple(axis for axis in range(2) if linear[axis].sum() < 0)


def way_of(matrix: np.ndarray) -> int:
    """The way in which a picture lay that the linear part of ``matrix`` ``(3, 3)`` has set upright."""
    return next(way for way in range(WAYS) if np.allclose(np.sign(matrix[:2, :2].round(9)), _linear(way)))


def together(first: int, second: int) -> int:
    """The way in which a picture lies that is laid in ``first`` and then, as it is, in ``second``."""
    return _TOGETHER[first][second]


def _linear(way: int) -> np.ndarray:
    return upright_matrix(way, (2, 2))[:2, :2]


_MARKED = np.array([[0, 1], [2, 3]])
_TOGETHER = [
    [
        next(w for w in range(WAYS) if np.array_equal(lay(_MARKED, w), lay(lay(_MARKED, first), second)))
        for second in range(WAYS)
    ]
    for first in range(WAYS)
]

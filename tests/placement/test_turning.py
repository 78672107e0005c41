"""The eight ways in which a picture can lie, and the way back, on a picture without any symmetry."""

from __future__ import annotations

import numpy as np
import pytest

from xrecon_bundle.placement.turning import WAYS, lay, set_upright, to_upright, together, upright_matrix, way_of

PICTURE = np.arange(15.0).reshape(5, 3)  # (u, v)


def test_the_ways_are_quarters_clockwise_after_a_mirror() -> None:
    assert lay(PICTURE, 0)[4, 0] == PICTURE[4, 0]  # top right stays
    assert lay(PICTURE, 1)[0, 0] == PICTURE[4, 0]  # mirrored: to the top left
    assert lay(PICTURE, 2)[2, 4] == PICTURE[4, 0]  # a quarter clockwise: to the bottom right
    assert lay(PICTURE, 4)[0, 2] == PICTURE[4, 0]  # upside down: to the bottom left


@pytest.mark.parametrize("way", range(WAYS))
def test_every_way_has_its_way_back(way: int) -> None:
    laid = lay(PICTURE, way)
    np.testing.assert_array_equal(set_upright(laid, way), PICTURE)
    matrix = upright_matrix(way, laid.shape)
    for place in np.ndindex(laid.shape):
        u, v, _ = np.rint(matrix @ [*place, 1]).astype(int)
        assert laid[place] == PICTURE[u, v]
    assert way_of(matrix) == way
    exchanged, reversed_axes = to_upright(way)
    turned = np.flip(laid.T if exchanged else laid, reversed_axes)
    np.testing.assert_array_equal(turned, PICTURE)
    for second in range(WAYS):
        np.testing.assert_array_equal(lay(PICTURE, together(way, second)), lay(laid, second))

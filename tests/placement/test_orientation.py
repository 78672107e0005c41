"""What is decided, and doubted, from the finder's probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from xrecon_bundle.placement.finder import Found
from xrecon_bundle.placement.orientation import SIDE_UNCLEAR, confidence_upright, judge_orientation, mirrored_share


def seen(view: int, shares: dict[int, float]) -> Found:
    """A picture seen as that view, lying in these ways."""
    ways = np.zeros((2, 8))
    for way, share in shares.items():
        ways[view, way] = share
    return Found(ways, np.zeros((2, 2)), np.ones((2, 2)))


@pytest.mark.parametrize(
    ("shares", "way", "expected"),
    [
        ({0: 0.9, 1: 0.1}, 0, 0.1),
        ({0: 0.5, 1: 0.5}, 0, 0.5),
        ({0: 0.02, 1: 0.98}, 1, 0.02),
        ({4: 0.6, 5: 0.2, 1: 0.2}, 4, 0.25),  # upside down: the mirrored one is upside down too
        ({0: 1.0}, 0, 0.0),
    ],
)
def test_the_side_is_doubted_by_what_is_seen_alone(shares, way, expected):
    assert mirrored_share(seen(0, shares), way) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(("mirrored", "put_right", "unclear"), [(0.05, False, False), (0.5, False, True)])
def test_a_mirrored_pa_that_habit_decides_is_unclear(mirrored, put_right, unclear):
    found = seen(0, {0: 1 - mirrored, 1: mirrored})
    lying = judge_orientation((found, seen(1, {0: 1.0})), (False, False), may_exchange=True)
    assert (lying.ways[0] == 1) == put_right
    assert lying.confidence[0] > 0.9
    assert (mirrored_share(found, lying.ways[0]) > SIDE_UNCLEAR) == unclear


@pytest.mark.parametrize(
    ("pair", "low"),
    [
        ((seen(0, {0: 1.0}), seen(1, {0: 1.0})), (False, False)),
        ((seen(0, {4: 1.0}), seen(1, {0: 1.0})), (True, False)),
        ((seen(0, {0: 1.0}), seen(1, {1: 1.0})), (False, True)),
        ((seen(1, {0: 1.0}), seen(0, {0: 1.0})), (True, True)),
        ((seen(0, {0: 0.1}), seen(1, {0: 1.0})), (True, False)),  # no chest
    ],
    ids=["upright", "PA upside down", "lateral mirrored", "exchanged", "no chest"],
)
def test_confidence_that_a_pair_is_upright(pair, low):
    assert tuple(value < 0.9 for value in confidence_upright(pair)) == low

"""How two pictures lie, and which is which: what the finder sees of both, weighed with how films usually come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .finder import Found
from .turning import WAYS

# How often films come so, relative to upright. Assumptions: an unlikely turn has to be seen clearly.
TURNED, MIRRORED, EXCHANGED = 0.02, (0.02, 0.5), 0.02
LEAST_SEEN = 1e-3  # the finder is never surer than this
CERTAIN = 0.9  # a smaller confidence is a warning
SIDE_UNCLEAR = 0.1  # a PA in which the heart looks more like a mirrored one's is a warning
CHEST = 0.5  # probability of a chest in any view and way


class Lying(NamedTuple):
    """What was decided.

    Attributes:
        exchanged: the first picture is the lateral.
        ways: in which each picture lies, see :mod:`.turning`.
        confidence: that each picture is that view, lies in that way and shows a chest, 0 to 1.
    """

    exchanged: bool
    ways: tuple[int, int]
    confidence: tuple[float, float]


def judge_orientation(found: Sequence[Found | None], stated: Sequence[bool], may_exchange: bool) -> Lying:
    """The likeliest way in which a PA and a lateral picture lie.

    Args:
        found: what the finder sees in the picture given as PA and in the one given as lateral; None: it was not asked.
        stated: pictures whose way is not in question: their tags say it, or the user.
        may_exchange: whether they may have been given in the wrong order.
    """
    joint = _joint(found, stated, may_exchange)
    order, first, second = (int(index) for index in np.unravel_index(joint.argmax(), joint.shape))
    return Lying(bool(order), (first, second), _confidence(joint, found, order, first, second))


def confidence_upright(found: Sequence[Found]) -> tuple[float, float]:
    """That the first picture is an upright PA and the second an upright lateral, and that they show a chest."""
    return _confidence(_joint(found, (False, False), may_exchange=True), found, 0, 0, 0)


def mirrored_share(found: Found, way: int) -> float:
    """How much of what the finder sees of a PA that lies in ``way`` speaks for the mirrored one, 0 to 1.

    Unlike the confidence, it does not count that PA views are seldom mirrored: most of those that are would pass.
    """
    kept, mirrored = found.ways[0, way] + LEAST_SEEN, found.ways[0, way ^ 1] + LEAST_SEEN
    return float(mirrored / (kept + mirrored))


def shows_chest(found: Found | None) -> bool:
    """Whether the finder sees a chest."""
    return found is not None and bool(found.ways.sum() > CHEST)


def _joint(found: Sequence[Found | None], stated: Sequence[bool], may_exchange: bool) -> np.ndarray:
    """``(orders, 8, 8)`` probability that the pictures are exchanged or not, and lie in these ways."""
    likely = [[_likely(found[file], view, stated[file]) for view in range(2)] for file in range(2)]
    orders = [likely[0][0][:, None] * likely[1][1]]
    if may_exchange:
        orders.append(EXCHANGED * likely[0][1][:, None] * likely[1][0])
    return np.stack(orders) / np.sum(orders)


def _confidence(
    joint: np.ndarray, found: Sequence[Found | None], order: int, first: int, second: int
) -> tuple[float, float]:
    chest = [1.0 if seen is None else float(seen.ways.sum()) for seen in found]
    return float(joint[order, first].sum() * chest[0]), float(joint[order, :, second].sum() * chest[1])


def _likely(found: Found | None, view: int, stated: bool) -> np.ndarray:
    """``(8,)`` how likely each way is, up to a factor; what is no chest is left as it lies."""
    turns, mirrored = np.divmod(np.arange(WAYS), 2)
    usual = np.where(turns > 0, TURNED, 1.0) * np.where(mirrored, MIRRORED[view], 1.0)
    if stated or not shows_chest(found):
        usual = (np.arange(WAYS) == 0).astype(float)
    return usual if found is None else (found.ways[view] + LEAST_SEEN) * usual

"""How pairs are varied while the network of lung and free air learns: image and maps stay together, sides change."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import thickness_weights as training

PIXELS = 64
RIGHT, LEFT, RIGHT_AIR, LEFT_AIR = range(4)


def pair(count: int = 40) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """PA with a bright field on the right and a smaller one, with air above it, on the left; a film that ends below."""
    maps = torch.zeros(count, 4, PIXELS // 2, PIXELS // 2)
    maps[:, RIGHT, 4:13, 8:24] = 1
    maps[:, LEFT, 20:26, 8:16] = 0.5
    maps[:, LEFT_AIR, 20:26, 16:24] = 0.3
    lateral = torch.zeros(count, 2, PIXELS // 2, PIXELS // 2)
    lateral[:, 0, 10:20, 8:24] = 1
    seen = torch.stack([maps.sum(1), lateral.sum(1)], dim=1)
    image = F.interpolate(seen, size=(PIXELS, PIXELS))
    image[..., :6] = training.UNKNOWN
    counts = torch.ones(count, 2, PIXELS // 2, PIXELS // 2)
    counts[..., :3] = 0
    return image, (maps, lateral), counts


def varied() -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    torch.manual_seed(0)
    return training.vary(*pair())


def test_the_maps_lie_where_the_image_shows_them() -> None:
    image, (pa, lateral), counts = varied()
    for view, maps in enumerate((pa, lateral)):
        shown = F.avg_pool2d(image[:, [view]].clamp(min=0), 2)[:, 0]
        difference = (shown - maps.sum(1)).abs() * counts[:, view]
        assert difference.mean() < 0.01  # of fields of 0.3 to 1; moved by a pixel 0.02
    assert ((image == training.UNKNOWN).float().mean((2, 3)) > 0.05).all()  # the film still ends


def test_each_pair_is_bent_in_its_own_way_and_not_torn() -> None:
    (_, (_, lateral), _), (_, (_, side), _) = varied(), pair()
    assert len({tuple(one.flatten().tolist()) for one in lateral}) == len(lateral)
    moved = (lateral - side).abs().mean((1, 2, 3))
    assert moved.max() > 0.01
    assert (lateral.sum((1, 2, 3)) / side.sum((1, 2, 3)) - 1).abs().max() < 0.5


def test_a_mirrored_pa_changes_sides_and_the_lateral_stays() -> None:
    _, (pa, lateral), _ = varied()
    right, left, right_air, left_air = pa.sum((2, 3)).unbind(1)
    mirrored = left > right
    assert 0.1 < mirrored.float().mean() < 0.5
    assert (left_air[~mirrored] > 0).all()
    assert (right_air[~mirrored] == 0).all()
    assert (right_air[mirrored] > 0).all()
    assert (left_air[mirrored] == 0).all()
    column = (pa[:, LEFT].sum(2) * torch.arange(PIXELS // 2)).sum(1) / left
    assert (column > PIXELS / 4).all()  # the left lung stays on its side of the picture
    front = (lateral[:, 0].sum(2) * torch.arange(PIXELS // 2)).sum(1) / lateral[:, 0].sum((1, 2))
    assert (front - 14.5).abs().max() < 3


@pytest.mark.parametrize("what", ["lung", "bone"])
def test_only_what_may_be_varied_is(what: str) -> None:
    """The maps of bones in both views say together where a bone is."""
    assert training.KINDS[what].varied is (what == "lung")

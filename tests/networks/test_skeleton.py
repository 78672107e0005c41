"""Bones from maps of their thickness: balls around two lungs, no two alike, and the volume that has the same maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xrecon_bundle import frame
from xrecon_bundle.networks.skeleton import bone_volume
from xrecon_bundle.networks.thickness import BONE_UNIT_MM
from xrecon_bundle.projection.film import simulate_dense

N = 48
# x, y, z: behind on the right, in front on the left, the spine's place, low on the left in the back
BALLS = ((9, 26, 16), (36, 14, 26), (24, 34, 30), (39, 26, 34))
LUNGS = ((16, 22, 24), (32, 22, 24))


def ball(centre: tuple[float, float, float], radius: tuple[float, float, float]) -> torch.Tensor:
    x, y, z = np.ogrid[:N, :N, :N]
    return torch.from_numpy(
        sum(((axis - at) / reach) ** 2 for axis, at, reach in zip((x, y, z), centre, radius, strict=True)) < 1
    )


@pytest.fixture(scope="module")
def chest() -> dict[str, torch.Tensor]:
    """HU, lungs and body; bone of 650 HU, 500 beyond where it begins to count."""
    body, lungs = ball((24, 24, 24), (21, 15, 40)), ball(LUNGS[0], (7, 8, 16)) | ball(LUNGS[1], (7, 8, 16))
    hu = torch.where(body, 40.0, -1000.0)
    hu[lungs] = -850
    for centre in BALLS:
        hu[ball(centre, (2.5, 2.5, 2.5))] = 650
    return {"hu": hu, "lungs": lungs.float()[None, None], "volume": frame.hu_to_unit(hu.clamp(max=40))[None, None]}


def maps_of(hu: torch.Tensor) -> list[torch.Tensor]:
    found = torch.from_numpy(simulate_dense(hu, (24.0, 22.0), N)) / BONE_UNIT_MM
    return [found[None, :2], found[None, 2:]]


def test_each_bone_is_found_where_it_is(chest):
    bones = bone_volume(maps_of(chest["hu"]), chest["lungs"], chest["volume"])[0, 0]
    assert bones.min() >= 0
    true = (chest["hu"] > 150).float() * 500 / frame.HU_SPAN
    within = torch.zeros(N, N, N, dtype=torch.bool)
    for centre in BALLS:
        here = ball(centre, (4.5, 4.5, 4.5))
        within |= here
        weight = bones * here
        place = [(weight.sum(other) * torch.arange(N)).sum() / weight.sum() for other in ((1, 2), (0, 2), (0, 1))]
        assert np.abs(np.array(place) - centre).max() < 1.5
        assert weight.sum() == pytest.approx(float((true * here).sum()), rel=0.4)
    assert bones[within].sum() > 0.7 * bones.sum()  # the rest lies where rays of two bones cross


def test_it_has_the_projections_that_it_was_made_of(chest):
    wanted = maps_of(chest["hu"])
    bones = bone_volume(wanted, chest["lungs"], chest["volume"])[0, 0]
    found = maps_of(150 + bones * frame.HU_SPAN)
    for of_view, again in zip(wanted, found, strict=True):
        error = (again - of_view).abs().sum() / of_view.sum()
        assert error < 0.25


def test_without_bones_in_the_maps_there_are_hardly_any(chest):
    none = [torch.zeros(1, parts, N, N) for parts in (2, 3)]
    assert bone_volume(none, chest["lungs"], chest["volume"]).max() < 0.002


@pytest.mark.parametrize("missing", [0, 1])
def test_what_one_view_alone_shows_is_faint(chest, missing):
    """Half of it, as the views contradict each other, and somewhere along the ray."""
    maps = maps_of(chest["hu"])
    both = bone_volume([of_view.clone() for of_view in maps], chest["lungs"], chest["volume"])
    maps[missing].zero_()
    assert bone_volume(maps, chest["lungs"], chest["volume"]).max() < 0.6 * both.max()


def test_nothing_is_put_beside_the_body(chest):
    bones = bone_volume(maps_of(chest["hu"]), chest["lungs"], chest["volume"])
    assert (bones[(chest["volume"] < 0.2) & (chest["lungs"] == 0)] == 0).all()


def test_without_lungs_it_is_finite(chest):
    none = torch.zeros_like(chest["lungs"])
    assert bone_volume(maps_of(chest["hu"]), none, chest["volume"]).isfinite().all()

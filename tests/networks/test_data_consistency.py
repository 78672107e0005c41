"""What a volume lacks to explain its radiographs: the projector's own numbers, and a change where the truth has one."""

from __future__ import annotations

import pytest
import torch

from xrecon_bundle import frame
from xrecon_bundle.networks.data_consistency import Rays, match_greys, missing, reproject
from xrecon_bundle.projection import ConeBeamGeometry, Projector

GEOMETRIES = (ConeBeamGeometry.chest_pa, ConeBeamGeometry.chest_lateral)
SIZE = 32


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def chest() -> torch.Tensor:
    """Soft tissue with two unlike lungs and a spine, in network units."""
    volume = torch.zeros(1, 1, SIZE, SIZE, SIZE)
    volume[:, :, 4:28, 8:25, 3:30] = 0.41
    volume[:, :, 7:14, 11:21, 6:22] = 0.07
    volume[:, :, 18:25, 11:21, 6:18] = 0.07
    volume[:, :, 14:18, 20:24, 3:30] = 0.6
    return volume


def known(pixels: int = SIZE) -> torch.Tensor:
    return torch.ones(1, 2, pixels, pixels)


@pytest.mark.parametrize(("size", "pixels"), [(16, 16), (24, 40), (40, 24)])
def test_it_projects_as_the_projector_does(size: int, pixels: int) -> None:
    volume = random(2, 1, size, size, size)
    wanted = [Projector(geometry(pixels))(volume)[:, 0, 0] / frame.EDGE_MM for geometry in GEOMETRIES]
    torch.testing.assert_close(reproject(volume, pixels), torch.stack(wanted, 1), rtol=1e-5, atol=1e-6)


def test_back_projection_is_the_transpose() -> None:
    volume, images = random(2, 1, 20, 20, 20), random(2, 2, 28, 28)
    rays = Rays(20, 28, volume)
    torch.testing.assert_close((rays.project(volume) * images).sum(), (rays.back_project(images) * volume).sum())


@pytest.mark.parametrize(
    "film",
    [lambda y: y, lambda y: 3 * y - 0.2, lambda y: torch.sqrt(y + 0.01), lambda y: torch.log1p(4 * y)],
    ids=["line integrals", "windowed", "square root", "logarithm"],
)
def test_grey_levels_of_any_film_become_line_integrals(film, chest) -> None:
    projected = reproject(chest, SIZE)
    assert (match_greys(film(projected), projected, known()) - projected).abs().max() < 0.02


def test_what_is_not_known_is_zero_and_does_not_count(chest) -> None:
    projected = reproject(chest, SIZE)
    shown = known()
    shown[..., 20:] = 0
    spoilt = torch.where(shown > 0, projected, 7.0)
    torch.testing.assert_close(match_greys(spoilt * shown, projected, shown), projected * shown, atol=1e-4, rtol=0)
    for got, wanted in zip(
        missing(chest * 0.9, spoilt * shown, shown), missing(chest * 0.9, projected * shown, shown), strict=True
    ):
        torch.testing.assert_close(got, wanted)


def test_a_volume_that_explains_its_radiographs_lacks_nothing(chest) -> None:
    change, difference = missing(chest, 2.5 * reproject(chest, SIZE) + 0.1, known())
    assert change.abs().max() < 0.005
    assert difference.abs().max() < 0.002


@pytest.mark.parametrize("rounds", [1, 2])
def test_what_is_lacking_lies_where_the_truth_has_it(rounds: int, chest) -> None:
    """A consolidation in the front of the right lung: denser there, less so in its mirror images."""
    truth = chest.clone()
    truth[:, :, 8:12, 12:15, 8:12] = 0.4
    radiographs = reproject(truth, SIZE)
    change, difference = missing(chest, radiographs, known(), rounds)
    assert change[..., 8:12, 12:15, 8:12].mean() > 0.02
    for mirrored in (change.flip(2), change.flip(3), change.flip(4)):  # two of them see it in one view
        assert mirrored[..., 8:12, 12:15, 8:12].mean() < 0.6 * change[..., 8:12, 12:15, 8:12].mean()
    before, after = (missing(v, radiographs, known(), 1)[1].square().sum() for v in (chest, chest + change))
    assert after < 0.5 * before
    assert (difference > 0.5 * difference.max()).nonzero()[:, 1].unique().tolist() == [0, 1]  # either view shows it

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import grid_sample

from xrecon_bundle import frame
from xrecon_bundle.projection import ConeBeamGeometry, MultiAngleProjectionLoss, Projector
from xrecon_bundle.projection.loss import BASE_POSES
from xrecon_bundle.projection.phantom import Ellipsoid

TINY = ConeBeamGeometry.chest_multi_angle(16)


def volumes(size: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    both = torch.rand(2, 1, 1, size, size, size, generator=torch.Generator().manual_seed(seed))
    return both[0], both[1]


@pytest.mark.parametrize(
    ("pose", "direction"),
    zip(BASE_POSES, [(0.0, 0.0, 1.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)], strict=True),
    ids=["axial", "sagittal", "coronal"],
)
def test_base_poses_look_along_the_axes(pose, direction):
    parallel = ConeBeamGeometry(math.inf, 200.0, (1.0, 1.0), (1, 1))
    _, rays = parallel.rays(torch.tensor(pose, dtype=torch.float64))
    torch.testing.assert_close(rays[0, 0], torch.tensor(direction, dtype=torch.float64))


@pytest.mark.parametrize(
    ("geometry", "shown"),
    [(ConeBeamGeometry.chest_multi_angle(), 1.0), (ConeBeamGeometry.prost_published(), 0.54)],
    ids=["default: all", "published: half"],
)
def test_how_much_of_the_cube_each_base_view_shows(geometry, shown):
    volume = torch.zeros(1, 1, 48, 48, 48, requires_grad=True)
    for pose in BASE_POSES:
        (seen,) = torch.autograd.grad(Projector(geometry)(volume, torch.tensor([[pose]])).sum(), volume)
        # the edge counts for more than it is: a voxel is seen when a ray passes within a voxel of it
        assert (seen > 0).double().mean().item() == pytest.approx(shown, abs=0.06 if shown < 1 else 0)


def test_random_offsets_keep_a_whole_chest_in_view():
    chest = Ellipsoid((0.0, 0.0, 0.0), (160.0, 120.0, 165.0)).rasterise((32,) * 3, (frame.voxel_size(32),) * 3) > 0.5
    loss = MultiAngleProjectionLoss()
    for _ in range(10):
        for pose in loss.draw_poses()[0]:
            volume = torch.zeros(chest.shape, requires_grad=True)
            (seen,) = torch.autograd.grad(loss.projector(volume, pose[None, None]).sum(), volume)
            assert (seen[chest] > 0).all()


def published_sum(volume: torch.Tensor, pose: tuple[float, ...]) -> torch.Tensor:
    """The published projection from its description alone: voxel units, trilinear samples 1.75 apart, summed."""
    size = volume.shape[-1]
    pixels = (torch.arange(128) - 63.5) * 0.73 * 512 / 128
    u, v = torch.meshgrid(pixels, pixels, indexing="ij")
    target, source = torch.stack([u, v, torch.full_like(u, 400.0)], -1), torch.tensor([0.0, 0.0, -300.0])
    unit = torch.nn.functional.normalize(target - source, dim=-1)
    along = torch.arange(300 - size / 2 * 3**0.5, 300 + size / 2 * 3**0.5, 1.75)
    points = source + along[:, None, None, None] * unit
    x, y, z = (torch.deg2rad(torch.tensor(a)) for a in pose[:3])
    turn = torch.eye(3)
    for i, j, a in ((1, 2, x), (2, 0, y), (0, 1, z)):
        step = torch.eye(3)
        step[i, i] = step[j, j] = a.cos()
        step[j, i], step[i, j] = a.sin(), -a.sin()
        turn = turn @ step
    grid = (points @ turn.T / (size / 2)).flip(-1)  # grid_sample wants the last axis first
    return grid_sample(volume, grid[None], align_corners=False)[0, 0].sum(0)


@pytest.mark.parametrize("pose", [BASE_POSES[0], BASE_POSES[1], (100.0, 170.0, 95.0, 0.0, 0.0, 0.0)])
def test_with_the_published_geometry_the_value_is_the_published_one(pose):
    body = Ellipsoid((20.0, -30.0, 10.0), (90.0, 60.0, 110.0))
    volume = body.rasterise((224,) * 3, (1.6,) * 3, samples=2).float()
    published = published_sum(volume, pose)
    ours = Projector(ConeBeamGeometry.prost_published())(volume, torch.tensor([[pose]]))[0, 0, 0] / 2.8
    assert (ours - published).abs().mean() / published.mean() < 0.005
    assert ours.mean().item() == pytest.approx(published.mean().item(), rel=1e-3)


def test_the_value_means_the_same_at_every_size():
    bodies = Ellipsoid((20.0, -30.0, 10.0), (90.0, 60.0, 110.0)), Ellipsoid((10.0, -20.0, 0.0), (80.0, 70.0, 90.0))
    loss = MultiAngleProjectionLoss().eval()
    values = []
    for size in (32, 64, 128):
        grid = (size,) * 3, (frame.voxel_size(size),) * 3
        values.append(loss(*(body.rasterise(*grid).float() for body in bodies)).item())
    assert values == pytest.approx([values[-1]] * 3, rel=0.02)


def test_equal_volumes_have_no_loss_and_difference_projects_as_the_difference_of_projections():
    pred, target = volumes()
    loss = MultiAngleProjectionLoss(TINY).eval()
    assert loss(pred, pred.clone()) == 0
    poses = torch.tensor([BASE_POSES])
    apart = (Projector(TINY)(pred, poses) - Projector(TINY)(target, poses)).abs().mean() / 2.8
    torch.testing.assert_close(loss(pred, target), apart)


def test_training_draws_one_offset_for_the_three_poses_and_evaluation_none():
    loss = MultiAngleProjectionLoss(TINY, seed=3)
    base = torch.tensor([BASE_POSES])
    offsets = torch.stack([loss.draw_poses() - base for _ in range(400)])
    torch.testing.assert_close(offsets, offsets[:, :, :1].expand_as(offsets), atol=1e-4, rtol=0)
    deviation = offsets[:, 0, 0].std(0)
    torch.testing.assert_close(deviation, torch.tensor([10.0] * 3 + [8 * frame.voxel_size(224)] * 3), rtol=0.15, atol=0)
    assert torch.equal(loss.eval().draw_poses(), base)


def test_evaluation_does_not_advance_the_generator():
    loss, pair = MultiAngleProjectionLoss(TINY), volumes()
    before = loss.generator.get_state()
    loss.eval()(*pair)
    assert torch.equal(loss.generator.get_state(), before)


def test_a_resumed_run_continues_bit_for_bit():
    pair = volumes()
    loss = MultiAngleProjectionLoss(TINY, seed=1)
    for _ in range(3):
        loss(*pair)
    saved = loss.state_dict()
    expected = [loss(*pair) for _ in range(2)]
    resumed = MultiAngleProjectionLoss(TINY, seed=2)
    resumed.load_state_dict(saved)
    assert [resumed(*pair) for _ in range(2)] == expected
    assert MultiAngleProjectionLoss(TINY, seed=2)(*pair) != expected[0]


def test_the_offsets_are_no_ones_but_its_own():
    first, again = MultiAngleProjectionLoss(TINY, seed=5), MultiAngleProjectionLoss(TINY, seed=5)
    state = torch.get_rng_state()
    drawn = first.draw_poses()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert torch.equal(again.draw_poses(), drawn)


def test_following_the_gradient_lowers_the_loss():
    pred, target = volumes()
    pred.requires_grad_()
    loss = MultiAngleProjectionLoss(TINY).eval()
    before = loss(pred, target)
    before.backward()
    after = loss(pred.detach() - 0.1 * pred.grad / pred.grad.abs().max(), target)
    assert after < before

from __future__ import annotations

import math

import pytest
import torch
from monai.data import MetaTensor
from torch.nn.functional import grid_sample

from xrecon_bundle import frame
from xrecon_bundle.projection import ConeBeamGeometry, Projector
from xrecon_bundle.projection import projector as module
from xrecon_bundle.projection.phantom import Box, Ellipsoid

CUBE = ((224, 224, 224), (1.6, 1.6, 1.6))
FLAT = ((240, 224, 144), (1.5, 1.6, 2.5))
BODIES = [
    Ellipsoid((12.0, -20.0, 8.0), (110.0, 80.0, 120.0)),
    Ellipsoid((-60.0, 15.0, -20.0), (55.0, 60.0, 50.0)),
    Box((12.0, -20.0, 8.0), (110.0, 80.0, 120.0)),
    Box((-60.0, 15.0, -20.0), (55.0, 60.0, 50.0)),
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_poses(count: int, degrees: float, mm: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    unit = torch.rand(1, count, 6, generator=generator(), dtype=dtype) * 2 - 1
    return unit * torch.tensor([degrees] * 3 + [mm] * 3, dtype=dtype)


def relative_errors(body, geometry: ConeBeamGeometry, grid, poses: torch.Tensor) -> torch.Tensor:
    """Of all rays with a chord over 20 voxels."""
    shape, spacing = grid
    shown = Projector(geometry)(body.rasterise(shape, spacing).float(), poses, spacing)[0, 0].double()
    truth = body.integral(*geometry.rays(poses[0].double()))
    counts = truth > 20 * max(spacing)
    assert counts.flatten(1).sum(1).min() > 200, "the table must hold bodies that are seen from every pose"
    return ((shown - truth).abs() / truth)[counts]


@pytest.mark.parametrize("grid", [CUBE, FLAT], ids=["cube", "anisotropic"])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: f"{type(body).__name__}{body.centre}")
def test_off_centre_bodies_from_five_random_poses_within_three_per_mille(body, grid):
    geometry = ConeBeamGeometry(1800.0, 200.0, (450.0, 450.0), (96, 96), orientation=(90.0, 0.0, 0.0))
    errors = relative_errors(body, geometry, grid, random_poses(5, degrees=40.0, mm=15.0))
    assert errors.mean() < 0.003


def test_parallel_beam_within_three_per_mille():
    geometry = ConeBeamGeometry(math.inf, 200.0, (380.0, 380.0), (96, 96))
    assert relative_errors(BODIES[0], geometry, CUBE, random_poses(5, degrees=40.0, mm=15.0)).mean() < 0.003


def test_steep_rays_keep_their_accuracy():
    """A plate across x, seen from between x and z: rays that run more along x are marched along x, the others along z.

    With one main axis for the whole view, the former would meet the three voxels of the plate in only two steps.
    """
    geometry = ConeBeamGeometry(700.0, 400.0, (800.0, 800.0), (100, 100))
    pose = torch.tensor([[[0.0, 40.0, 0.0, 0.0, 0.0, 0.0]]])
    plate, (shape, spacing) = Box((-20.0, 0.0, 0.0), (2.4, 120.0, 120.0)), CUBE
    shown = Projector(geometry)(plate.rasterise(shape, spacing).float(), pose, spacing)[0, 0, 0].double()
    point, direction = geometry.rays(pose[0, 0].double())
    truth = plate.integral(point, direction)
    slant = direction.norm(dim=-1) / direction[..., 0].abs()
    steep = (slant < 2**0.5) & (truth > 0.99 * 2 * 2.4 * slant)  # through both faces, not through an edge
    assert steep.sum() > 1000
    assert ((shown - truth).abs() / truth)[steep].mean() < 0.001


@pytest.mark.parametrize(
    ("preset", "across", "towards_detector"),
    [
        ("chest_pa", (1, 0, 0), (0, -1, 0)),  # u grows to the left, the front is near the detector
        ("chest_lateral", (0, 1, 0), (1, 0, 0)),  # u grows to the back, the left is near the detector
    ],
)
def test_a_marker_left_anterior_superior_lands_where_the_convention_says(preset, across, towards_detector):
    size, pixels = 64, 256
    volume = torch.zeros(1, 1, size, size, size)
    volume[0, 0, 52, 9, 14] = 1
    marker = (torch.tensor([52.0, 9.0, 14.0]) - (size - 1) / 2) * frame.voxel_size(size)
    assert (marker.sign() == torch.tensor([1, -1, -1])).all(), "LPI axes: left, anterior, superior"

    geometry = getattr(ConeBeamGeometry, preset)(pixels)
    image = Projector(geometry)(volume)[0, 0, 0]
    line = (torch.arange(pixels) - (pixels - 1) / 2) * geometry.pixel_size[0]
    centroid = torch.stack([image.sum(1) @ line, image.sum(0) @ line]) / image.sum()

    magnification = 1800 / (1600 + marker @ torch.tensor(towards_detector, dtype=torch.float32))
    expected = torch.stack([marker @ torch.tensor(across, dtype=torch.float32), marker[2]]) * magnification
    torch.testing.assert_close(centroid, expected, atol=0.2, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_translation_moves_the_picture_against_the_camera(axis):
    body = Ellipsoid((0.0, 0.0, 0.0), (40.0, 40.0, 40.0))
    geometry = ConeBeamGeometry(math.inf, 300.0, (200.0, 200.0), (50, 50), orientation=(90.0, 0.0, 0.0))
    volume = body.rasterise((80,) * 3, (3.0,) * 3).float()
    pose = torch.zeros(1, 1, 6)
    pose[..., 3 + axis] = 20.0
    image = Projector(geometry)(volume, pose, 3.0)[0, 0, 0]
    line = (torch.arange(50) - 24.5) * 4.0
    centroid = torch.stack([image.sum(1) @ line, image.sum(0) @ line]) / image.sum()
    expected = {0: (-20.0, 0.0), 1: (0.0, 0.0), 2: (0.0, -20.0)}[axis]  # u = x, v = z
    torch.testing.assert_close(centroid, torch.tensor(expected), atol=0.1, rtol=0)


STEEP = ConeBeamGeometry(500.0, 250.0, (600.0, 500.0), (12, 10))  # rays of all three main axes below


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spacing", [None, (11.0, 13.0, 12.0)])
def test_backward_is_the_exact_adjoint(dtype, spacing):
    projector, poses = Projector(STEEP), random_poses(3, 180.0, 10.0, dtype).repeat(2, 1, 1)
    x = torch.rand(2, 2, 24, 22, 20, generator=generator(), dtype=dtype, requires_grad=True)
    projected = projector(x, poses, spacing)
    y = torch.rand(projected.shape, generator=generator(1), dtype=dtype)
    (back,) = torch.autograd.grad(projected, x, y)
    assert (projected * y).sum().item() == pytest.approx((x * back).sum().item(), rel=1e-5)


def test_gradients_in_volume_and_pose_against_finite_differences():
    volume = torch.rand(2, 1, 5, 6, 7, generator=generator(), dtype=torch.float64, requires_grad=True)
    poses = torch.tensor([[[10.0, 20, 30, 1, 2, 3]], [[-80.0, 33, 5, 4, -9, 2]]], dtype=torch.float64)
    geometry = ConeBeamGeometry(1800.0, 200.0, (300.0, 250.0), (4, 3))
    assert torch.autograd.gradcheck(
        lambda v, p: Projector(geometry)(v, p, (50.0, 51.0, 49.0)), (volume, poses.requires_grad_())
    )


def test_pose_gradients_of_a_chest_sized_view_point_downhill():
    """Finite differences where a registration would use them: many rays, several main axes among them."""
    body = Ellipsoid((20.0, -30.0, 10.0), (90.0, 60.0, 110.0))
    volume = body.rasterise((64,) * 3, (5.6,) * 3)
    projector = Projector(ConeBeamGeometry.chest_pa(32))
    target = projector(volume)
    pose = torch.tensor([[[5.0, 42.0, -4.0, 6.0, 3.0, -5.0]]], dtype=torch.float64, requires_grad=True)

    def loss(at: torch.Tensor) -> torch.Tensor:
        return (projector(volume, at) - target).square().mean()

    (gradient,) = torch.autograd.grad(loss(pose), pose)
    step = 1e-5 * torch.eye(6, dtype=torch.float64)
    numeric = torch.stack([(loss(pose.detach() + h) - loss(pose.detach() - h)) / 2e-5 for h in step])
    torch.testing.assert_close(gradient[0, 0], numeric, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("chunk", [1, 50, 1000, 10**9])
def test_the_chunk_changes_nothing(chunk):
    volume = torch.rand(1, 2, 20, 22, 24, generator=generator(), dtype=torch.float64, requires_grad=True)
    poses = random_poses(3, 180.0, 10.0, torch.float64).requires_grad_()
    results = []
    for projector in (Projector(STEEP, chunk), Projector(STEEP)):
        image = projector(volume, poses)
        results.append((image, *torch.autograd.grad(image.square().sum(), (volume, poses))))
    for ours, default in zip(*results, strict=True):
        torch.testing.assert_close(ours, default)


@pytest.mark.parametrize(("channels", "chunk"), [(1, 5000), (1, 50), (3, 50)])
def test_the_chunk_bounds_what_is_sampled_at_once(monkeypatch, channels, chunk):
    samples = []

    def record(slices: torch.Tensor, grid: torch.Tensor, **options):
        samples.append(grid.shape[0] * grid.shape[2] * slices.shape[1])
        return grid_sample(slices, grid, **options)

    monkeypatch.setattr(module, "grid_sample", record)
    Projector(STEEP, chunk)(torch.zeros(1, channels, 20, 22, 24), random_poses(2, 60.0, 10.0))
    assert chunk / 3 < max(samples) <= chunk


def test_every_item_of_a_batch_has_its_own_poses():
    volume = torch.rand(2, 3, 20, 20, 20, generator=generator())
    poses = random_poses(4, 180.0, 10.0).reshape(2, 2, 6)
    projector = Projector(STEEP)
    together = projector(volume, poses)
    assert together.shape == (2, 3, 2, 12, 10)
    for b in range(2):
        for v in range(2):
            alone = projector(volume[b : b + 1], poses[b : b + 1, v : v + 1])
            torch.testing.assert_close(together[b : b + 1, :, v : v + 1], alone)
    shared = projector(volume, poses[:1])
    torch.testing.assert_close(shared, projector(volume, poses[:1].repeat(2, 1, 1)))


def test_the_same_body_has_the_same_integrals_at_every_size():
    body = Ellipsoid((20.0, -30.0, 10.0), (90.0, 60.0, 110.0))
    means = [
        Projector(ConeBeamGeometry.chest_pa(64))(body.rasterise((size,) * 3, (frame.voxel_size(size),) * 3)).mean()
        for size in (32, 64, 128)
    ]
    assert max(means) / min(means) < 1.005


def test_lengths_may_be_voxels_instead_of_mm():
    volume = torch.rand(1, 1, 20, 20, 20, generator=generator(), dtype=torch.float64)
    pose = torch.tensor([[[10.0, -20.0, 30.0, 4.0, 6.0, -8.0]]], dtype=torch.float64)
    in_mm = Projector(ConeBeamGeometry(500.0, 250.0, (60.0, 50.0), (12, 10)))(volume, pose, 2.0)
    pose[..., 3:] /= 2
    in_voxels = Projector(ConeBeamGeometry(250.0, 125.0, (30.0, 25.0), (12, 10)))(volume, pose, 1.0)
    torch.testing.assert_close(in_mm, 2 * in_voxels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_integrate_in_float32(dtype):
    volume = torch.rand(1, 1, 32, 32, 32, generator=generator()).to(dtype)
    projector, poses = Projector(STEEP), random_poses(2, 40.0, 10.0)
    expected = projector(volume.float(), poses)
    with torch.autocast("cpu", torch.bfloat16):
        image = projector(volume, poses)
    assert image.dtype == torch.float32
    assert torch.equal(image, expected)


def test_compiled_models_may_contain_it():
    projector = Projector(STEEP)
    volume = torch.rand(1, 1, 20, 20, 20, generator=generator(), requires_grad=True)
    poses = random_poses(2, 60.0, 10.0)
    expected = torch.autograd.grad((projector(2 * volume, poses) + 1).square().sum(), volume)

    compiled = torch.compile(lambda v, p: (projector(2 * v, p) + 1).square().sum(), backend="aot_eager")
    assert torch.equal(torch.autograd.grad(compiled(volume, poses), volume)[0], expected[0])


@pytest.mark.parametrize(
    "make",
    [
        lambda volume: volume.permute(0, 1, 4, 3, 2).contiguous().permute(0, 1, 4, 3, 2),
        lambda volume: volume.contiguous(memory_format=torch.channels_last_3d),
        MetaTensor,
    ],
    ids=["transposed", "channels_last", "MetaTensor"],
)
def test_any_layout_and_monais_tensors_are_welcome(make):
    volume = torch.rand(1, 2, 20, 22, 24, generator=generator())
    poses = random_poses(2, 60.0, 10.0)
    torch.testing.assert_close(torch.Tensor(Projector(STEEP)(make(volume), poses)), Projector(STEEP)(volume, poses))


@pytest.mark.parametrize(
    ("volume", "poses", "spacing", "word"),
    [
        ((20, 20, 20), None, None, "volume"),
        ((2, 1, 8, 8, 8), (3, 1, 6), None, "poses"),
        ((2, 1, 8, 8, 8), (2, 6), None, "poses"),
        ((2, 1, 8, 8, 8), (2, 1, 7), None, "poses"),
        ((2, 1, 8, 8, 8), None, 0.0, "spacing"),
        ((2, 1, 8, 8, 8), None, (1.0, 1.0, -1.0), "spacing"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(volume, poses, spacing, word):
    with pytest.raises(ValueError, match=word):
        Projector(STEEP)(torch.zeros(volume), None if poses is None else torch.zeros(poses), spacing)

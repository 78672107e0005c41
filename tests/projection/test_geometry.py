from __future__ import annotations

import math

import pytest
import torch

from xrecon_bundle import frame
from xrecon_bundle.projection import PROST_STEP_MM, ConeBeamGeometry

HALF = frame.EDGE_MM / 2
LEFT, BACK, FEET = torch.eye(3, dtype=torch.float64)
STILL = torch.zeros(6, dtype=torch.float64)


def source_of(geometry: ConeBeamGeometry, pose: torch.Tensor = STILL) -> torch.Tensor:
    """Where the rays of two opposite corners meet."""
    point, direction = (rays[[0, -1], [0, -1]] for rays in geometry.rays(pose))
    back = point - direction
    torch.testing.assert_close(back[0], back[1])
    return back[0]


@pytest.mark.parametrize(
    ("geometry", "u", "v", "towards_detector"),
    [
        (ConeBeamGeometry.chest_pa(8), LEFT, FEET, -BACK),
        (ConeBeamGeometry.chest_lateral(8), BACK, FEET, LEFT),
        (ConeBeamGeometry.chest_multi_angle(8), LEFT, BACK, FEET),
        (ConeBeamGeometry.prost_published(), LEFT, BACK, FEET),
    ],
    ids=["pa", "lateral", "multi_angle", "prost"],
)
def test_base_views_stand_where_the_frame_says(geometry, u, v, towards_detector):
    pixel, _ = geometry.rays(STILL)
    pitch = geometry.pixel_size
    torch.testing.assert_close(pixel[1, 0] - pixel[0, 0], u * pitch[0])
    torch.testing.assert_close(pixel[0, 1] - pixel[0, 0], v * pitch[1])
    torch.testing.assert_close(pixel.mean((0, 1)), towards_detector * geometry.detector_to_centre)
    source_to_centre = geometry.source_to_detector - geometry.detector_to_centre
    torch.testing.assert_close(source_of(geometry), -towards_detector * source_to_centre)


def test_a_pose_turns_source_and_detector_about_the_centre_and_then_shifts_them():
    geometry = ConeBeamGeometry(1000.0, 300.0, (400.0, 400.0), (5, 5))
    pose = torch.tensor([0.0, 90.0, 0.0, 10.0, 20.0, 30.0], dtype=torch.float64)  # Ry: +z to +x
    torch.testing.assert_close(source_of(geometry, pose), torch.tensor([-700.0 + 10, 20, 30], dtype=torch.float64))
    pixel, _ = geometry.rays(pose)
    torch.testing.assert_close(pixel[2, 2], torch.tensor([300.0 + 10, 20, 30], dtype=torch.float64))


@pytest.mark.parametrize("preset", ["chest_pa", "chest_lateral"])
def test_chest_views_use_the_frames_distances_and_just_show_the_cube(preset):
    geometry = getattr(ConeBeamGeometry, preset)(64)
    assert geometry.source_to_detector == frame.SOURCE_TO_DETECTOR_MM
    assert geometry.detector_to_centre == frame.DETECTOR_TO_CENTRE_MM
    assert geometry.magnification == pytest.approx(1800 / 1600)
    corner_of_nearest_face = HALF * 1800 / (1600 - HALF)
    assert geometry.detector_size == pytest.approx((2 * corner_of_nearest_face,) * 2)


def test_published_geometry_is_the_publications_in_voxels_of_224():
    geometry = ConeBeamGeometry.prost_published()
    voxel = frame.voxel_size(224)
    assert geometry.source_to_detector / voxel == pytest.approx(700)
    assert geometry.detector_to_centre / voxel == pytest.approx(400)
    assert geometry.detector_pixels == (128, 128)
    assert [size / voxel for size in geometry.pixel_size] == pytest.approx([0.73 * 512 / 128] * 2)
    assert PROST_STEP_MM / voxel == pytest.approx(1.75)
    shown = geometry.detector_size[0] / geometry.magnification / voxel
    assert shown / 2 == pytest.approx(80, abs=0.2)


def test_an_infinite_distance_makes_the_rays_parallel():
    geometry = ConeBeamGeometry(math.inf, 200.0, (300.0, 200.0), (6, 4))
    assert geometry.is_parallel
    assert geometry.magnification == 1
    _, direction = geometry.rays(STILL)
    torch.testing.assert_close(direction, FEET.expand(6, 4, 3))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((0.0, 0.0, (1.0, 1.0), (8, 8)), "centre"),
        ((100.0, 100.0, (1.0, 1.0), (8, 8)), "centre"),
        ((100.0, -1.0, (1.0, 1.0), (8, 8)), "centre"),
        ((math.nan, 10.0, (1.0, 1.0), (8, 8)), "centre"),
        ((math.inf, math.inf, (1.0, 1.0), (8, 8)), "centre"),
        ((100.0, 10.0, (1.0, 0.0), (8, 8)), "detector_size"),
        ((100.0, 10.0, (1.0, math.inf), (8, 8)), "detector_size"),
        ((100.0, 10.0, (1.0, 1.0), (8, 0)), "detector_pixels"),
        ((100.0, 10.0, (1.0, 1.0), (8, 7.5)), "detector_pixels"),
        ((100.0, 10.0, (1.0, 1.0), (8, 8), (0.0, math.nan, 0.0)), "orientation"),
    ],
)
def test_an_impossible_geometry_is_refused_by_name(arguments, word):
    with pytest.raises(ValueError, match=word):
        ConeBeamGeometry(*arguments)

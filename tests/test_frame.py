"""The chest frame: scales that invert, affines that say where things are."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xrecon_bundle import frame

CENTRES = st.tuples(*[st.floats(-500, 500)] * 3)


@pytest.mark.parametrize(
    ("hu", "unit"), [(-1024, 0.0), (-3000, 0.0), (0, 0.4096), (226, 0.5), (1476, 1.0), (3071, 1.0)]
)
def test_hu_become_units_as_published(hu: float, unit: float) -> None:
    assert frame.hu_to_unit(np.float64(hu)) == pytest.approx(unit)
    assert frame.hu_to_unit(torch.tensor(float(hu))).item() == pytest.approx(unit)


@given(st.floats(-1024, 1476))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_units_and_hu_invert_each_other(hu: float) -> None:
    assert frame.unit_to_hu(frame.hu_to_unit(np.float64(hu))) == pytest.approx(hu, abs=1e-9)


def test_water_attenuates_like_water_and_aerated_lung_is_not_air() -> None:
    water, lung, free_air, below = frame.hu_to_attenuation(np.array([0.0, -850.0, -1000.0, -1024.0]))
    assert water == frame.MU_WATER_PER_MM
    assert lung == pytest.approx(0.15 * water)
    assert free_air == below == 0.0


@pytest.mark.parametrize(("size", "millimetres"), [(64, 5.6), (128, 2.8), (224, 1.6), (320, 1.12)])
def test_voxel_size_of_the_fixed_cube(size: int, millimetres: float) -> None:
    assert frame.voxel_size(size) == pytest.approx(millimetres)


@given(CENTRES, st.sampled_from([64, 96, 224]))
@settings(deadline=None, max_examples=30, derandomize=True)
def test_cube_affine_is_lpi_and_centred(centre: tuple[float, float, float], size: int) -> None:
    affine = frame.cube_affine(size, centre)
    assert "".join(nibabel.aff2axcodes(affine)) == frame.AXCODES
    assert frame.grid_centre(affine, (size,) * 3) == pytest.approx(np.array(centre), abs=1e-9)
    first_face, last_face = (affine @ [edge, edge, edge, 1.0] for edge in (-0.5, size - 0.5))
    assert (first_face - last_face)[:3] == pytest.approx(np.full(3, frame.EDGE_MM))


@given(CENTRES)
@settings(deadline=None, max_examples=30, derandomize=True)
def test_radiograph_affine_keeps_the_place_of_the_cube(centre: tuple[float, float, float]) -> None:
    affine = frame.radiograph_affine(64, centre)
    assert frame.grid_centre(affine, (64, 64, 2)) == pytest.approx(np.array(centre), abs=1e-9)
    assert "".join(nibabel.aff2axcodes(affine)) == "LIP"


def test_detector_just_shows_the_whole_cube() -> None:
    half_detector = frame.detector_size_mm() / 2
    source_to_near_face = frame.SOURCE_TO_DETECTOR_MM - frame.DETECTOR_TO_CENTRE_MM - frame.EDGE_MM / 2
    assert half_detector / frame.SOURCE_TO_DETECTOR_MM == pytest.approx(frame.EDGE_MM / 2 / source_to_near_face)


@given(
    st.permutations([0, 1, 2]),
    st.lists(st.sampled_from([-1, 1]), min_size=3, max_size=3),
    st.lists(st.floats(0.3, 10), min_size=3, max_size=3),
    st.floats(-0.6, 0.6),
    st.floats(-0.6, 0.6),
)
def test_voxel_spacing_has_the_voxels_volume(order, signs, edges, tilt, swivel):
    """Slices of any axes, moved aside by ``tilt`` and ``swivel`` of their distance."""
    columns = np.eye(3)[:, order] * signs * edges
    sheared = columns.copy()
    sheared[:, 2] += np.linalg.norm(columns[:, 2]) * (
        tilt * columns[:, 1] / np.linalg.norm(columns[:, 1]) + swivel * columns[:, 0] / np.linalg.norm(columns[:, 0])
    )
    affine = np.eye(4)
    affine[:3, :3] = sheared
    spacing = frame.voxel_spacing(affine)
    np.testing.assert_allclose(spacing, edges, rtol=2e-5)  # the distance between slices stays
    np.testing.assert_allclose(np.prod(spacing), abs(np.linalg.det(sheared)), rtol=2e-5)
    assert frame.is_sheared(affine) or max(abs(tilt), abs(swivel)) < 0.005

"""Simulated radiographs: units, orientation, detector physics, the contrast of a pneumothorax, the scale to [0, 1]."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose
from PIL import Image
from radiograph_cases import (
    CENTRE_MM,
    DETECTOR_MM,
    brightest_mm,
    ellipsoid,
    marked_views,
    marker_on_detector_mm,
)
from scipy.ndimage import gaussian_filter

from xrecon_bundle import frame
from xrecon_bundle.frame import radiograph_to_unit
from xrecon_bundle.io.radiograph_files import VIEWS, display_radiograph, write_radiograph_png
from xrecon_bundle.placement.standardize import standardize_ct
from xrecon_bundle.projection.radiographs import detect_radiographs, simulate_radiographs
from xrecon_bundle.transforms import RadiographToUnitd, RandSimulateRadiographsd, SimulateRadiographsd

SIZE = 64


@pytest.fixture(scope="module")
def chest() -> torch.Tensor:
    """Water with two lungs, ``(1, S, S, S)`` HU."""
    return torch.from_numpy(water_chest(SIZE))[None]


def water_chest(size: int) -> np.ndarray:
    hu = np.full((size,) * 3, -1000.0, dtype=np.float32)
    hu[ellipsoid(size, (0, 0, 0), (165, 110, 170))] = 0
    for side in (-1, 1):
        hu[lung(size, side)] = -850
    return hu


def lung(size: int, side: int) -> np.ndarray:
    """Mask of the right (-1) or left (1) lung."""
    return ellipsoid(size, (side * 75, 0, -10), (58, 80, 120))


# --- line integrals ------------------------------------------------------------------------------------------------


def test_the_unit_is_nepers():
    radius = 80.0
    hu = torch.from_numpy(np.where(ellipsoid(SIZE, (0, 0, 0), (radius,) * 3), 0.0, -1000.0))
    middle = simulate_radiographs(hu, pixels=65)[:, 32, 32]
    assert middle == pytest.approx(2 * radius * frame.MU_WATER_PER_MM, rel=0.03)  # a voxel's edge is 5.6 mm


def test_the_marker_is_where_the_convention_says():
    for view, image in zip(VIEWS, marked_views(160), strict=True):
        assert brightest_mm(image) == pytest.approx(marker_on_detector_mm()[view], abs=DETECTOR_MM / 160)


def test_the_pair_is_differentiable_in_the_ct_and_in_the_poses(chest):
    hu, poses = chest.clone().requires_grad_(), torch.zeros(2, 6, requires_grad=True)
    simulate_radiographs(hu, 48, poses)[:, :24].sum().backward()
    assert hu.grad[0, 16, 32, 32] > 0  # seen in the half that was summed
    assert (poses.grad[:, 3:5].abs().amax(1) > 0).all()


@pytest.mark.parametrize("shape", [(8, 8, 9), (2, 8, 8, 8), (8, 8)], ids=str)
def test_only_a_cube_is_simulated(shape):
    with pytest.raises(ValueError, match="must be a cube"):
        simulate_radiographs(torch.zeros(shape))


# --- contrast ------------------------------------------------------------------------------------------------------


def test_a_pneumothorax_of_30_percent_stays_visible():
    """The rim of free air, seen past the collapsed lung, against the same place in the healthy chest."""
    size, pixels = 128, 224
    healthy = water_chest(size)
    left = lung(size, 1)
    step = frame.voxel_size(size)
    collapsed = left & ellipsoid(size, (65, 0, -2), (49, 74, 112))  # towards the hilum, away from wall and apex
    air = left & ~collapsed
    assert air.sum() / left.sum() == pytest.approx(0.30, abs=0.02)
    ill = np.where(air, -1000.0, healthy).astype(np.float32)
    images = {name: simulate_radiographs(torch.from_numpy(hu), pixels) for name, hu in dict(h=healthy, i=ill).items()}
    paths = {
        name: simulate_radiographs(torch.from_numpy(np.where(mask, 0.0, -1000.0)), pixels)[0] / frame.MU_WATER_PER_MM
        for name, mask in dict(air=air, lung=collapsed).items()
    }
    rim = (paths["air"] > 10 * step) & (paths["lung"] < step)  # free air only, seen from the front
    assert rim.sum() > 100
    darker = (images["h"][0] - images["i"][0])[rim].mean().item()
    assert darker == pytest.approx(0.15 * frame.MU_WATER_PER_MM * paths["air"][rim].mean().item(), rel=0.02)
    assert darker > 0.2  # nepers
    unit = {name: radiograph_to_unit(image)[0] for name, image in images.items()}
    assert (unit["h"] - unit["i"])[rim].mean() > 0.04
    mirrored = torch.flip(rim, [0])  # the healthy lung of the same image
    assert unit["i"][mirrored].mean() - unit["i"][rim].mean() > 0.04
    noisy = detect_radiographs(images["i"], photons=20000, rng=np.random.default_rng(0))
    assert darker > 5 * (noisy - images["i"])[0][rim].std()


# --- detector physics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("photons", "nepers"), [(1e4, 0.5), (1e4, 2.0), (1e6, 4.0)])
def test_quantum_noise_follows_poisson(photons, nepers):
    flat = torch.full((1, 200, 200), nepers)
    noise = detect_radiographs(flat, photons, rng=np.random.default_rng(0)) - flat
    expected = np.sqrt(np.exp(nepers) / photons)  # of -log(N / N0) with N Poisson
    assert noise.std().item() == pytest.approx(expected, rel=0.02)
    assert abs(noise.mean().item()) < 0.02 * expected + expected**2


def test_a_starved_pixel_stays_finite():
    assert detect_radiographs(torch.full((1, 8, 8), 50.0), photons=100).max() == pytest.approx(np.log(100))


@pytest.mark.parametrize("fraction", [0.3, 0.6])
def test_the_scatter_fraction_is_what_was_asked_for(fraction, chest):
    ideal = simulate_radiographs(chest)
    detected = detect_radiographs(ideal, scatter_fraction=fraction)
    behind = ideal > 1
    primary, total = torch.exp(-ideal[behind]).sum(), torch.exp(-detected[behind]).sum()
    assert 1 - (primary / total).item() == pytest.approx(fraction, abs=1e-3)
    assert detected[behind].std() < ideal[behind].std()  # scatter takes contrast


def test_blur_spreads_a_point_by_its_width_in_mm():
    point = torch.zeros(1, 101, 101)
    point[0, 50, 50] = 1.0
    width = 9.0
    missing = 1 - torch.exp(-detect_radiographs(point, blur_mm=width))[0]
    position = (torch.arange(101) - 50) * DETECTOR_MM / 101
    variance = (missing.sum(1) * position**2).sum() / missing.sum()
    assert variance.sqrt().item() == pytest.approx(width, rel=0.02)


@pytest.mark.parametrize("bad", [dict(photons=0), dict(blur_mm=-1), dict(scatter_fraction=1.0)], ids=str)
def test_impossible_physics_is_refused(bad):
    with pytest.raises(ValueError, match="photons must be positive"):
        detect_radiographs(torch.zeros(1, 8, 8), **bad)


# --- transforms ----------------------------------------------------------------------------------------------------


def test_the_pair_says_where_the_ct_stood(chest):
    label = MetaTensor(chest, affine=torch.as_tensor(frame.cube_affine(SIZE, CENTRE_MM)))
    label.meta["filename_or_obj"] = "case/ct.nii.gz"
    result = SimulateRadiographsd(pixels=48)({"label": label})
    assert result["image"].shape == (2, 48, 48)
    np.testing.assert_allclose(result["image"].affine, frame.radiograph_affine(48, CENTRE_MM))
    assert result["image"].meta["filename_or_obj"] == "case/ct.nii.gz"
    np.testing.assert_array_equal(result["image"], simulate_radiographs(chest, 48))
    assert result["label"] is label


def test_the_random_transform_without_randomness_is_the_plain_one(chest):
    plain, random = (
        kind(blur_mm=2.0)({"label": chest})["image"] for kind in (SimulateRadiographsd, RandSimulateRadiographsd)
    )
    np.testing.assert_array_equal(plain, random)


def test_the_same_seed_gives_the_same_radiographs(chest):
    def draw(seed: int) -> list[np.ndarray]:
        transform = RandSimulateRadiographsd(photons=1e4, rotation_degrees=2, translation_mm=5)
        transform.set_random_state(seed)
        return [transform({"label": chest})["image"].numpy() for _ in range(2)]

    first, again, other = draw(1), draw(1), draw(2)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first[0], first[1])
    assert not np.allclose(first[0], other[0])


def test_the_patient_moves_between_the_views_by_what_was_asked_for(chest):
    transform = RandSimulateRadiographsd(rotation_degrees=2, translation_mm=5)
    transform.set_random_state(0)
    poses = []
    for _ in range(300):
        transform.randomize()
        poses.append(transform.poses.numpy())
    deviation = np.std(poses, axis=0)
    np.testing.assert_allclose(deviation, [[2, 2, 2, 5, 5, 5]] * 2, rtol=0.15)
    across = np.corrcoef(np.array(poses).reshape(300, 12).T)[:6, 6:]
    assert np.abs(across).max() < 0.25  # each view on its own


# --- the scale to [0, 1] -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30, derandomize=True)
@given(gain=st.floats(1e-3, 1e4), offset=st.floats(-1e4, 1e4), seed=st.integers(0, 100))
def test_the_unit_scale_does_not_depend_on_gain_and_offset(gain, offset, seed):
    view = gaussian_filter(np.random.default_rng(seed).normal(size=(2, 48, 48)), (0, 3, 3))
    view /= view.std()
    changed = (view * gain + offset * gain).astype(np.float64)
    np.testing.assert_allclose(radiograph_to_unit(changed), radiograph_to_unit(view), atol=2e-3)


def test_the_unit_scale_is_each_views_own_and_robust():
    image = np.stack([np.linspace(0, 5, 10000).reshape(100, 100), np.linspace(-3, 900, 10000).reshape(100, 100)])
    image[:, 0, 0] = 1e9  # a burnt-in letter, a dead pixel
    unit = np.asarray(radiograph_to_unit(image))
    assert unit.dtype == np.float32
    assert unit.min() == 0
    assert unit.max() == 1
    np.testing.assert_allclose(unit[0], unit[1], atol=1e-3)
    np.testing.assert_allclose(unit[:, 50, 0], 0.5, atol=0.01)


def test_a_blank_view_becomes_zero():
    assert radiograph_to_unit(torch.full((2, 8, 8), 7.0)).abs().max() == 0


def test_the_dictionary_form_touches_its_keys_only():
    image = torch.rand(2, 16, 16)
    result = RadiographToUnitd("image", lower=2, upper=98)({"image": image, "other": image})
    assert result["other"] is image
    np.testing.assert_array_equal(result["image"], radiograph_to_unit(image, 2, 98))


# --- pictures, and the real CT -------------------------------------------------------------------------------------


def test_the_png_is_upright_and_of_16_bit(tmp_path):
    pa = marked_views(96)[0]
    write_radiograph_png(tmp_path / "pa.png", pa)
    picture = np.asarray(Image.open(tmp_path / "pa.png"))
    assert picture.dtype == np.uint16
    assert (picture.min(), picture.max()) == (0, 65535)
    np.testing.assert_array_equal(picture, display_radiograph(pa))
    row, column = np.argwhere(picture > 60000).mean(0)
    assert row < 48  # superior is at the top
    assert column > 48  # the patient's left is on the viewer's right


def test_the_real_chest_stands_as_radiologists_hang_it(lidc):
    """Heart to the viewer's right and in front of the spine, liver at the bottom left, by TotalSegmentator's labels."""
    ct, mask = (nibabel.load(path) for path in lidc)
    standard = standardize_ct(np.asarray(ct.dataobj), ct.affine, SIZE, np.asarray(mask.dataobj))

    def shadow(first: int, last: int) -> np.ndarray:
        """Path in mm through an organ, ``(view, u, v)``."""
        organ = (standard.labels >= first) & (standard.labels <= last)
        return simulate_radiographs(torch.from_numpy(np.where(organ, 0.0, -1000.0))).numpy() / frame.MU_WATER_PER_MM

    def middle(organ: np.ndarray) -> np.ndarray:
        """Centroid ``(view, (u, v))`` of its shadow in pixels."""
        return np.array([[np.average(np.arange(SIZE), weights=w.sum(1 - axis)) for axis in range(2)] for w in organ])

    lungs, spine = shadow(10, 14), shadow(26, 50)
    heart, liver, back = middle(shadow(51, 51)), middle(shadow(5, 5)), middle(spine)
    assert heart[0, 0] > back[0, 0] + 3
    assert liver[0, 0] < back[0, 0] - 3
    assert heart[1, 0] < back[1, 0] - 8
    assert liver[0, 1] > heart[0, 1] + 5
    pipeline = Compose([SimulateRadiographsd(), RadiographToUnitd("image")])
    pa = pipeline({"label": torch.from_numpy(standard.ct)[None].float()})["image"][0].numpy()
    assert pa[lungs[0] > 100].mean() < 0.6 * pa[spine[0] > 30].mean()

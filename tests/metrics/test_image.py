"""Image measures against scikit-image, hand-computed values and one another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler
from scipy import ndimage
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from xrecon_bundle.frame import hu_to_unit
from xrecon_bundle.metrics import ImageMetric
from xrecon_bundle.metrics.image import PLANES, body_mask, image_metrics

SHAPE = (21, 26, 19)


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Two correlated smooth volumes in [0, 1], no axis like another."""
    generator = np.random.default_rng(3)
    true = ndimage.gaussian_filter(generator.random(SHAPE), (1, 2, 0.5))
    true = (true - true.min()) / np.ptp(true)
    pred = np.clip(0.9 * true + 0.1 * generator.random(SHAPE) + np.linspace(0, 0.2, SHAPE[2]), 0, 1)
    return pred.astype(np.float32), true.astype(np.float32)


@pytest.fixture(scope="module")
def values(pair) -> dict[str, float]:
    pred, true = map(torch.from_numpy, pair)
    return image_metrics(pred[None], true[None], mask=torch.ones(1, *SHAPE, dtype=torch.bool))


def test_errors_equal_scikit_image(pair, values):
    pred, true = pair
    assert values["mse"] == pytest.approx(mean_squared_error(true, pred), rel=1e-5)
    assert values["psnr"] == pytest.approx(peak_signal_noise_ratio(true, pred, data_range=1), abs=1e-4)
    assert values["mae_hu"] == pytest.approx(2500 * np.abs(pred - true).mean(), rel=1e-5)
    expected = np.vdot(pred, true) / np.linalg.norm(pred) / np.linalg.norm(true)
    assert values["cosine_similarity"] == pytest.approx(expected, rel=1e-5)


def test_slice_psnr_equals_scikit_image_slice_by_slice(pair, values):
    pred, true = pair
    means = []
    for axis, plane in enumerate(PLANES):
        slices = zip(np.moveaxis(true, axis, 0), np.moveaxis(pred, axis, 0), strict=True)
        means.append(np.mean([peak_signal_noise_ratio(a, b, data_range=1) for a, b in slices]))
        assert values[f"psnr_{plane}"] == pytest.approx(means[-1], abs=1e-4)
    assert values["psnr_avg"] == pytest.approx(np.mean(means), abs=1e-4)


def test_ssim_equals_scikit_image_with_slices_as_channels(pair, values):
    pred, true = pair
    planes = [structural_similarity(pred, true, data_range=1, channel_axis=axis) for axis in range(3)]
    for plane, expected in zip(PLANES, planes, strict=True):
        assert values[f"ssim_{plane}"] == pytest.approx(expected, abs=1e-5)
    assert values["ssim_avg"] == pytest.approx(np.mean(planes), abs=1e-5)
    assert values["ssim_3d"] == pytest.approx(structural_similarity(pred, true, data_range=1), abs=1e-5)


def test_a_mask_of_everything_changes_nothing(values):
    whole = {name for name in values if not name.endswith("_body")}
    assert {name: values[f"{name}_body"] for name in whole} == pytest.approx({name: values[name] for name in whole})


def test_only_voxels_of_the_body_count(pair):
    pred, true = map(torch.from_numpy, pair)
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[5:16, 6:20, 4:15] = True
    inside = image_metrics(pred, true, mask)
    cut = (slice(5, 16), slice(6, 20), slice(4, 15))
    alone = image_metrics(pred[cut], true[cut], mask[cut])
    for name in ("mae", "mse", "cosine_similarity", "psnr", "psnr_coronal", "psnr_avg"):
        assert inside[f"{name}_body"] == pytest.approx(alone[name], rel=1e-5), name
    _, full = structural_similarity(pair[0], pair[1], data_range=1, full=True)
    assert inside["ssim_3d_body"] == pytest.approx(full[cut].mean(), abs=1e-5)
    _, full = structural_similarity(pair[0], pair[1], data_range=1, channel_axis=1, full=True)
    assert inside["ssim_coronal_body"] == pytest.approx(full[cut].mean(), abs=1e-5)


def test_values_by_hand():
    true = torch.full((8, 8, 8), 0.5)
    pred = true.clone()
    pred[:4] += 0.1  # half the volume off by 250 HU
    values = image_metrics(pred, true, torch.ones_like(true, dtype=torch.bool))
    assert values["mae_hu"] == pytest.approx(125, rel=1e-5)
    assert values["psnr"] == pytest.approx(-10 * np.log10(0.005), abs=1e-4)
    # Along x, four slices are perfect and left out; the other four have MSE 0.01.
    assert values["psnr_sagittal"] == pytest.approx(20, abs=1e-4)
    assert values["psnr_axial"] == pytest.approx(values["psnr"], abs=1e-4)


def test_equal_volumes_are_perfect(pair):
    true = torch.from_numpy(pair[1])
    values = image_metrics(true, true, torch.ones(SHAPE, dtype=torch.bool))
    assert values["mae"] == 0
    assert values["psnr"] == values["psnr_avg"] == float("inf")
    assert values["ssim_avg"] == pytest.approx(1)
    assert values["ssim_3d"] == pytest.approx(1)


def test_the_prediction_is_clipped_as_published(pair):
    pred, true = map(torch.from_numpy, pair)
    stretched = torch.where(pred > 0.999, pred + 3, pred)
    assert image_metrics(stretched, true)["mse"] == pytest.approx(image_metrics(pred, true)["mse"], rel=1e-4)


def test_ssim_needs_seven_voxels():
    with pytest.raises(ValueError, match="at least 7"):
        image_metrics(torch.zeros(6, 9, 9), torch.zeros(6, 9, 9), torch.ones(6, 9, 9, dtype=torch.bool))


def test_body_is_the_largest_part_with_its_lungs():
    hu = np.full((40, 30, 20), -1024.0)
    hu[5:35, 5:20, :] = 40
    hu[8:18, 8:16, 3:17] = -850  # a lung inside
    hu[2:38, 25:28, :] = 300  # the table
    body = body_mask(torch.from_numpy(hu_to_unit(hu))).numpy()
    expected = np.zeros_like(body)
    expected[5:35, 5:20, :] = True
    np.testing.assert_array_equal(body, expected)


@pytest.mark.parametrize("name", ["mae_hu", "psnr_avg", "ssim_avg", "ssim_3d", "psnr_axial_body", "mae_hu_body"])
def test_metric_class_gives_each_case_the_functions_value(pair, name):
    pred, true = map(torch.from_numpy, pair)
    metric = ImageMetric(name)
    batch_pred, batch_true = torch.stack([pred, true * 0.5])[:, None], torch.stack([true, true])[:, None]
    metric(batch_pred, batch_true)
    expected = [image_metrics(a[0], b[0])[name] for a, b in zip(batch_pred, batch_true, strict=True)]
    np.testing.assert_allclose(metric.get_buffer().squeeze(1), expected, rtol=1e-5)
    assert metric.aggregate().item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_metric_class_reports_through_ignite(pair):
    pred, true = (torch.from_numpy(volume)[None, None] for volume in pair)
    engine = Engine(lambda _engine, scale: (pred * scale, true))
    IgniteMetricHandler(ImageMetric("mae")).attach(engine, "mae")
    engine.run([1.0, 0.5])
    expected = [image_metrics(pred[0], true[0])["mae"], image_metrics(pred[0] * 0.5, true[0])["mae"]]
    assert engine.state.metrics["mae"] == pytest.approx(np.mean(expected), rel=1e-5)
    np.testing.assert_allclose(engine.state.metric_details["mae"].squeeze(), expected, rtol=1e-5)


def test_unknown_metric_is_refused_by_name():
    with pytest.raises(ValueError, match="psnr_total"):
        ImageMetric("psnr_total")


def test_without_a_body_nothing_is_known_of_it():
    """Infinite decibels of nothing would be the mean of all cases."""
    air = torch.zeros(8, 8, 8)
    values = image_metrics(air + 0.1, air)
    for name in ("psnr", "psnr_avg", "psnr_axial"):
        assert np.isfinite(values[name])
        assert np.isnan(values[f"{name}_body"])

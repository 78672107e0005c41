"""Volumes of lung and free air as the network sees them, with intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xrecon_bundle.frame import voxel_size
from xrecon_bundle.networks.fine import FineGenerator
from xrecon_bundle.networks.generator import build_generator
from xrecon_bundle.networks.thickness import PIXELS, ThicknessNet, reduced, thickness_maps
from xrecon_bundle.workflows.estimates import estimate_labels, reconstruction_warnings
from xrecon_bundle.workflows.predictor import estimate, predict_all

UNKNOWN_INTERVAL = [float("nan")] * 3


def uneven_chest() -> np.ndarray:
    """1000 voxels of right lung, 500 of left lung, 300 of free air on the left."""
    labels = np.zeros((64, 64, 64), dtype=np.uint8)
    labels[10:20, 20:30, 15:25] = 1
    labels[40:50, 20:30, 15:20] = 2
    labels[40:50, 20:30, 20:23] = 4
    return labels


def test_volumes_are_counted_on_each_side():
    found = estimate_labels(uneven_chest(), UNKNOWN_INTERVAL)
    voxel_ml = voxel_size(64) ** 3 / 1000
    wanted = {"right": (1000, 0), "left": (500, 300), "total": (1500, 300)}
    for side, (lung, air) in wanted.items():
        assert found[side]["lung_ml"] == pytest.approx(lung * voxel_ml)
        assert found[side]["pneumothorax_ml"] == pytest.approx(air * voxel_ml)
        assert found[side]["occupancy"] == pytest.approx(air / (lung + air))
    assert set(found["total"]) == {"lung_ml", "pneumothorax_ml", "occupancy"}


def test_intervals_lie_around_the_estimate_within_what_is_possible():
    total = estimate_labels(uneven_chest(), [50.0, 4000.0, 0.9])["total"]
    lung, air = total["lung_ml"], total["pneumothorax_ml"]
    assert total["lung_ml_interval"] == pytest.approx([lung - 50, lung + 50])
    assert total["pneumothorax_ml_interval"] == pytest.approx([0, air + 4000])
    assert total["occupancy_interval"] == pytest.approx([0, 1])


def test_an_empty_map_has_no_volume_and_no_occupancy():
    total = estimate_labels(np.zeros((8, 8, 8), dtype=np.uint8), UNKNOWN_INTERVAL)["total"]
    assert total == {"lung_ml": 0, "pneumothorax_ml": 0, "occupancy": 0}


def test_a_network_without_labels_estimates_nothing():
    assert estimate(torch.rand(2, 64, 64), build_generator("compact", 64)) is None


def test_what_is_estimated_is_what_the_network_labels():
    torch.manual_seed(0)
    network = FineGenerator(64).eval()
    with torch.no_grad():
        network.join_head.weight.normal_(0, 0.5)
        network.interval.copy_(torch.tensor([100.0, 10.0, 0.1]))
    image = 1000 * torch.rand(2, 64, 64)
    image[:, :5] = torch.nan
    found = estimate(image, network)
    assert predict_all(image, network).estimates == found
    unit = torch.where(torch.isnan(image), network.unknown, (image - 0) / 1000)[None]
    with torch.no_grad():
        labels = network.render_coarse(unit).coarse_labels[0].argmax(0)
    seen = float((labels == 1).sum()) * voxel_size(64) ** 3 / 1000
    assert found["right"]["lung_ml"] == pytest.approx(seen, rel=0.1)  # its grey scale is set by percentiles
    assert found["total"]["occupancy_interval"][1] <= found["total"]["occupancy"] + 0.1 + 1e-6


def test_maps_of_labels_sum_up_to_their_volumes_and_keep_sides():
    labels = torch.zeros(64, 64, 64, dtype=torch.int64)
    labels[10:20, 20:50, 15:45] = 1  # right is low x
    labels[40:50, 20:40, 15:45] = 2
    labels[40:50, 40:50, 15:25] = 4
    pa, lateral = thickness_maps(labels)
    # A pixel of the cube's middle plane; maps are in units of 100 mm.
    pixel_mm2 = (358.4 * 1.125 / 80) ** 2
    wanted = [float((labels == value).sum()) * voxel_size(64) ** 3 for value in (1, 2, 3, 4)]
    assert (pa.sum((1, 2)) * 100 * pixel_mm2).tolist() == pytest.approx(wanted, rel=0.03)
    u = [float((part.sum(1) * torch.arange(len(part))).sum() / part.sum()) for part in pa[[0, 1, 3]]]
    assert u[0] < 40 < u[1] == pytest.approx(u[2], abs=0.5)
    v = [float((part.sum(0) * torch.arange(len(part))).sum() / part.sum()) for part in pa[[1, 3]]]
    assert v[1] < v[0]  # the free air is at the apex: low z
    assert lateral.shape == (2, 80, 80)
    deep = [float((part.sum(1) * torch.arange(len(part))).sum() / part.sum()) for part in lateral]
    assert deep[1] > deep[0]  # and lies behind


@pytest.mark.parametrize("pixels", [160, 224, 320])
def test_a_pair_is_reduced_whatever_its_size_and_what_is_partly_unknown_is_unknown(pixels):
    image = torch.zeros(1, 2, pixels, pixels)
    image[:, 0, : pixels // 2] = 0.5
    image[:, 1, :, -pixels // 8 - 1 :] = -1
    small = reduced(image)
    assert small.shape == (1, 2, PIXELS, PIXELS)
    assert small[0, 0, :79].unique().tolist() == small[0, 0, 40:60].unique().tolist() == [0.5]
    assert small[0, 0, 81:].unique().tolist() == [0]
    assert small[0, 1, :, -20:].unique().tolist() == [-1]
    assert set(small[0, 1].unique().tolist()) == {-1, 0}


def test_the_network_tells_unknown_from_dark_and_one_view_what_the_other_sees():
    torch.manual_seed(0)
    network = ThicknessNet().eval()
    image = torch.rand(1, 2, PIXELS, PIXELS)
    dark, unknown, other = image.clone(), image.clone(), image.clone()
    dark[:, 0, :40], unknown[:, 0, :40] = 0, -1
    other[:, 1] = 0.5
    with torch.no_grad():
        first, *rest = (network(each)[0] for each in (image, dark, unknown, other))
    assert first.shape == (1, 4, PIXELS // 2, PIXELS // 2)
    assert not torch.allclose(rest[0], rest[1])
    assert not torch.allclose(first, rest[2])


@pytest.mark.parametrize(
    ("size", "interval", "warned"),
    [
        ("large", [0.0, 0.3], True),
        ("small", [0.0, 0.3], True),
        ("none", [0.0, 0.3], False),
        ("large", [0.05, 0.6], False),
        ("large", None, False),
    ],
)
def test_free_air_that_may_be_none_is_warned_of(size, interval, warned):
    volumes = {"lung_ml": 3000.0, "pneumothorax_ml": 700.0}
    total = volumes if interval is None else volumes | {"occupancy_interval": interval}
    sides = {"right": {"occupancy": 0.34}, "left": {"occupancy": 0.01}, "total": {**volumes, "size": size}}
    assert reconstruction_warnings(sides, {"total": total}) == (
        [
            "the free air in this reconstruction (right 34 %, left 1 %) is no sign of a pneumothorax: as the network "
            "sees it, 0 to 30 % of both cavities together fit these radiographs"
        ]
        if warned
        else []
    )


def test_a_side_without_a_lung_is_left_out():
    total = {"lung_ml": 1500.0, "pneumothorax_ml": 500.0}
    sides = {"right": {"occupancy": 0.25}, "left": {"occupancy": float("nan")}, "total": {**total, "size": "large"}}
    (said,) = reconstruction_warnings(sides, {"total": total | {"occupancy_interval": [0.0, 0.3]}})
    assert "(right 25 %)" in said


@pytest.mark.parametrize(("lung_ml", "warned"), [(3000.0, False), (4200.0, False), (5500.0, True), (1000.0, True)])
def test_lungs_that_the_network_sees_otherwise_are_warned_of(lung_ml, warned):
    measured = {"total": {"lung_ml": 3500.0, "pneumothorax_ml": 0.0, "size": "none"}}
    said = reconstruction_warnings(measured, {"total": {"lung_ml": lung_ml, "pneumothorax_ml": 0.0}})
    assert [f"the network {lung_ml / 1000:.1f} L" in text for text in said] == [True] * warned


def test_weights_without_estimates_are_not_warned_of():
    assert reconstruction_warnings({"total": {"size": "large"}}, None) == []

"""Volumes of lung and free air from the radiographs alone, with intervals."""

from __future__ import annotations

import pytest
import torch

from xrecon_bundle.anatomy.pneumothorax import Pneumothorax
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.frame import detector_size_mm, voxel_size
from xrecon_bundle.networks.thickness import (
    PIXELS,
    WEIGHTS,
    ThicknessNet,
    thickness_maps,
    thickness_net,
    volumes_of,
)
from xrecon_bundle.projection.radiographs import simulate_radiographs
from xrecon_bundle.workflows.estimates import estimate

THICK = 2.0  # 100 mm


class Known(torch.nn.Module):
    """Sees right lung where a pixel is bright, left free air where it is unknown."""

    interval = torch.tensor([50.0, 4000.0, 0.1])

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        small = image[:, :1, ::2, ::2]
        none = torch.zeros_like(small)
        return [THICK * torch.cat([(small > 0.5).float(), none, none, (small < 0).float()], dim=1), none]


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xrecon_bundle.workflows.estimates.thickness_net", Known)


def half_bright_part_unknown(pixels: int) -> torch.Tensor:
    image = torch.zeros(2, pixels, pixels)
    image[:, : pixels // 2] = 1000
    image[:, -pixels // 8 :] = torch.nan
    return image


@pytest.mark.parametrize("pixels", [160, 224, 320])
def test_volumes_are_what_the_maps_sum_up_to_whatever_the_size(known, pixels):
    found = estimate(half_bright_part_unknown(pixels))
    plane = (detector_size_mm() / 1.125) ** 2  # mm^2 of the cube's middle plane that the detector shows
    assert found["right"]["lung_ml"] == pytest.approx(plane / 2 * 200 / 1000, rel=0.03)
    assert found["left"]["pneumothorax_ml"] == pytest.approx(plane / 8 * 200 / 1000, rel=0.03)
    assert found["left"]["lung_ml"] == found["right"]["pneumothorax_ml"] == 0
    assert found["left"]["occupancy"] == pytest.approx(1)
    assert found["total"]["occupancy"] == pytest.approx(0.2, abs=0.01)


def test_intervals_lie_around_the_estimate_within_what_is_possible(known):
    total = estimate(half_bright_part_unknown(160))["total"]
    lung, air = total["lung_ml"], total["pneumothorax_ml"]
    assert total["lung_ml_interval"] == pytest.approx([lung - 50, lung + 50])
    assert total["pneumothorax_ml_interval"] == pytest.approx([max(0, air - 4000), air + 4000])
    assert total["occupancy_interval"] == pytest.approx([total["occupancy"] - 0.1, total["occupancy"] + 0.1])


def test_maps_of_labels_sum_up_to_their_volumes_and_keep_sides():
    labels = torch.zeros(64, 64, 64, dtype=torch.int64)
    labels[10:20, 20:50, 15:45] = 1  # right is low x
    labels[40:50, 20:40, 15:45] = 2
    labels[40:50, 40:50, 15:25] = 4
    pa, lateral = thickness_maps(labels)
    volumes = volumes_of(pa[None])
    voxel = voxel_size(64) ** 3 / 1000
    wanted = [float((labels == value).sum()) * voxel for value in (1, 2, 3, 4)]
    assert [float(volume) for volume in volumes] == pytest.approx(wanted, rel=0.02)
    u = [float((part.sum(1) * torch.arange(len(part))).sum() / part.sum()) for part in pa[[0, 1, 3]]]
    assert u[0] < 40 < u[1] == pytest.approx(u[2], abs=0.5)
    v = [float((part.sum(0) * torch.arange(len(part))).sum() / part.sum()) for part in pa[[1, 3]]]
    assert v[1] < v[0]  # the free air is at the apex: low z
    assert lateral.shape == (2, 80, 80)
    deep = [float((part.sum(1) * torch.arange(len(part))).sum() / part.sum()) for part in lateral]
    assert deep[1] > deep[0]  # and lies behind


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


def test_the_weights_that_ship_are_small_and_carry_intervals():
    assert WEIGHTS.stat().st_size < 4e6
    assert thickness_net().interval.isfinite().all()


def test_a_pneumothorax_of_a_synthetic_chest_is_seen_on_its_side():
    found = {}
    for side in (None, "right", "left"):
        chest = synthesize_thorax(3, 64, Pneumothorax(side, 0.5) if side else None)
        found[side] = estimate(simulate_radiographs(torch.from_numpy(chest.ct).float(), 160))
    for side, other in (("right", "left"), ("left", "right")):
        gain = found[side][side]["occupancy"] - found[None][side]["occupancy"]
        assert gain > 0.1
        assert gain > 2 * abs(found[side][other]["occupancy"] - found[None][other]["occupancy"])

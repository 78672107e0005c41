from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from xrecon_bundle import frame
from xrecon_bundle.datasets.cases import list_cases
from xrecon_bundle.datasets.cohort import write_synthetic_cohort
from xrecon_bundle.frame import radiograph_to_unit
from xrecon_bundle.projection.radiographs import simulate_radiographs
from xrecon_bundle.transforms import RandScanRanged, RandTissueDensityd

SIZE = 32


@pytest.mark.parametrize("seed", range(20))
def test_the_bent_scale_keeps_air_and_the_order_of_tissues(seed):
    transform = RandTissueDensityd("label", prob=1.0, strength=2.0).set_random_state(seed)
    hu = torch.linspace(-1024, 1500, 500)[None]
    bent = transform({"label": hu})["label"]
    assert bent[0, 0] == -1024
    assert (bent.diff() > 0).all()
    assert (bent - hu).abs().max() > 5


def test_the_bent_scale_keeps_the_affine_and_is_the_same_for_the_same_seed():
    ct = MetaTensor(torch.rand(1, 4, 4, 4) * 1000 - 900, affine=torch.as_tensor(frame.cube_affine(4)))
    first, second = (RandTissueDensityd("label", 1.0).set_random_state(3)({"label": ct})["label"] for _ in range(2))
    torch.testing.assert_close(first.as_tensor(), second.as_tensor())
    torch.testing.assert_close(first.affine, ct.affine)


@pytest.mark.parametrize(("top", "bottom"), [(50.0, 0.0), (0.0, 70.0), (30.0, 30.0)])
def test_the_scan_ends_where_drawn_and_nothing_else_changes(top, bottom):
    """z grows to the feet: ``top_mm`` is lost at index 0."""
    ct = torch.full((1, SIZE, SIZE, SIZE), 40.0)
    transform = RandScanRanged("label", prob=1.0, top_mm=top, bottom_mm=bottom).set_random_state(5)
    cut = transform({"label": ct})["label"]
    lost = [round(mm / frame.voxel_size(SIZE)) for mm in transform.lost_mm]
    assert 0 < sum(lost) <= (top + bottom) / frame.voxel_size(SIZE) + 1
    empty = (cut == frame.AIR_HU).flatten(0, 2).all(dim=0)
    expected = torch.zeros(SIZE, dtype=torch.bool)
    expected[: lost[0]] = True
    expected[SIZE - lost[1] :] = True
    torch.testing.assert_close(empty, expected)
    assert (cut[..., ~expected] == 40.0).all()


def test_the_overlay_varies_the_patient_and_simulates_what_became_of_it(tmp_path):
    """`configs/augment.yaml`: another patient at each call, and radiographs that belong to the CT beside them."""
    write_synthetic_cohort(tmp_path, cases=1, spatial_size=SIZE, seed=4, workers=1)
    parser = ConfigParser()
    parser.read_config(["configs/train.yaml", "configs/augment.yaml"])
    parser["spatial_size"] = SIZE
    preprocessing = parser.get_parsed_content("train#preprocessing").set_random_state(0)
    entry = list_cases(tmp_path)[0]
    first, second = preprocessing(entry), preprocessing(entry)
    assert first["image"].shape == (2, SIZE, SIZE)
    assert first["label"].shape == (1, SIZE, SIZE, SIZE)
    assert not torch.allclose(first["label"], second["label"])
    for sample in (first, second):
        belonging = radiograph_to_unit(simulate_radiographs(frame.unit_to_hu(sample["label"])))
        for seen, wanted in zip(sample["image"], belonging, strict=True):
            assert np.corrcoef(seen.ravel(), np.asarray(wanted).ravel())[0, 1] > 0.97

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from xrecon_bundle import frame
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.datasets.cohort import write_synthetic_cohort
from xrecon_bundle.files import InputError
from xrecon_bundle.transforms.random_patients import RandPseudoPatientd, RandSynthesizeThoraxd

SIZE = 32


@pytest.mark.parametrize(("chance", "air"), [(0.0, False), (1.0, True)])
def test_a_synthetic_chest_at_every_call_another(chance, air):
    transform = RandSynthesizeThoraxd("label", SIZE, pneumothorax_prob=chance).set_random_state(2)
    first, second = (transform({"case": "a"}) for _ in range(2))
    again = RandSynthesizeThoraxd("label", SIZE, pneumothorax_prob=chance).set_random_state(2)({"case": "a"})
    assert first["case"] == "a"
    assert first["label"].shape == first["segmentation"].shape == (1, SIZE, SIZE, SIZE)
    assert nibabel.aff2axcodes(first["label"].affine.numpy()) == tuple(frame.AXCODES)
    assert bool((first["segmentation"] >= 3).any()) is air
    assert not torch.equal(first["label"].as_tensor(), second["label"].as_tensor())
    torch.testing.assert_close(first["label"].as_tensor(), again["label"].as_tensor(), rtol=0, atol=0)


@pytest.mark.parametrize("known", [True, False])
def test_a_pseudo_patient_moves_ct_and_label_map_together(known):
    chest = synthesize_thorax(3, 48)
    affine = torch.as_tensor(frame.cube_affine(48, (10.0, 20.0, 30.0)))
    data = {"label": MetaTensor(torch.as_tensor(chest.ct).float()[None], affine=affine)}
    if known:
        data["segmentation"] = torch.as_tensor(chest.segmentation.astype(np.uint8))[None]
    moved = RandPseudoPatientd("label", prob=1.0).set_random_state(1)(data)
    assert not np.array_equal(np.asarray(moved["label"])[0], chest.ct)
    torch.testing.assert_close(moved["label"].affine, affine)
    lungs = np.isin(np.asarray(moved["segmentation"])[0], (1, 2))
    hu = np.asarray(moved["label"])[0]
    assert np.median(hu[lungs]) < -600
    right, left = (np.argwhere(np.asarray(moved["segmentation"])[0] == side).mean(axis=0)[0] for side in (1, 2))
    assert right < left  # nobody is mirrored


def test_prob_0_hands_the_ct_on():
    data = {"label": torch.zeros(1, 8, 8, 8)}
    assert RandPseudoPatientd("label", prob=0.0)(data)["label"] is data["label"]


def test_a_ct_without_lungs_is_refused():
    with pytest.raises(InputError, match="no lung"):
        RandPseudoPatientd("label", prob=1.0)({"label": torch.full((1, 32, 32, 32), 40.0)})


@pytest.mark.parametrize(("overlay", "size"), [("synthetic", SIZE), ("few_cts", 64)])  # lungs can be found from 64 on
def test_the_overlay_is_an_endless_source(tmp_path, overlay, size):
    write_synthetic_cohort(tmp_path, cases=3, spatial_size=size, seed=4, workers=1, pneumothorax_fraction=0)
    parser = ConfigParser()
    parser.read_config(["configs/train.yaml", "configs/augment.yaml", f"configs/{overlay}.yaml"])
    parser["spatial_size"], parser["dataset_dir"], parser["cases_per_epoch"] = size, str(tmp_path), 1
    dataset = parser.get_parsed_content("train#dataset")
    dataset.transform.set_random_state(5)
    first, second = dataset[0], dataset[0]
    assert first["image"].shape == (2, size, size)
    assert first["label"].shape == (1, size, size, size)
    assert 0 <= first["label"].min() < first["label"].max() <= 1
    assert not torch.allclose(first["label"], second["label"], atol=0.05)

"""The network's units in configs, and a case's way into them, give the tensors that MONAI's own transforms give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, MetaTensor
from monai.transforms import (
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    RandGaussianNoised,
    Resized,
    ScaleIntensityRanged,
)

from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.datasets.cases import list_cases, write_case
from xrecon_bundle.files import InputError
from xrecon_bundle.frame import cube_affine
from xrecon_bundle.transforms import CasePreprocessingd, HUToUnitd, RadiographToUnitd, UnitToHUd

HU = {"a_min": -1024, "a_max": 1476, "b_min": 0.0, "b_max": 1.0, "clip": True}
UNIT = {"a_min": 0.0, "a_max": 1.0, "b_min": -1024, "b_max": 1476, "clip": True}


def values(low: float, high: float) -> MetaTensor:
    generator = torch.Generator().manual_seed(0)
    random = torch.rand(1, 12, 11, 10, generator=generator) * (high - low) + low
    return MetaTensor(random, affine=torch.as_tensor(cube_affine(12)), meta={"filename_or_obj": "ct.nii.gz"})


@pytest.mark.parametrize(
    ("ours", "monai", "low", "high"),
    [
        pytest.param(HUToUnitd("ct"), ScaleIntensityRanged("ct", **HU), -2000, 3000, id="HU to unit"),
        pytest.param(
            UnitToHUd("ct"),
            Compose([ScaleIntensityRanged("ct", **UNIT), AsDiscreted("ct", rounding="torchrounding")]),
            *(-0.2, 1.2),
            id="unit to whole HU",
        ),
    ],
)
def test_same_bits_as_monai_and_the_affine_stays(ours, monai, low: float, high: float) -> None:
    given = values(low, high)
    before = given.clone()
    result, expected = ours({"ct": given, "case": "a"}), monai({"ct": given})["ct"]
    assert torch.equal(result["ct"].as_tensor(), expected.as_tensor())
    assert result["ct"].dtype == torch.float32
    assert result["ct"].meta["filename_or_obj"] == "ct.nii.gz"
    assert torch.equal(result["ct"].affine, given.affine)
    assert result["case"] == "a"
    assert torch.equal(given, before)


def test_integers_become_units_too() -> None:
    hu = torch.tensor([[-1024, 226, 1476, 3000]], dtype=torch.int16)
    assert HUToUnitd("ct")({"ct": hu})["ct"].tolist() == [[0.0, 0.5, 1.0, 1.0]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    case = synthesize_thorax(0, 32)
    write_case(folder / "a", case.ct, cube_affine(32, (5, -170, -200)), case.segmentation)
    return folder


def as_written_out(size: int, keys: list[str]) -> Compose:
    """The list of MONAI transforms for which CasePreprocessingd stands."""
    volumes = keys[1:]
    return Compose(
        [
            LoadImaged(keys),
            EnsureChannelFirstd("image", channel_dim=-1),
            EnsureChannelFirstd(volumes, channel_dim="no_channel"),
            Resized("image", [size] * 2, mode="area"),
            Resized(volumes, [size] * 3, mode=["area", "nearest"][: len(volumes)]),
            RadiographToUnitd("image"),
            ScaleIntensityRanged("label", **HU),
        ]
    )


@pytest.mark.parametrize("size", [32, 24])
@pytest.mark.parametrize("optional", [[], ["segmentation"]], ids=["train", "evaluate"])
def test_a_case_comes_out_as_from_the_written_out_list(dataset: Path, size: int, optional: list[str]) -> None:
    (case,) = list_cases(dataset)
    keys = ["image", "label", *optional]
    given = {key: case[key] for key in keys}
    ours, expected = CasePreprocessingd(keys, size)(given), as_written_out(size, keys)(given)
    for key in keys:
        assert torch.equal(ours[key].as_tensor(), expected[key].as_tensor()), key
        np.testing.assert_allclose(ours[key].affine, expected[key].affine)
        assert ours[key].meta["filename_or_obj"] == case[key]


def test_the_label_map_may_be_missing_the_ct_of_a_training_case_not(dataset: Path) -> None:
    (case,) = list_cases(dataset)
    del case["segmentation"]
    preprocess = CasePreprocessingd(["image", "label", "segmentation"], 32, allow_missing_keys=True)
    assert set(preprocess(case)) == {"image", "label", "case"}
    with pytest.raises(InputError, match="gone"):
        CasePreprocessingd(["image", "label"], 32)({**case, "label": "gone.nii.gz"})
    with pytest.raises(KeyError):
        CasePreprocessingd(["image", "label", "segmentation"], 32)(case)


def test_a_caching_dataset_keeps_a_case_that_is_not_varied(dataset: Path) -> None:
    cases = list_cases(dataset)
    transform = Compose([CasePreprocessingd(["image", "label"], 32), RandGaussianNoised("image", prob=1.0)])
    cached = CacheDataset(cases, transform, progress=False)
    assert cached._cache[0]["label"].shape == (1, 32, 32, 32)
    assert not torch.equal(cached[0]["image"], cached[0]["image"])

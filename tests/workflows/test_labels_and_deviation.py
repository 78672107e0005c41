"""What the fine network tells beside the CT: labels and deviation."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from radiograph_cases import grey_levels

from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.files import InputError
from xrecon_bundle.frame import HU_SPAN
from xrecon_bundle.networks.fine import FineGenerator
from xrecon_bundle.networks.generator import build_generator
from xrecon_bundle.networks.weights import save_weights
from xrecon_bundle.projection.radiographs import simulate_radiographs
from xrecon_bundle.workflows.predictor import Predictor, predict, predict_all
from xrecon_bundle.workflows.reconstruct import reconstruct_files


@pytest.fixture(scope="module")
def network() -> FineGenerator:
    torch.manual_seed(0)
    network = FineGenerator(64).eval()
    with torch.no_grad():
        network.middle_head.weight.normal_(0, 0.05)
        network.middle_head.bias[:1] = 2 * float(np.log(100 / HU_SPAN))
    return network


@pytest.fixture(scope="module")
def chest_radiographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("radiographs")
    pair = simulate_radiographs(torch.from_numpy(synthesize_thorax(0, 64).ct).float(), 128).numpy()
    paths = [folder / f"{view}.png" for view in ("pa", "lateral")]
    for path, image in zip(paths, pair, strict=True):
        Image.fromarray(grey_levels(image, 255)).save(path)
    return paths


def test_labels_and_deviation_lie_on_the_grid_of_the_ct(network):
    image = torch.rand(2, 64, 64)
    found = predict_all(image, network)
    np.testing.assert_array_equal(found.hu, predict(image, network))
    assert found.labels.shape == found.deviation.shape == found.hu.shape
    with torch.no_grad():
        rendering = network.render(image[None])
    voxel = (20, 41, 50)
    half = tuple(place // 2 for place in voxel)
    assert found.labels[voxel] == rendering.labels[(0, slice(None), *half)].argmax()
    expected = HU_SPAN * float((0.5 * rendering.log_variance[(0, 0, *half)]).exp())
    assert found.deviation[voxel] == pytest.approx(expected, abs=2)
    assert 30 < np.median(found.deviation) < 300


def test_the_deviation_is_calibrated(network):
    image = torch.rand(2, 64, 64)
    plain = predict_all(image, network).deviation
    network.deviation_factor.fill_(1.5)
    calibrated = predict_all(image, network).deviation
    network.deviation_factor.fill_(1.0)
    assert abs(calibrated - 1.5 * plain).max() <= 1.5


def test_other_networks_tell_the_ct_alone():
    found = predict_all(torch.rand(2, 64, 64), build_generator("compact", 64).eval())
    assert found.labels is found.deviation is None


def test_they_are_written_beside_the_ct(network, chest_radiographs, tmp_path):
    save_weights(network.state_dict(), tmp_path / "fine.pt", half=True)
    predictor = Predictor(tmp_path / "fine.pt")
    assert predictor.tells
    pa, lateral = chest_radiographs
    reconstruct_files(
        pa,
        lateral,
        tmp_path / "ct.nii.gz",
        predictor,
        labels=tmp_path / "labels.nii.gz",
        deviation=tmp_path / "deviation.nii.gz",
    )
    ct, labels, deviation = (nibabel.load(tmp_path / f"{name}.nii.gz") for name in ("ct", "labels", "deviation"))
    for other in (labels, deviation):
        assert other.shape == ct.shape
        np.testing.assert_allclose(other.affine, ct.affine)
    page = (tmp_path / "ct.html").read_text()
    assert "deviation" in page


@pytest.mark.parametrize("option", ["labels", "deviation"])
def test_weights_that_cannot_tell_are_said_at_once(option, chest_radiographs, tmp_path):
    save_weights(build_generator("compact", 64).state_dict(), tmp_path / "coarse.pt", 64)
    arguments = {option: tmp_path / "other.nii.gz"}
    predictor = Predictor(tmp_path / "coarse.pt")
    with pytest.raises(InputError, match=r"coarse\.pt: .*neither labels nor a deviation"):
        reconstruct_files(*chest_radiographs, tmp_path / "ct.nii.gz", predictor, **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["coarse.pt"]

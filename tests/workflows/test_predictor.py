"""One predictor: whoever calls, the same volume and the same report."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.datasets.cases import file_sha256, write_case
from xrecon_bundle.files import InputError, write_nifti
from xrecon_bundle.fingerprint import code_fingerprint
from xrecon_bundle.frame import cube_affine, radiograph_affine, radiograph_to_unit, unit_to_hu
from xrecon_bundle.networks import build_generator
from xrecon_bundle.networks.weights import SPATIAL_SIZE, load_generator, save_weights
from xrecon_bundle.placement.radiographs import fill_unknown
from xrecon_bundle.workflows.bundle import ReportReconstructiond
from xrecon_bundle.workflows.predictor import Predictor, gate, predict

SIZE = 64
CENTRE = (5, -170, -200)
PARTS = {"notice", "version", "code", "inputs", "weights", "spatial_size", "loading"} | {
    *("placement", "geometry", "consistency", "estimates", "input_quality", "warnings")
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("case")
    write_case(folder, synthesize_thorax(0, SIZE).ct, cube_affine(SIZE, CENTRE))
    return folder / "pa.nii.gz", folder / "lateral.nii.gz"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    save_weights(build_generator("compact", SIZE).state_dict(), path)
    return path


class HalfFull(torch.nn.Module):
    """Remembers its input; half-full everywhere."""

    def __init__(self, unknown: float) -> None:
        super().__init__()
        self.spatial_size, self.unknown = 8, unknown
        self.level = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen = image
        return self.level * torch.ones(1, 1, 8, 8, 8)


def scripted(generator: torch.nn.Module) -> torch.nn.Module:
    stored = io.BytesIO()
    torch.jit.save(torch.jit.script(generator), stored)
    stored.seek(0)
    return torch.jit.load(stored)


def test_weights_a_network_and_its_torchscript_give_one_result_and_one_report(files, weights) -> None:
    by_file = Predictor(weights)(files)
    network = load_generator(weights)
    by_network, by_script = (
        Predictor(network, weights=weights)(files),
        Predictor(scripted(network), weights=weights)(files),
    )
    assert np.array_equal(by_file.hu, by_network.hu)
    assert by_file.report == by_network.report
    assert np.abs(by_file.hu.astype(float) - by_script.hu).max() <= 1  # TorchScript rounds elsewhere
    same = PARTS - {"consistency", "warnings"}
    assert {name: by_script.report[name] for name in same} == {name: by_file.report[name] for name in same}


def test_the_report_has_every_part(files, weights) -> None:
    result = Predictor(weights)(files)
    report = result.report
    assert report.keys() == PARTS
    assert report["code"] == code_fingerprint()
    assert report["weights"] == {"file": str(weights), "sha256": file_sha256(weights)}
    assert [item["sha256"] for item in report["inputs"]] == [file_sha256(path) for path in files]
    assert [report["placement"][view]["scale_from"] for view in ("pa", "lateral")] == ["file", "file"]
    assert result.radiographs.shape == (2, SIZE, SIZE)
    assert np.allclose(result.affine, cube_affine(SIZE, CENTRE), atol=1e-3)
    assert report["geometry"]["affine"] == result.affine.tolist()


def test_a_network_without_a_file_has_no_weights_in_its_report(files) -> None:
    assert Predictor(build_generator("compact", SIZE)).origin(files)["weights"] is None


@pytest.mark.parametrize("unknown", [0.0, -1.0])
def test_a_network_gets_what_it_wants_where_the_film_shows_nothing(unknown: float) -> None:
    image = torch.rand(2, 8, 8) * 100
    image[0, :3] = torch.nan
    network = HalfFull(unknown)
    hu = predict(image, network)
    assert (hu == round(unit_to_hu(0.5))).all()
    assert torch.all(network.seen[0, 0, :3] == unknown)
    assert torch.equal(network.seen[0, 1], radiograph_to_unit(image[1:])[0])
    known = radiograph_to_unit(image[:1, 3:])[0]  # the unknown part does not count for the scale
    assert torch.equal(network.seen[0, 0, 3:], known)


def test_what_a_film_does_not_show_is_as_dark_as_its_darkest() -> None:
    image = torch.tensor([[[torch.nan, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, torch.nan]]])
    assert fill_unknown(image).tolist() == [[[2.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 5.0]]]


def test_the_gate_refuses_what_is_no_chest_unless_told_not_to(files, weights) -> None:
    placed = Predictor(weights).read(files)
    noise = placed._replace(image=torch.rand_like(placed.image))
    with pytest.raises(InputError, match=r"pa.nii.gz and .*lateral.nii.gz: the PA view is no chest .*accept_any_view"):
        gate(noise, files)
    assert gate(noise, files, refuse=False).refusals
    assert not gate(placed, files).refusals


@pytest.mark.parametrize(
    ("written", "asked", "size"),
    [
        pytest.param(96, None, 96, id="the file says"),
        pytest.param(96, 64, 64, id="the user says"),
        pytest.param(None, None, SPATIAL_SIZE, id="nobody says"),
    ],
)
def test_weights_say_their_size(written: int | None, asked: int | None, size: int, tmp_path: Path) -> None:
    state = build_generator("compact", written or SIZE).state_dict()
    if written is None:
        torch.save(dict(state), tmp_path / "model.pt")
    else:
        save_weights(state, tmp_path / "model.pt")
    assert Predictor(tmp_path / "model.pt", asked).spatial_size == size


@pytest.mark.parametrize("stated", ["64", -64, 10**9, 3.5, None, {"a": 1}])
def test_a_size_that_is_none_is_not_believed(stated: object, tmp_path: Path) -> None:
    state = build_generator("compact", SIZE).state_dict()
    state._metadata[""]["spatial_size"] = stated
    torch.save(state, tmp_path / "model.pt")
    assert load_generator(tmp_path / "model.pt").spatial_size == SPATIAL_SIZE


def test_a_style_file_counts_by_its_content(files, weights, tmp_path: Path) -> None:
    style = tmp_path / "style.nii.gz"
    style.write_bytes(b"one")
    before = Predictor(weights, style=str(style)).origin(files)
    style.write_bytes(b"another")
    assert Predictor(weights, style=str(style)).origin(files)["loading"] != before["loading"]
    assert Predictor(weights, style="clahe").origin(files)["loading"] == {"style": "clahe"}


def test_in_a_bundles_folder_what_the_gate_refuses_is_a_warning(files, weights, tmp_path: Path) -> None:
    pair = tmp_path / "radiographs.nii.gz"
    noise = np.random.default_rng(0).random((SIZE, SIZE, 2)).astype(np.float32)
    write_nifti(pair, noise, radiograph_affine(SIZE, CENTRE))
    hu = MetaTensor(torch.zeros(1, SIZE, SIZE, SIZE), affine=torch.as_tensor(cube_affine(SIZE, CENTRE)))
    hu.meta |= {"filename_or_obj": str(pair), "saved_to": str(tmp_path / "case_ct.nii.gz")}
    result = ReportReconstructiond("pred", load_generator(weights), str(weights))({"pred": hu})["result"]
    assert "no chest radiograph" in result["warnings"][0]
    assert json.loads((tmp_path / "case_ct.json").read_text()) == result
    with pytest.raises(InputError, match="no chest radiograph"):
        Predictor(weights)([pair])


def test_one_biplanar_file_needs_no_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no_such\.nii\.gz: the NIfTI file cannot be read"):
        Predictor(build_generator("compact", SIZE))(str(tmp_path / "no_such.nii.gz"))


@pytest.mark.parametrize("number", [0, 3])
def test_a_pair_is_one_file_or_two(number: int, files) -> None:
    with pytest.raises(InputError, match="a PA and a lateral file"):
        Predictor(build_generator("compact", SIZE))([files[0]] * number)

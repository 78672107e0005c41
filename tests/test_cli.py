"""The command line: what each command leaves, exit codes, one clear error and nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from xrecon_bundle import cli
from xrecon_bundle.data import write_case
from xrecon_bundle.data.thorax import synthesize_thorax
from xrecon_bundle.frame import cube_affine
from xrecon_bundle.networks import build_generator
from xrecon_bundle.networks.published import published_shapes
from xrecon_bundle.networks.weights import save_weights

SIZE = 64
CENTRE = (5.0, -170.0, -200.0)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic chest as `xrecon simulate` writes a CT."""
    folder = tmp_path_factory.mktemp("case") / "chest"
    write_case(folder, synthesize_thorax(0, SIZE).ct, cube_affine(SIZE, CENTRE))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    save_weights(build_generator("compact", SIZE).state_dict(), path)
    return path


def xrecon(*arguments: object) -> None:
    cli.main([str(argument) for argument in arguments])


def failure(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line that a failing command leaves."""
    with pytest.raises(SystemExit) as exit_:
        xrecon(*arguments)
    assert exit_.value.code not in (0, None)
    return str(exit_.value.code)


@pytest.mark.parametrize("suffix", ["nii.gz", "png"])
def test_two_files_become_a_ct(suffix: str, case: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "ct.nii.gz"
    xrecon("reconstruct", case / f"pa.{suffix}", case / f"lateral.{suffix}", "--output", output, "--model", model)
    image = nibabel.load(output)
    centre = CENTRE if suffix == "nii.gz" else (0, 0, 0)  # a PNG does not say where the patient lay
    assert image.shape == (SIZE,) * 3
    assert image.get_data_dtype() == np.int16
    assert np.allclose(image.affine, cube_affine(SIZE, centre), atol=1e-3)
    assert image.get_fdata().min() >= -1024


def test_a_volume_is_its_own_perfect_reconstruction(case: Path, capsys: pytest.CaptureFixture) -> None:
    xrecon("evaluate", case / "ct.nii.gz", case / "ct.nii.gz")
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["mae_hu"] == metrics["offset_mm"] == 0
    assert metrics["ssim_avg"] == pytest.approx(1)


def test_simulating_a_simulated_ct_keeps_it(case: Path, tmp_path: Path) -> None:
    xrecon("simulate", case / "ct.nii.gz", "--output_dir", tmp_path / "again", "--spatial_size", SIZE)
    assert {path.name for path in (tmp_path / "again").iterdir()} == {path.name for path in case.iterdir()}
    first, second = (nibabel.load(folder / "ct.nii.gz") for folder in (case, tmp_path / "again"))
    shift = np.abs(first.affine[:3, 3] - second.affine[:3, 3])
    assert shift.max() < 15  # the thorax is found again


def test_every_command_has_help() -> None:
    for command in ((), *((name,) for name in cli.COMMANDS)):
        result = subprocess.run(
            [sys.executable, "-m", "xrecon_bundle", *command, "--help"], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0
        assert "NAME\n    xrecon" in result.stdout + result.stderr
        assert "FIRE" not in result.stdout + result.stderr


def colour_photograph(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((600, 600)).save(path)


def grey_stored_as_colour(path: Path, case: Path) -> None:
    grey = np.asarray(Image.open(case / "pa.png"), dtype=float)
    eight_bit = (grey / grey.max() * 255).astype(np.uint8)
    Image.fromarray(np.stack([eight_bit] * 3, axis=-1)).save(path, quality=95)


def test_a_grey_jpeg_stored_as_colour_is_fine(case: Path, model: Path, tmp_path: Path) -> None:
    grey_stored_as_colour(tmp_path / "pa.jpg", case)
    output = tmp_path / "ct.nii.gz"
    xrecon("reconstruct", tmp_path / "pa.jpg", case / "lateral.png", "--output", output, "--model", model)
    assert output.exists()


def head_ct(path: Path) -> None:
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 64)] * 3, indexing="ij"))
    radius = np.sqrt((grid**2).sum(0))
    hu = np.where(radius < 0.75, 35.0, np.where(radius < 0.85, 900.0, -1000.0)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([3.6, 3.6, 3.6, 1])), path)


BAD_RECONSTRUCTIONS = {
    "missing lateral": ({"lateral": "none.png"}, "none.png"),
    "the same file twice": ({"lateral": "pa.png"}, "same picture"),
    "colour photograph": ({"pa": "colour.jpg"}, "colour.jpg"),
    "corrupt NIfTI": ({"pa": "corrupt.nii.gz"}, "corrupt.nii.gz"),
    "corrupt PNG": ({"pa": "corrupt.png"}, "corrupt.png"),
    "a text file": ({"pa": "notes.txt"}, "notes.txt"),
    "a CT for a radiograph": ({"pa": "ct.nii.gz"}, "ct.nii.gz"),
    "no weights": ({"--model": "none.pt"}, "none.pt"),
    "weights that are none": ({"--model": "notes.txt"}, "notes.txt"),
    "an output that is no NIfTI": ({"--output": "ct.jpg"}, "ct.jpg"),
    "another size than the weights'": ({"--spatial_size": "50"}, "50"),
}


@pytest.mark.parametrize("name", BAD_RECONSTRUCTIONS)
def test_bad_input_is_one_clear_error(
    name: str, case: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for path in case.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    colour_photograph(tmp_path / "colour.jpg")
    (tmp_path / "corrupt.nii.gz").write_bytes((case / "pa.nii.gz").read_bytes()[:200])
    (tmp_path / "corrupt.png").write_bytes((case / "pa.png").read_bytes()[:200])
    (tmp_path / "notes.txt").write_text("not an image")
    before = set(tmp_path.iterdir())
    changed, named = BAD_RECONSTRUCTIONS[name]
    arguments = {"pa": "pa.png", "lateral": "lateral.png", "--output": "out.nii.gz", "--model": model} | changed
    paths = {key: value if key == "--spatial_size" else tmp_path / value for key, value in arguments.items()}
    flags = [part for key, value in paths.items() if key.startswith("--") for part in (key, value)]
    message = failure(capsys, "reconstruct", paths["pa"], paths["lateral"], *flags)
    assert message.startswith("xrecon: error: ")
    assert named in message
    assert "\n" not in message
    assert set(tmp_path.iterdir()) == before


def test_a_ct_of_a_head_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    head_ct(tmp_path / "head.nii.gz")
    message = failure(capsys, "simulate", tmp_path / "head.nii.gz", "--output_dir", tmp_path / "out")
    assert "head.nii.gz" in message
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    message = failure(capsys, "prepare", tmp_path / "empty", "--output_dir", tmp_path / "out")
    assert "empty" in message
    assert not (tmp_path / "out").exists()


def test_a_misspelt_flag_fails_before_any_work(case: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_:
        xrecon("simulate", case / "ct.nii.gz", "--output_dir", tmp_path / "out", "--spatial_sise", 64)
    assert exit_.value.code == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_called_001_stays_text(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    xrecon("simulate", case / "ct.nii.gz", "--output_dir", "001", "--spatial_size", SIZE)
    assert (tmp_path / "001" / "ct.nii.gz").exists()


def test_a_released_checkpoint_becomes_weights_that_the_bundle_loads(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {name: 0.05 * torch.randn(shape, generator=generator) for name, shape in published_shapes(SIZE).items()}
    torch.save({"iters": 1, "epoch": 100, "state_dict": state, "lr": 0.0}, tmp_path / "100_net_G.pth")
    weights = tmp_path / "published.pt"
    xrecon("convert-published", tmp_path / "100_net_G.pth", "--output", weights, "--spatial_size", SIZE)
    assert "never reaches the output" in capsys.readouterr().out
    arguments = ["--model", weights, "--spatial_size", SIZE]
    xrecon("reconstruct", case / "pa.png", case / "lateral.png", "--output", tmp_path / "ct.nii.gz", *arguments)
    assert np.ptp(nibabel.load(tmp_path / "ct.nii.gz").get_fdata()) > 0

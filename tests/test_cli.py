"""The command line: what each command leaves, exit codes, one clear error and nothing half-written."""

from __future__ import annotations

import functools
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from chest_phantom import dicom_slices, phantom, phantom_affine, save_dicom
from PIL import Image
from radiograph_cases import grey_levels, write_dicom

from xrecon_bundle import __version__, cli
from xrecon_bundle.datasets.cases import file_sha256
from xrecon_bundle.dicom.series import choose_series, load_series, scan_dicom
from xrecon_bundle.dicom.write import write_ct_series
from xrecon_bundle.frame import cube_affine
from xrecon_bundle.io.readers import dicom_files
from xrecon_bundle.networks.published import published_shapes
from xrecon_bundle.quality.consistency import LOW_SCORE
from xrecon_bundle.segmentation.ptxseg import SEGMENTERS

SIZE = 64
CENTRE = (5.0, -170.0, -200.0)


def xrecon(*arguments: object) -> None:
    cli.main([str(argument) for argument in arguments])


def failure(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line that a failing command leaves."""
    with pytest.raises(SystemExit) as exit_:
        xrecon(*arguments)
    assert exit_.value.code not in (0, None)
    return str(exit_.value.code)


def test_no_page_of_an_earlier_ct_is_left(case: Path, model: Path, tmp_path: Path) -> None:
    """It would show another CT, perhaps another patient's."""
    for view in ("true", "false"):
        files = (case / "pa.png", case / "lateral.png", "--output", tmp_path / "ct.nii.gz")
        xrecon("reconstruct", *files, "--model", model, "--view", view)
        assert (tmp_path / "ct.html").exists() is (view == "true")


@pytest.mark.parametrize("suffix", ["nii.gz", "png"])
def test_two_files_become_a_ct(
    suffix: str, case: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "ct.nii.gz"
    xrecon("reconstruct", case / f"pa.{suffix}", case / f"lateral.{suffix}", "--output", output, "--model", model)
    image = nibabel.load(output)
    centre = CENTRE if suffix == "nii.gz" else (0, 0, 0)  # a PNG does not say where the patient lay
    assert image.shape == (SIZE,) * 3
    assert image.get_data_dtype() == np.int16
    assert np.allclose(image.affine, cube_affine(SIZE, centre), atol=1e-3)
    assert image.get_fdata().min() >= -1024
    report = json.loads((tmp_path / "ct.json").read_text())
    names = (f"pa.{suffix}", f"lateral.{suffix}")
    assert [item["sha256"] for item in report["inputs"]] == [file_sha256(case / name) for name in names]
    assert report["weights"]["sha256"] == file_sha256(model)
    assert report["version"] == __version__
    assert report["geometry"]["source_to_detector_mm"] == 1800
    assert -1 <= report["consistency"]["score"] < LOW_SCORE  # untrained weights
    assert "explains its radiographs poorly" in report["warnings"][0]
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [f"xrecon: warning: {warning}" for warning in report["warnings"]]
    assert captured.out == f"wrote {output} (consistency {report['consistency']['score']:.2f})\n"


def test_the_same_files_give_the_same_bytes(case: Path, model: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        xrecon(
            "reconstruct",
            case / "pa.png",
            case / "lateral.png",
            "--output",
            tmp_path / name / "ct.nii",
            "--model",
            model,
        )
    for name in ("ct.nii", "ct.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def read_series(folder: Path):
    """As `read_ct`, but what untrained weights make need not look like HU."""
    return load_series(choose_series(scan_dicom(dicom_files(folder))))


def test_a_dicom_study_becomes_a_dicom_ct_equal_to_the_nifti(case: Path, model: Path, tmp_path: Path) -> None:
    study = dict(StudyInstanceUID="1.2.3", PatientID="P7", PatientName="Doe^Jo")
    for view in ("pa", "lateral"):
        picture = np.asarray(nibabel.load(case / f"{view}.nii.gz").dataobj)
        write_dicom(tmp_path / f"{view}.dcm", grey_levels(picture, 4095), **study)
    files = (tmp_path / "pa.dcm", tmp_path / "lateral.dcm")
    xrecon("reconstruct", *files, "--output", tmp_path / "ct.nii.gz", "--model", model)
    xrecon("reconstruct", *files, "--output", tmp_path / "ct", "--format", "dicom", "--model", model)
    nifti, dicom = nibabel.load(tmp_path / "ct.nii.gz"), read_series(tmp_path / "ct")
    flipped = dicom.affine @ nibabel.orientations.inv_ornt_aff([[0, 1], [1, 1], [2, -1]], dicom.hu.shape)
    np.testing.assert_array_equal(dicom.hu[:, :, ::-1], nifti.get_fdata())
    np.testing.assert_allclose(flipped, nifti.affine, atol=1e-3)
    first = pydicom.dcmread(tmp_path / "ct" / "0001.dcm")
    assert (first.StudyInstanceUID, first.PatientID, str(first.PatientName)) == ("1.2.3", "P7", "Doe^Jo")
    given = [pydicom.dcmread(file).SOPInstanceUID for file in files]
    assert [item.ReferencedSOPInstanceUID for item in first.SourceImageSequence] == given
    assert json.loads((tmp_path / "ct" / "reconstruction.json").read_text()) == json.loads(
        (tmp_path / "ct.json").read_text()
    )


def test_a_warning_is_one_line_and_a_picture_of_something_else_is_refused(
    case: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    Image.fromarray(np.asarray(Image.open(case / "pa.png"))[:, ::-1].T.copy()).save(tmp_path / "turned.png")
    arguments = ["--output", tmp_path / "ct.nii.gz", "--model", model]
    xrecon("reconstruct", tmp_path / "turned.png", case / "lateral.png", *arguments, "--picture", tmp_path / "seen.png")
    assert "xrecon: warning: the PA view was turned by 90 degrees" in capsys.readouterr().err
    assert Image.open(tmp_path / "seen.png").size == (1024, 512)
    xrecon("reconstruct", tmp_path / "turned.png", case / "lateral.png", *arguments, "--keep_orientation")
    assert "xrecon: warning: the PA view looks turned on its side; check the file\n" in capsys.readouterr().err
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).resize((512, 512)).save(tmp_path / "noise.png")
    arguments[1] = tmp_path / "none.nii.gz"
    message = failure(capsys, "reconstruct", case / "pa.png", tmp_path / "noise.png", *arguments)
    assert "the lateral view is no chest radiograph" in message
    assert "noise.png" in message
    assert not list(tmp_path.glob("none*"))
    xrecon("reconstruct", case / "pa.png", tmp_path / "noise.png", *arguments, "--accept_any_view")
    assert (tmp_path / "none.nii.gz").exists()


def test_a_folder_of_patients(case: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("one", "two"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for view in ("pa", "lateral"):
            (tmp_path / "in" / name / f"{view}.png").write_bytes((case / f"{view}.png").read_bytes())
    arguments = ["reconstruct-folder", tmp_path / "in", "--output", tmp_path / "out", "--model", model]
    xrecon(*arguments)
    assert capsys.readouterr().out == f"2 reconstructed, 0 made before; {tmp_path / 'out' / 'summary.csv'}\n"
    (tmp_path / "in" / "two" / "pa.png").write_text("no picture")
    message = failure(capsys, *arguments)
    assert message.startswith("xrecon: error: 1 of 2 cases failed")
    assert "xrecon: two: " in capsys.readouterr().err


def test_segment_writes_dicom_for_a_dicom_ct(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a quick stand-in for the segmenter."""
    pytest.importorskip("highdicom")
    monkeypatch.setitem(SEGMENTERS, "classical", lambda _: lambda hu, spacing: (hu < -700).astype(np.uint8))
    ct = nibabel.load(case / "ct.nii.gz")
    write_ct_series(tmp_path / "ct", ct.get_fdata(), ct.affine)
    xrecon("segment", tmp_path / "ct", "--output", tmp_path / "seg.dcm", "--format", "dicom")
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "seg.json").read_text())
    assert pydicom.dcmread(tmp_path / "seg.dcm").Modality == "SEG"
    assert pydicom.dcmread(tmp_path / "seg.sr.dcm").Modality == "SR"
    assert "end in .dcm" in failure(
        capsys, "segment", tmp_path / "ct", "--output", tmp_path / "seg.nii.gz", "--format", "dicom"
    )


def test_the_series_read_and_what_was_left_out_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chest with a projection of it beside, which has more images, and a damaged file."""
    monkeypatch.setitem(SEGMENTERS, "classical", lambda _: lambda hu, spacing: (hu < -700).astype(np.uint8))
    affine = phantom_affine()
    chest = dicom_slices(phantom(affine)[..., ::2], affine @ np.diag([1, 1, 2, 1]))
    projection = dicom_slices(phantom(affine), affine)
    for part in projection:
        part.ImageType, part.SeriesDescription = ["DERIVED", "SECONDARY", "AXIAL", "MIP"], "CHEST MIP"
    folder = save_dicom(tmp_path / "in" / "ann", chest + projection)
    (folder / "bad.dcm").write_bytes((folder / next(folder.iterdir())).read_bytes()[:152])
    taken, left = (parts[0].SeriesInstanceUID for parts in (chest, projection))

    def said(*arguments: object) -> str:
        xrecon(*arguments)
        return capsys.readouterr().err

    terminal = said("segment", folder, "--output", tmp_path / "seg.nii.gz")
    assert f"read CT series {taken} (CHEST, 36 images)" in terminal
    assert f"not read, --series asks for one: {left} (CHEST MIP, 72 images)" in terminal
    assert "xrecon: warning: 1 damaged DICOM files left out (bad.dcm" in terminal
    record = json.loads((tmp_path / "seg.json").read_text())
    assert (record["series"], record["images"]) == (taken, 36)
    assert record["other_series"] == [{"series": left, "description": "CHEST MIP", "images": 72}]
    assert "bad.dcm" in record["warnings"][0]

    said("segment", folder, "--output", tmp_path / "seg.nii.gz", "--series", left)
    assert json.loads((tmp_path / "seg.json").read_text())["series"] == left

    terminal = said("simulate", folder, "--output_dir", tmp_path / "one", "--spatial_size", 16)
    assert f"read CT series {taken}" in terminal
    assert "warning: 1 damaged" in terminal
    record = json.loads((tmp_path / "one" / "source.json").read_text())
    assert record["series"] == taken
    assert "bad.dcm" in record["warnings"][0]

    said("prepare", tmp_path / "in", "--output_dir", tmp_path / "out", "--spatial_size", 16, "--workers", 1)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [one["series"] for one in manifest["cases"]] == [taken]
    reasons = {item["source"]: item["reason"] for item in manifest["exclusions"]}
    assert left in reasons["ann"]
    assert taken in reasons["ann"]
    assert "damaged" in reasons["ann/bad.dcm"]


def test_prepare_says_what_was_left_out_of_a_ct(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    affine = phantom_affine()
    chest = dicom_slices(phantom(affine), affine)
    for part in chest[:2]:
        part.SamplesPerPixel = 3
    save_dicom(tmp_path / "in" / "ann", chest)
    xrecon("prepare", tmp_path / "in", "--output_dir", tmp_path / "out", "--spatial_size", 16, "--workers", 1)
    assert "xrecon: warning: ann: 2 images in colour left out" in capsys.readouterr().err
    (record,) = json.loads((tmp_path / "out" / "manifest.json").read_text())["cases"]
    assert "2 images in colour left out" in record["warnings"][0]


def test_a_volume_is_its_own_perfect_reconstruction(case: Path, capsys: pytest.CaptureFixture) -> None:
    xrecon("evaluate", case / "ct.nii.gz", case / "ct.nii.gz")
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["mae_hu"] == metrics["offset_mm"] == 0
    assert metrics["ssim_avg"] == pytest.approx(1)


def test_simulating_a_simulated_ct_keeps_it(case: Path, tmp_path: Path) -> None:
    xrecon("simulate", case / "ct.nii.gz", "--output_dir", tmp_path / "again", "--spatial_size", SIZE)
    written = {path.name for path in (tmp_path / "again").iterdir()}
    assert written == {path.name for path in case.iterdir()} | {"source.json"}
    first, second = (nibabel.load(folder / "ct.nii.gz") for folder in (case, tmp_path / "again"))
    shift = np.abs(first.affine[:3, 3] - second.affine[:3, 3])
    assert shift.max() < 15  # the thorax is found again


def test_every_command_has_help() -> None:
    for command in ((), *((name,) for name in cli.COMMANDS)):
        result = subprocess.run(
            [sys.executable, "-m", "xrecon_bundle", *command, "--help"], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0
        assert "NAME\n    xrecon" in result.stdout
        assert "FIRE" not in result.stdout
        assert result.stderr == ""


@pytest.mark.parametrize("ask", [("--help",), ("-h",), ("--", "--help"), ("pa.png", "--help"), ("--invert", "-h")])
def test_help_is_given_wherever_it_is_asked_for(ask: tuple[str, ...], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as exit_:
        xrecon("reconstruct", *ask)
    assert exit_.value.code == 0
    assert "keep_orientation" in capsys.readouterr().out


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


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("recontruct", "did you mean reconstruct?"),
        ("segmentation", "did you mean segment?"),
        ("diagnose", "there are reconstruct, reconstruct-folder, dicomweb, simulate"),
        ("pa.png", "there are reconstruct"),
    ],
)
def test_a_command_that_is_none_is_one_line(typed: str, said: str, capsys: pytest.CaptureFixture) -> None:
    message = failure(capsys, typed, "a.png", "--output", "b.nii.gz")
    assert message.startswith(f"xrecon: error: there is no command '{typed}'; {said}")
    assert "\n" not in message


def test_a_command_may_be_written_with_an_underscore(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "none: no such folder" in failure(capsys, "reconstruct_folder", tmp_path / "none", tmp_path / "out")


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
    "an unknown format": ({"--format": "mha"}, "mha"),
    "a file's name for a series": ({"--format": "dicom"}, "out.nii.gz: a DICOM series is a folder"),
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
    paths = {
        key: value if key in {"--spatial_size", "--format"} else tmp_path / value for key, value in arguments.items()
    }
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("simulate", "ct.nii.gz", "--output_dir", "out", "--spatial_sise", 64),
            "--spatial_sise; did you mean --spatial_size?",
        ),
        (("simulate", "ct.nii.gz", "--output-di=out"), "--output-di; did you mean --output_dir?"),
        (("simulate", "ct.nii.gz", "--outputdir=out"), "--outputdir; did you mean --output_dir?"),
        (("reconstruct", "pa.png", "lateral.png", "--outptu", "ct.nii.gz"), "--outptu; did you mean --output?"),
        (("reconstruct", "pa.png", "lateral.png", "--output", "ct.nii.gz", "--quality", "high"), "--quality (--help"),
    ],
)
def test_a_misspelt_flag_is_named_before_any_work(
    arguments: tuple, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    message = failure(capsys, *arguments)
    assert message.startswith(f"xrecon: error: there is no {said}")
    assert not list(tmp_path.iterdir())


def test_a_folder_called_001_stays_text(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    xrecon("simulate", case / "ct.nii.gz", "--output_dir", "001", "--spatial_size", SIZE)
    assert (tmp_path / "001" / "ct.nii.gz").exists()


NO_VALUES = {
    "a size in words": ("--spatial_size", "large", "spatial_size: 'large' is no whole number"),
    "a size with a fraction": ("--spatial_size", "224.5", "spatial_size: '224.5' is no whole number"),
    "a length with its unit": ("--field_of_view_mm", "430mm", "field_of_view_mm: '430mm' is no number"),
    "a length that is no number": ("--field_of_view_mm", "nan", "field_of_view_mm: 'nan' is no number"),
    "a picture without a name": ("--picture", "True", "picture: a value is missing"),
    "a switch and a word": ("--invert=maybe", "--view", "invert: 'maybe' is neither true nor false"),
}


@pytest.mark.parametrize("name", NO_VALUES)
def test_a_value_of_another_kind_is_one_error_before_the_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flag, value, said = NO_VALUES[name]
    output = tmp_path / "ct.nii.gz"
    message = failure(capsys, "reconstruct", "pa.png", "lateral.png", "--output", output, flag, value)
    assert message == f"xrecon: error: {said}"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ("pa.png", "lateral.png", "ct.nii.gz", "--invert"),
        ("--invert", "pa.png", "lateral.png", "ct.nii.gz"),
        ("pa.png", "--invert", "lateral.png", "--output", "ct.nii.gz"),
        ("--output=ct.nii.gz", "--invert", "true", "pa.png", "--noview", "lateral.png"),
        ("-o", "ct.nii.gz", "-i", "pa.png", "lateral.png"),
        ("--pa", "pa.png", "lateral.png", "ct.nii.gz", "--invert"),
    ],
    ids=" ".join,
)
def test_a_switch_may_stand_anywhere(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, object] = {}

    @functools.wraps(cli.reconstruct)
    def record(*arguments: object, **named: object) -> None:
        bound = inspect.signature(record).bind(*arguments, **named)
        bound.apply_defaults()
        taken.update(bound.arguments)

    monkeypatch.setitem(cli.COMMANDS, "reconstruct", record)
    xrecon("reconstruct", *arguments)
    wanted: dict[str, object] = {"pa": "pa.png", "lateral": "lateral.png", "output": "ct.nii.gz", "invert": True}
    wanted["view"] = "--noview" not in arguments
    assert {name: taken[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pa.png", "lateral.png", "ct.nii.gz", "other.pt"), "'other.pt' is not expected"),
        (("pa.png", "lateral.png", "other.png", "--output", "ct.nii.gz"), "'other.png' is not expected"),
        (("pa.png", "lateral.png", "-o", "a.nii.gz", "--output", "b.nii.gz"), "--output is given twice"),
        (
            ("pa.png", "lateral.png", "ct.nii.gz", "-f", "dicom"),
            "-f may be --format or --field_of_view_mm or --flip_lateral; write it in full",
        ),
        (("pa.png", "lateral.png", "ct.nii.gz", "-x", "dicom"), "there is no -x"),
        (("pa.png",), "missing: lateral, output"),
        (("--lateral", "lateral.png", "pa.png"), "missing: output"),
    ],
    ids=" ".join,
)
def test_what_could_mean_two_things_is_refused(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert failure(capsys, "reconstruct", *arguments).startswith(f"xrecon: error: {said}")
    assert not list(tmp_path.iterdir())


def test_it_says_its_version(capsys: pytest.CaptureFixture) -> None:
    xrecon("--version")
    assert capsys.readouterr().out == f"xrecon {__version__}\n"


VALUES = {"str": ("001", "001"), "bool": ("false", False), "int": ("7", 7), "float": ("7", 7.0)}


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_an_argument_is_read_as_what_it_is(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {}

    @functools.wraps(cli.COMMANDS[command])
    def record(*arguments: object, **named: object) -> None:
        taken.update(inspect.signature(record).bind(*arguments, **named).arguments)

    kinds = {name: kind.removesuffix(" | None") for name, kind in record.__annotations__.items() if name != "return"}
    monkeypatch.setitem(cli.COMMANDS, command, record)
    xrecon(command, *(part for name, kind in kinds.items() for part in (f"--{name}", VALUES[kind][0])))
    assert taken == {name: VALUES[kind][1] for name, kind in kinds.items()}


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


FILE, FOLDER = ".nii.gz", ""
# What is read does not exist: a complaint about the output shows that it was looked at first.
WRITERS = {
    "reconstruct": (["reconstruct", "no.png", "no.png", "--model", "no.pt", "--output"], FILE),
    "reconstruct to DICOM": (
        ["reconstruct", "no.png", "no.png", "--model", "no.pt", "--format", "dicom", "--output"],
        FOLDER,
    ),
    "reconstruct-folder": (["reconstruct-folder", "no", "--model", "no.pt", "--output"], FOLDER),
    "segment": (["segment", "no.nii.gz", "--output"], FILE),
    "segment to DICOM": (["segment", "no", "--format", "dicom", "--output"], ".dcm"),
    "simulate": (["simulate", "no.nii.gz", "--output_dir"], FOLDER),
    "prepare": (["prepare", "no", "--output_dir"], FOLDER),
    "convert-published": (["convert-published", "no.pth", "--output"], ".pt"),
    "export": (["export", "no.pt", "--output"], ".pt2"),
}
OUTPUTS = {
    "a parent that is a file": ("file/out", "file is no folder"),
    "a place where nothing can be made": ("/proc/out", "cannot be written"),
    "a name of 250 letters": ("x" * 250, "too long"),
    "something else of this name": ("taken", "is a (file|folder), and a|is no folder"),
}


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("command", WRITERS)
def test_an_output_that_cannot_be_written_is_one_error_before_the_work(
    command: str, output: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "DICOM" in command:
        pytest.importorskip("highdicom")
    monkeypatch.chdir(tmp_path)
    arguments, suffix = WRITERS[command]
    name, reason = OUTPUTS[output]
    (tmp_path / "file").touch()
    taken = tmp_path / f"taken{suffix}"
    taken.touch() if suffix == FOLDER else taken.mkdir()
    before = set(tmp_path.rglob("*"))
    message = failure(capsys, *arguments, f"{name}{suffix}")
    assert message.startswith("xrecon: error: ")
    assert re.search(reason, message)
    assert "\n" not in message
    assert set(tmp_path.rglob("*")) == before


SIDE_OUTPUTS = {
    "reconstruct": "out.json",
    "segment": ("out.json", "out.png"),
    "segment to DICOM": ("out.json", "out.sr.dcm"),
    "prepare": "out/manifest.json",
    "reconstruct-folder": "out/summary.csv",
}


@pytest.mark.parametrize(
    ("command", "side"),
    [(command, side) for command, sides in SIDE_OUTPUTS.items() for side in np.atleast_1d(sides).tolist()],
)
def test_what_is_written_beside_the_output_is_looked_at_too(
    command: str, side: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "DICOM" in command:
        pytest.importorskip("highdicom")
    monkeypatch.chdir(tmp_path)
    (tmp_path / side).mkdir(parents=True)
    arguments, suffix = WRITERS[command]
    assert f"{side} is a folder" in failure(capsys, *arguments, f"out{suffix}")


def test_what_is_read_is_never_overwritten(
    case: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for path in case.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    pair = tmp_path / "pa.nii.gz", tmp_path / "lateral.nii.gz"
    commands = (
        ("reconstruct", *pair, "--output", pair[1], "--model", model),
        ("segment", tmp_path / "ct.nii.gz", "--output", tmp_path / ".." / tmp_path.name / "ct.nii.gz"),
        ("convert-published", tmp_path / "pa.png", "--output", tmp_path / "pa.png"),
        ("export", tmp_path / "pa.png", "--output", tmp_path / "pa.png"),
    )
    for command in commands:
        assert "is what is read" in failure(capsys, *command)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--labels", "ct.nii.gz"), "ct.nii.gz is to hold two results; give each a name of its own"),
        (("--labels", "l.nii.gz", "--deviation", "./l.nii.gz"), "./l.nii.gz is to hold two results"),
        (("--picture", "ct.nii.gz"), "ct.nii.gz is to hold two results"),
        (("--picture", "seen.jpg"), "seen.jpg: the picture is a PNG; give a name that ends in .png"),
        (("--labels", "labels.mha"), "labels.mha: a volume is written as NIfTI"),
    ],
    ids=str,
)
@pytest.mark.parametrize("again", [False, True])
def test_each_result_has_a_name_of_its_own_kind(
    options: tuple[str, ...],
    said: str,
    again: bool,
    case: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
) -> None:
    """Whether or not a result of before is there."""
    monkeypatch.chdir(tmp_path)
    if again:
        Path("ct.nii.gz").write_text("a result of before")
    before = list(tmp_path.iterdir())
    files = (case / "pa.png", case / "lateral.png", "ct.nii.gz")
    assert failure(capsys, "reconstruct", *files, *options).startswith(f"xrecon: error: {said}")
    assert list(tmp_path.iterdir()) == before


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("which", ["pred", "true"])
def test_a_volume_with_voxels_that_are_no_numbers_is_not_evaluated(
    which: str, bad: float, case: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    ct = nibabel.load(case / "ct.nii.gz")
    hu = ct.get_fdata(dtype=np.float32)
    hu[3, 4, 5:7] = bad
    nibabel.save(nibabel.Nifti1Image(hu, ct.affine), tmp_path / "bad.nii.gz")
    files = {"pred": case / "ct.nii.gz", "true": case / "ct.nii.gz"} | {which: tmp_path / "bad.nii.gz"}
    message = failure(capsys, "evaluate", *files.values())
    assert "bad.nii.gz: 2 of 262144 voxels are NaN or infinite" in message
    assert "write the volume again" in message
    assert capsys.readouterr().out == ""


def test_a_label_map_is_no_true_ct(case: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ct = nibabel.load(case / "ct.nii.gz")
    nibabel.save(nibabel.Nifti1Image((ct.get_fdata() < -500).astype(np.uint8), ct.affine), tmp_path / "labels.nii.gz")
    assert "labels.nii.gz: not HU" in failure(capsys, "evaluate", case / "ct.nii.gz", tmp_path / "labels.nii.gz")


def test_stopped_by_the_user_says_so_in_one_line(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("xrecon_bundle.workflows.segment.segment_file", stop)
    with pytest.raises(SystemExit) as exit_:
        xrecon("segment", case / "ct.nii.gz", "--output", tmp_path / "seg.nii.gz")
    assert exit_.value.code == 130
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("scale", "warned"), [(1.0, None), (0.3, "too little for an adult: a child"), (1.8, "more than a person's")]
)
def test_lungs_of_no_adults_size_are_warned_of(
    scale: float,
    warned: str | None,
    case: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a quick stand-in for the segmenter."""
    monkeypatch.setitem(
        SEGMENTERS, "classical", lambda _: lambda hu, spacing: ((hu < -700) & (hu > -980)).astype(np.uint8)
    )
    ct = nibabel.load(case / "ct.nii.gz")
    affine = ct.affine @ np.diag([scale, scale, scale, 1])
    nibabel.save(nibabel.Nifti1Image(np.asarray(ct.dataobj), affine), tmp_path / "ct.nii.gz")
    xrecon("segment", tmp_path / "ct.nii.gz", "--output", tmp_path / "seg.nii.gz")
    captured = capsys.readouterr()
    warnings = json.loads((tmp_path / "seg.json").read_text())["warnings"]
    assert json.loads(captured.out)["warnings"] == warnings
    assert captured.err.splitlines() == [f"xrecon: warning: {warning}" for warning in warnings]
    assert len(warnings) == (warned is not None)
    assert warned is None or warned in warnings[0]

"""Real radiographs in: every format and orientation, field of view, collimation, what is refused."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from radiograph_cases import (
    CENTRE_MM,
    DETECTOR_MM,
    FORMATS,
    MIRRORED,
    brightest_mm,
    grey_levels,
    marked_views,
    marker_on_detector_mm,
    write_dicom,
)
from scipy.ndimage import gaussian_filter, map_coordinates

from xrecon_bundle import frame
from xrecon_bundle.files import InputError
from xrecon_bundle.io.radiograph_files import VIEWS, view_affine, write_radiograph_nifti, write_radiograph_png
from xrecon_bundle.placement.border import exposed_rectangle, white_margin
from xrecon_bundle.placement.radiographs import load_radiograph, load_radiograph_pair, place_pair
from xrecon_bundle.placement.resample import resample_to_detector

PIXELS = 192


@pytest.fixture(scope="module")
def views() -> np.ndarray:
    return marked_views(PIXELS)


# --- formats and orientation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_shows_the_marker_where_the_convention_says(name, view, views, tmp_path):
    case = FORMATS[name]
    path = tmp_path / f"{view}{case.suffix}"
    original = views[VIEWS.index(view)]
    case.write(path, original, view)
    loaded = load_radiograph(path, view, PIXELS, **case.arguments)
    assert loaded.shape == (1, PIXELS, PIXELS)
    assert brightest_mm(loaded[0].numpy()) == pytest.approx(marker_on_detector_mm()[view], abs=DETECTOR_MM / PIXELS)
    centre = CENTRE_MM if case.positioned else (0, 0, 0)
    np.testing.assert_allclose(loaded.affine, view_affine(view, PIXELS, centre), atol=1e-3)
    grey = loaded[0].numpy()
    scale, shift = np.polyfit(grey.ravel(), original.ravel(), 1)
    assert np.abs(scale * grey + shift - original).mean() < case.error * np.ptp(original)
    assert scale > 0


def test_nepers_of_our_own_files_stay_nepers(views, tmp_path):
    write_radiograph_nifti(tmp_path / "pa.nii.gz", views[0], "pa")
    np.testing.assert_allclose(load_radiograph(tmp_path / "pa.nii.gz", "pa", PIXELS)[0], views[0], atol=1e-5)


# --- scale ---------------------------------------------------------------------------------------------------------

MAGNIFICATION = 1800 / 1600  # of the chest frame


@pytest.mark.parametrize(
    ("tags", "detector_mm_per_pixel"),
    [
        (dict(ImagerPixelSpacing=[0.2, 0.3]), (0.3, 0.2)),  # rows' distance comes first in DICOM
        (dict(ImagerPixelSpacing=[0.2, 0.2], PixelSpacing=[0.2, 0.2]), (0.2, 0.2)),
        (dict(ImagerPixelSpacing=[0.2, 0.2], DistanceSourceToDetector=1000), (0.2 * 0.8 * MAGNIFICATION,) * 2),
        (dict(ImagerPixelSpacing=[0.2, 0.2], PixelSpacing=[0.17, 0.17]), (0.17 * MAGNIFICATION,) * 2),
        (dict(PixelSpacing=[0.2, 0.2], PixelSpacingCalibrationType="FIDUCIAL"), (0.2 * MAGNIFICATION,) * 2),
        (dict(PixelSpacing=[0.2, 0.2]), (0.2, 0.2)),
        (dict(NominalScannedPixelSpacing=[0.2, 0.2]), (0.2, 0.2)),
        (dict(NominalScannedPixelSpacing=[1, 1], PixelSpacing=[0.2, 0.2]), (0.2, 0.2)),  # a placeholder of many writers
        ({}, (DETECTOR_MM / 900,) * 2),  # unknown: the longer side spans the detector
    ],
)
def test_dicom_spacing_and_magnification_scale_the_image(tags, detector_mm_per_pixel, tmp_path):
    u, v = np.meshgrid(np.arange(700) - 349.5, np.arange(900) - 449.5, indexing="ij")
    blob = np.exp(-(((u - 200) / 40) ** 2) - ((v + 300) / 40) ** 2)
    write_dicom(tmp_path / "pa.dcm", grey_levels(blob, 4095), **(dict(ImagerPixelSpacing=None) | tags))
    found = brightest_mm(load_radiograph(tmp_path / "pa.dcm", "pa", PIXELS)[0].numpy())
    assert found == pytest.approx(np.array([200, -300]) * detector_mm_per_pixel, abs=0.5 * DETECTOR_MM / PIXELS)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    shape=st.tuples(st.integers(60, 400), st.integers(60, 400)),
    field=st.tuples(st.floats(300, 600), st.floats(300, 600)),
    place=st.tuples(st.floats(-100, 100), st.floats(-100, 100)),
    size=st.sampled_from([64, 97, 224]),
)
def test_resampling_keeps_every_place_in_mm(shape, field, place, size):
    spacing = np.array(field) / shape
    lines = [(np.arange(n) - (n - 1) / 2) * step - at for n, step, at in zip(shape, spacing, place, strict=True)]
    blob = np.exp(-((lines[0][:, None] / 25) ** 2) - (lines[1] / 25) ** 2).astype(np.float32)
    result = resample_to_detector(blob, spacing, size)
    line = (np.arange(size) - (size - 1) / 2) * DETECTOR_MM / size
    centroid = [(result.sum(1 - axis) * line).sum() / result.sum() for axis in range(2)]
    assert centroid == pytest.approx(place, abs=0.3)


def test_a_known_field_overrides_what_the_file_says(views, tmp_path):
    write_radiograph_png(tmp_path / "pa.png", views[0])
    half = load_radiograph(tmp_path / "pa.png", "pa", PIXELS, field_of_view_mm=DETECTOR_MM / 2)
    expected = marker_on_detector_mm()["pa"] / 2
    assert brightest_mm(half[0].numpy()) == pytest.approx(expected, abs=DETECTOR_MM / PIXELS)


def test_a_fine_pattern_becomes_its_mean_and_no_moire():
    stripes = np.indices((1000, 1000)).sum(0).astype(np.float32) % 2
    shrunk = resample_to_detector(stripes, np.full(2, DETECTOR_MM / 1000), 64)
    np.testing.assert_allclose(shrunk, 0.5, atol=0.02)


@pytest.mark.parametrize("size", [32, 64, 224])
def test_averaging_over_blocks_first_changes_next_to_nothing(size):
    u, v = np.mgrid[:1503, :1201]
    noise = np.random.default_rng(0).normal(0, 0.05, u.shape)
    image = np.sin(u / 90) * np.cos(v / 140) + (np.hypot(u - 400, v - 300) < 150) + noise
    spacing = np.array([0.3, 0.33])
    step = DETECTOR_MM / size / spacing
    smooth = gaussian_filter(image, (step - 1) / 2)
    place = [(np.arange(size) - (size - 1) / 2) * by + (n - 1) / 2 for by, n in zip(step, image.shape, strict=True)]
    expected = map_coordinates(smooth, np.meshgrid(*place, indexing="ij"), order=1, mode="nearest")
    edge = size // 16
    inside = (slice(edge, -edge),) * 2
    found = resample_to_detector(image.astype(np.float32), spacing, size)
    assert np.abs(found - expected)[inside].max() < 0.005 * np.ptp(expected)


def test_outside_the_image_is_air():
    image = np.full((50, 100), 7.0, dtype=np.float32)
    image[:, 90:] = 3
    result = resample_to_detector(image, np.full(2, DETECTOR_MM / 100), 100)
    assert np.all(result[:25] == 3)
    assert np.all(result[75:] == 3)
    assert np.all(result[25:75, :89] == 7)


# --- collimation ---------------------------------------------------------------------------------------------------


def body(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A noisy picture that fills its frame, 300 to 1000."""
    u, v = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    noise = np.random.default_rng(seed).normal(0, 10, shape)
    return (650 + 350 * np.cos(3 * u) * np.cos(2 * v) + noise).astype(np.float32)


@pytest.mark.parametrize("level", [0.0, 1400.0], ids=["black shutter", "white, unexposed"])
@pytest.mark.parametrize(
    ("left", "right", "top", "bottom"), [(20, 30, 10, 40), (0, 0, 25, 0), (60, 0, 0, 60), (0, 0, 0, 0)]
)
def test_the_exposed_rectangle_is_found(level, left, right, top, bottom):
    image = np.full((300, 260), level, dtype=np.float32)
    image += np.random.default_rng(1).normal(0, 3, image.shape).astype(np.float32)
    inside = slice(left, 300 - right), slice(top, 260 - bottom)
    image[inside] = body(image[inside].shape)
    image[3:12, 3:9] = 2000  # a letter burnt into the border
    assert exposed_rectangle(image) == inside


def test_air_around_a_body_is_no_collimation(views):
    for view in views:
        assert exposed_rectangle(view) == (slice(0, PIXELS), slice(0, PIXELS))


@pytest.mark.parametrize("border", [0, 65535], ids=["black", "white"])
def test_a_border_is_cut_off_where_the_scale_is_unknown(border, tmp_path):
    picture = body((400, 300))
    bordered = np.full((500, 420), border, dtype=np.uint16)
    bordered[50:450, 30:330] = picture * 20
    Image.fromarray((picture * 20).astype(np.uint16).T).save(tmp_path / "plain.png")
    Image.fromarray(bordered.T).save(tmp_path / "bordered.png")
    plain, cut = (load_radiograph(tmp_path / f"{name}.png", "pa", 64) for name in ("plain", "bordered"))
    np.testing.assert_allclose(cut, plain)


def test_a_border_becomes_air_where_the_scale_is_known(tmp_path):
    stored = np.full((300, 300), 4095, dtype=np.uint16)
    stored[60:240, 45:255] = body((180, 210))
    write_dicom(tmp_path / "pa.dcm", stored)
    loaded = load_radiograph(tmp_path / "pa.dcm", "pa", 300)[0].numpy()
    np.testing.assert_array_equal(loaded[45:255, 60:240], stored[60:240, 45:255].T)
    assert len(np.unique(loaded[:45])) == len(np.unique(loaded[:, :60])) == 1
    assert loaded[0, 0] <= np.percentile(stored[60:240, 45:255], 1)


@pytest.mark.parametrize("shape", ["Shutter", "Collimator"])
def test_edges_in_the_tags_need_no_finding(shape, tmp_path):
    stored = body((300, 300)).astype(np.uint16)
    edges = dict(UpperHorizontal=61, LowerHorizontal=240, LeftVertical=46, RightVertical=255)
    tags = {f"{shape}{edge}Edge": value for edge, value in edges.items()} | {f"{shape}Shape": "RECTANGULAR"}
    write_dicom(tmp_path / "pa.dcm", stored, **tags)
    loaded = load_radiograph(tmp_path / "pa.dcm", "pa", 300)[0].numpy()
    np.testing.assert_array_equal(loaded[45:255, 60:240], stored[60:240, 45:255].T)
    assert len(np.unique(loaded[:45])) == len(np.unique(loaded[:, 240:])) == 1


def test_padding_is_air_even_when_dense_is_dark(tmp_path):
    stored = 1500 - body((300, 300)).astype(np.uint16)
    stored[:, 200:] = 0  # would be the densest of all
    write_dicom(tmp_path / "pa.dcm", stored, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)
    loaded = load_radiograph(tmp_path / "pa.dcm", "pa", 300)[0].numpy()
    assert loaded[200:].max() < np.percentile(loaded[:200], 1)


# --- the pair ------------------------------------------------------------------------------------------------------


def write_pair(folder: Path, views: np.ndarray, centres=((0, 0, 0), (0, 0, 0))) -> dict[str, Path]:
    paths = {view: folder / f"{view}.nii.gz" for view in VIEWS}
    for view, image, centre in zip(VIEWS, views, centres, strict=True):
        write_radiograph_nifti(paths[view], image, view, centre)
    return paths


def test_the_pair_is_the_networks_input(views, tmp_path):
    paths = write_pair(tmp_path, views, (CENTRE_MM, CENTRE_MM))
    image = load_radiograph_pair(paths["pa"], paths["lateral"], PIXELS)
    assert image.dtype.is_floating_point
    assert image.meta["filename_or_obj"] == str(paths["pa"])
    np.testing.assert_allclose(image, views, atol=1e-5)
    np.testing.assert_allclose(image.affine, frame.radiograph_affine(PIXELS, CENTRE_MM), atol=1e-3)


def test_a_lateral_that_faces_the_other_way_is_turned(views, tmp_path):
    write_dicom(tmp_path / "pa.dcm", grey_levels(views[0], 4095))
    turned = grey_levels(views[1], 4095)[:, ::-1].copy()
    write_dicom(tmp_path / "tagged.dcm", turned, PatientOrientation=MIRRORED["lateral"])
    write_dicom(tmp_path / "untagged.dcm", turned)
    by_tag = load_radiograph_pair(tmp_path / "pa.dcm", tmp_path / "tagged.dcm", PIXELS)
    by_flag = load_radiograph_pair(tmp_path / "pa.dcm", tmp_path / "untagged.dcm", PIXELS, flip_lateral=True)
    np.testing.assert_array_equal(by_tag, by_flag)
    expected = marker_on_detector_mm()["lateral"]
    assert brightest_mm(by_tag[1].numpy()) == pytest.approx(expected, abs=DETECTOR_MM / PIXELS)


def test_the_same_picture_twice_is_refused_even_after_compression(views, tmp_path):
    write_radiograph_png(tmp_path / "pa.png", views[0])
    Image.fromarray(grey_levels(views[0], 255)).save(tmp_path / "lateral.jpg", quality=90)
    for lateral in ("pa.png", "lateral.jpg"):
        with pytest.raises(InputError, match=rf"pa\.png and .*{lateral} show the same picture"):
            load_radiograph_pair(tmp_path / "pa.png", tmp_path / lateral, 64, field_of_view_mm=DETECTOR_MM)


def test_files_whose_tags_say_that_they_are_swapped_are_put_right_and_reported(views, tmp_path):
    paths = write_pair(tmp_path, views)
    placed = place_pair((paths["lateral"], paths["pa"]), PIXELS)
    np.testing.assert_allclose(placed.image, views, atol=1e-5)
    assert placed.record["exchanged"]
    assert placed.record["pa"]["file"] == str(paths["pa"])
    assert "is taken for the lateral view" in placed.warnings[0]
    assert "keep_orientation" in placed.warnings[0]
    with pytest.raises(InputError, match=r"lateral\.nii\.gz.*not swapped, or set accept_any_view"):
        place_pair((paths["lateral"], paths["pa"]), PIXELS, keep_orientation=True)
    assert load_radiograph_pair(paths["lateral"], paths["pa"], 64, accept_any_view=True).shape == (2, 64, 64)


def test_two_patients_are_refused(views, tmp_path):
    for number, (view, image) in enumerate(zip(VIEWS, views, strict=True)):
        write_dicom(tmp_path / f"{view}.dcm", grey_levels(image, 4095), PatientID=str(number))
    with pytest.raises(InputError, match="different patients"):
        load_radiograph_pair(tmp_path / "pa.dcm", tmp_path / "lateral.dcm", 64)
    pair = load_radiograph_pair(tmp_path / "pa.dcm", tmp_path / "lateral.dcm", 64, accept_any_view=True)
    assert pair.shape == (2, 64, 64)


def test_two_positions_are_refused(views, tmp_path):
    paths = write_pair(tmp_path, views, (CENTRE_MM, (0, 0, 0)))
    with pytest.raises(InputError, match="differ in position"):
        load_radiograph_pair(*paths.values(), 64)


# --- refused -------------------------------------------------------------------------------------------------------

IMAGE = grey_levels(body((64, 64)), 4095)
COLOUR = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


def text(path: Path) -> None:
    path.write_text("this is no radiograph " * 20)


def picture(array: np.ndarray):
    return lambda path: Image.fromarray(array).save(path)


def dicom(array: np.ndarray = IMAGE, **tags):
    return lambda path: write_dicom(path, array, **tags)


def nifti(array: np.ndarray, affine: np.ndarray | None = None):
    return lambda path: nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


def truncated(write):
    def cut(path: Path) -> None:
        write(path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 2 // 3])

    return cut


def without_pixels(path: Path) -> None:
    write_dicom(path, IMAGE, PixelData=None)


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


FLOAT = body((64, 64))
BROKEN = [
    ("missing.png", lambda path: None, "no such file"),
    ("folder.dcm", Path.mkdir, "is a folder"),
    ("empty.dcm", Path.touch, "is empty"),
    ("text.dcm", text, "not a DICOM, PNG, JPEG or NIfTI"),
    ("text.nii.gz", text, "NIfTI file cannot be read"),
    ("picture.bmp", picture(IMAGE.astype(np.uint8)), "convert it to PNG"),
    ("picture.tif", picture(IMAGE), "convert it to PNG"),
    ("cut.png", truncated(picture(IMAGE)), "picture cannot be read"),
    ("cut.jpg", truncated(picture(IMAGE.astype(np.uint8))), "picture cannot be read"),
    ("cut.dcm", truncated(dicom()), "DICOM file cannot be read"),
    ("cut.nii.gz", truncated(nifti(FLOAT)), "NIfTI file cannot be read"),
    ("window.dcm", dicom(WindowCenter=100, WindowWidth=0), "DICOM file cannot be read"),
    ("report.dcm", without_pixels, "without an image"),
    ("cine.dcm", dicom(np.concatenate([IMAGE, IMAGE]), NumberOfFrames=2, Rows=64), "has 2 frames"),
    ("colour.png", picture(COLOUR), "colour"),
    ("colour.jpg", picture(np.kron(COLOUR[:8, :8], np.ones((16, 16, 1), np.uint8))), "colour"),
    ("colour.dcm", dicom(COLOUR), "colour"),
    ("palette.dcm", dicom(PhotometricInterpretation="PALETTE COLOR"), "colour"),
    ("blank.png", picture(np.full((64, 64), 200, np.uint8)), "grey levels"),
    ("mask.png", picture((IMAGE > 2000).astype(np.uint8) * 255), "grey levels"),
    ("tiny.png", picture(IMAGE[:16]), "only 64 x 16 pixels"),
    ("nan.nii.gz", nifti(np.where(FLOAT > 900, np.nan, FLOAT).astype(np.float32)), "not finite"),
    ("pair.nii.gz", nifti(np.stack([FLOAT, FLOAT], -1)), r"shape \(64, 64, 2\)"),
    ("ct.nii.gz", nifti(np.zeros((32, 32, 32), np.float32)), r"shape \(32, 32, 32\)"),
    ("line.nii.gz", nifti(FLOAT[0]), r"shape \(64,\)"),
    ("metres.dcm", dicom(ImagerPixelSpacing=[2e-4, 2e-4]), "set field_of_view_mm"),
    ("needle.dcm", dicom(ImagerPixelSpacing=[5, 1e-9]), "set field_of_view_mm"),
]


@pytest.mark.parametrize(("name", "write", "message"), BROKEN, ids=[case[0] for case in BROKEN])
def test_what_is_no_radiograph_is_refused_by_name(name, write, message, tmp_path, recwarn):
    write(tmp_path / name)
    with pytest.raises(InputError, match=message) as refusal:
        load_radiograph(tmp_path / name, "pa", 64)
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["DICOM with window", "own PNG", "grey JPEG", "own NIfTI", "NIfTI with other axes"])
def test_damaged_bytes_end_in_a_picture_or_a_refusal(name, views, tmp_path):
    case = FORMATS[name]
    path = tmp_path / f"pa{case.suffix}"
    case.write(path, views[0], "pa")
    good = np.frombuffer(path.read_bytes(), np.uint8)
    refused = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        damaged = good.copy()
        places = rng.integers(0, min(len(good), 900), rng.integers(1, 8))
        damaged[places] = rng.integers(0, 256, len(places))
        path.write_bytes(damaged.tobytes())
        try:
            image = load_radiograph(path, "pa", 32, **case.arguments)
            assert torch.isfinite(image).all()
        except InputError:
            refused += 1
    assert refused > 0


ORIENTED_LATERAL = view_affine("lateral", 64)
WRONG_VIEW = [
    ("pa", dicom(Modality="CT"), "Modality is 'CT'"),
    ("pa", dicom(Modality="MR"), "Modality is 'MR'"),
    ("pa", dicom(ViewPosition="AP"), "ViewPosition is 'AP'"),
    ("pa", dicom(ViewPosition="LL"), "ViewPosition is 'LL', but a PA"),
    ("lateral", dicom(ViewPosition="PA"), "ViewPosition is 'PA', but a left lateral"),
    ("lateral", dicom(ViewPosition="RL"), "ViewPosition is 'RL'"),
    ("lateral", dicom(ViewPosition="LLD"), "ViewPosition is 'LLD'"),
    ("pa", dicom(ViewCodeSequence=[code("399348003", "SCT", "antero-posterior")]), "'antero-posterior'"),
    ("lateral", dicom(ViewCodeSequence=[code("R-10232", "SRT", "right lateral")]), "'right lateral'"),
    ("pa", dicom(PatientOrientation=["P", "F"]), r"PatientOrientation is 'P\\F'"),
    ("lateral", dicom(PatientOrientation=["R", "F"]), r"PatientOrientation is 'R\\F'"),
    ("pa", dicom(ImageLaterality="L"), "laterality is 'L'"),
    ("lateral", dicom(ImageLaterality="R"), "laterality is 'R'"),
    ("pa", dicom(PresentationIntentType="FOR PROCESSING"), "FOR PROCESSING"),
    ("pa", nifti(FLOAT, ORIENTED_LATERAL), "axes to 'P' and 'F'"),
]


@pytest.mark.parametrize(("view", "write", "message"), WRONG_VIEW, ids=[case[2] for case in WRONG_VIEW])
def test_another_view_is_refused_unless_told_otherwise(view, write, message, tmp_path):
    path = tmp_path / ("file.nii.gz" if "axes" in message else "file.dcm")
    write(path)
    with pytest.raises(InputError, match=rf"file.*{message}.*accept_any_view"):
        load_radiograph(path, view, 64)
    assert load_radiograph(path, view, 64, accept_any_view=True).shape == (1, 64, 64)


@pytest.mark.parametrize(
    ("view", "tags"),
    [
        ("pa", dict(Modality=None, PatientID=None, PresentationIntentType=None)),
        ("pa", dict(ViewPosition="POSTERO_ANTERIOR", ImageLaterality="U")),
        ("pa", dict(ViewCodeSequence=[code("R-10214", "SRT", "postero-anterior")])),
        ("pa", dict(PatientOrientation=["", ""])),
        ("lateral", dict(ViewPosition="L LAT", ImageLaterality="L")),
        ("lateral", dict(ViewCodeSequence=[code("399173006", "SCT", "left lateral")])),
    ],
    ids=str,
)
def test_what_vendors_write_is_understood(view, tags, tmp_path):
    write_dicom(tmp_path / "file.dcm", IMAGE, **tags)
    assert load_radiograph(tmp_path / "file.dcm", view, 64).shape == (1, 64, 64)


@pytest.mark.parametrize("degrees", [0, 12, 45, 80])
def test_a_white_plate_at_the_edge_is_no_tissue_at_any_tilt(degrees):
    u, v = np.meshgrid(np.arange(300.0), np.arange(260.0), indexing="ij")
    image = body((300, 260))
    angle = np.radians(degrees)
    plate = (u - 300) * np.cos(angle) + (v - 130) * np.sin(angle) > -20
    found = white_margin(np.where(plate, 1400, image).astype(np.float32))
    assert found[plate].mean() > 0.99
    assert found[~plate].mean() < 0.02
    burnt_out = np.clip(image + 500 * u / 300, 0, 1100)  # tissue that gradually becomes white
    assert not white_margin(burnt_out.astype(np.float32)).any()

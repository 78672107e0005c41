"""Pictures without tags: however they are cropped, scaled, turned, mirrored and exchanged, the chest is found."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from radiograph_cases import grey_levels, write_dicom

from xrecon_bundle import frame
from xrecon_bundle.io.radiograph_files import VIEWS, write_radiograph_nifti
from xrecon_bundle.placement.radiographs import PlacedPair, place_pair
from xrecon_bundle.placement.standardize import standardize_ct
from xrecon_bundle.placement.turning import WAYS, lay, upright_matrix, way_of
from xrecon_bundle.projection.radiographs import simulate_radiographs

PIXELS, SIZE = 256, 64
DETECTOR_MM = frame.detector_size_mm()
CROP = np.s_[18:-30, 44:-20]  # of the radiographs: they stand off the middle, and each view has its own scale
MARKERS = np.array([[60, 66], [150, 190], [90, 120]])  # (u, v) in the upright picture


@pytest.fixture(scope="module")
def views(lidc: tuple[Path, Path]) -> np.ndarray:
    """The PA and the lateral of a real CT, as on a workstation."""
    ct = nibabel.load(lidc[0])
    hu = standardize_ct(np.asarray(ct.dataobj), ct.affine, 96).ct
    nepers = simulate_radiographs(torch.from_numpy(hu.astype(np.float32)), PIXELS).numpy()
    return 1 / (1 + np.exp(1.5 * (2 - nepers)))


def write(folder: Path, views: np.ndarray, ways: tuple[int, int] = (0, 0)) -> list[Path]:
    paths = []
    for view, picture, way in zip(VIEWS, views, ways, strict=True):
        part = picture[CROP if view == "pa" else np.s_[:, 40:]]
        paths.append(folder / f"{view}.png")
        Image.fromarray(grey_levels(lay(part, way), 255)).save(paths[-1])
    return paths


def linear(record: dict) -> np.ndarray:
    return np.array(record["file_to_image"])[:2, :2]


def placed_at_one_scale(placed: PlacedPair) -> None:
    """The lungs have one height, and the boxes are the detector's middle."""
    (_, pa_rows), (_, lateral_rows) = (placed.record[view]["lungs"] for view in VIEWS)
    assert pa_rows == pytest.approx(lateral_rows, abs=0.05 * np.ptp(pa_rows))
    for view in VIEWS:
        assert np.mean(placed.record[view]["lungs"], axis=1) == pytest.approx([(SIZE - 1) / 2] * 2, abs=2)


@pytest.mark.parametrize("view", range(2), ids=VIEWS)
@pytest.mark.parametrize("way", range(WAYS))
def test_every_marker_lands_where_file_to_image_says(view, way, views, tmp_path) -> None:
    marked = views.copy()
    for u, v in MARKERS:
        marked[view, u - 3 : u + 4, v - 3 : v + 4] = 4
    ways = (way, 0) if view == 0 else (0, way)
    placed = place_pair(write(tmp_path, marked, ways), SIZE)
    shown, record = placed.image[view].nan_to_num().numpy(), placed.record[VIEWS[view]]
    start = (CROP[0].start, CROP[1].start) if view == 0 else (0, 40)
    size = views[view][CROP if view == 0 else np.s_[:, 40:]].shape
    laid_size = size[::-1] if way // 2 % 2 else size
    to_file = np.linalg.inv(upright_matrix(way, laid_size))
    for u, v in MARKERS:
        file = to_file @ [u - start[0], v - start[1], 1]
        at = (np.array(record["file_to_image"]) @ file)[:2]
        near = np.rint(at).astype(int)
        window = shown[near[0] - 3 : near[0] + 4, near[1] - 3 : near[1] + 4]
        weight = np.clip(window - 0.4 * shown.max(), 0, None)
        offset = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 2, indexing="ij"))
        assert near + (offset * weight).sum((1, 2)) / weight.sum() == pytest.approx(at, abs=0.5)


TURNED = [(way, 0) for way in (2, 4, 6)] + [(0, way) for way in range(1, WAYS)] + [(2, 1), (4, 6)]


@pytest.mark.parametrize("ways", [(0, 0), *TURNED])
def test_what_is_turned_or_mirrored_is_put_right_and_said(ways, views, tmp_path) -> None:
    placed = place_pair(write(tmp_path, views, ways), SIZE)
    for view, way in zip(VIEWS, ways, strict=True):
        assert way_of(linear(placed.record[view])) == way
        turns, mirrored = divmod(way, 2)
        assert placed.record[view]["turned"] == -90 * turns % 360
        assert placed.record[view]["mirrored"] == bool(mirrored)
        said = [warning for warning in placed.warnings if f"{'PA' if view == 'pa' else 'lateral'} view was" in warning]
        assert len(said) == (way != 0)
        assert all("keep_orientation" in warning for warning in said)
    assert not placed.record["exchanged"]
    placed_at_one_scale(placed)


@pytest.mark.parametrize("ways", [(2, 0), (0, 1), (4, 4)])
def test_the_orientation_is_kept_where_that_is_asked_for(ways, views, tmp_path) -> None:
    placed = place_pair(write(tmp_path, views, ways), SIZE, keep_orientation=True)
    for view in VIEWS:
        assert way_of(linear(placed.record[view])) == 0
        assert not placed.record[view]["turned"]
    exchanged = place_pair(write(tmp_path, views)[::-1], SIZE, keep_orientation=True)
    assert not exchanged.record["exchanged"]


def test_exchanged_views_are_put_right_and_said(views, tmp_path) -> None:
    files = write(tmp_path, views, (0, 1))
    right, placed = place_pair(files, SIZE), place_pair(files[::-1], SIZE)
    assert placed.record["exchanged"]
    assert not right.record["exchanged"]
    np.testing.assert_allclose(placed.image, right.image, equal_nan=True)
    assert f"{files[1]} is taken for the lateral view" not in " ".join(right.warnings)
    assert f"{files[1]} is taken for the lateral view and {files[0]} for the PA" in placed.warnings[0]


def test_what_the_film_does_not_show_is_unknown(views, tmp_path) -> None:
    placed = place_pair(write(tmp_path, views), SIZE)
    unknown = torch.isnan(placed.image).numpy()
    for view, size in zip(VIEWS, ((208, 192), (256, 216)), strict=True):
        matrix = np.array(placed.record[view]["file_to_image"])
        first, last = matrix[:2, :2] @ [[-0.5, size[0] - 0.5], [-0.5, size[1] - 0.5]] + matrix[:2, 2:]
        inside = np.zeros((SIZE, SIZE), dtype=bool)
        inside[np.ix_(*(_within(*ends) for ends in (first, last)))] = True
        np.testing.assert_array_equal(unknown[VIEWS.index(view)], ~inside)


def _within(low: float, high: float) -> np.ndarray:
    return (np.arange(SIZE) >= low) & (np.arange(SIZE) <= high)


def test_our_own_files_stay_where_they_are(views, tmp_path) -> None:
    for view, picture in zip(VIEWS, np.roll(views, 9, axis=1), strict=True):
        write_radiograph_nifti(tmp_path / f"{view}.nii.gz", picture, view, (1, 2, 3))
    placed = place_pair([tmp_path / f"{view}.nii.gz" for view in VIEWS], PIXELS)
    np.testing.assert_allclose(placed.image, np.roll(views, 9, axis=1), atol=1e-5)
    assert placed.warnings == []


@pytest.mark.parametrize(
    ("tags", "loading", "source", "mm_per_pixel"),
    [
        (dict(ImagerPixelSpacing=[1.5, 1.5]), {}, "file", 1.5),
        (dict(ImagerPixelSpacing=None), dict(field_of_view_mm=400), "field_of_view_mm", 400 / 256),
        (dict(ImagerPixelSpacing=[1.5, 1.5]), dict(field_of_view_mm=400), "field_of_view_mm", 400 / 256),
    ],
)
def test_a_scale_that_is_stated_counts(tags, loading, source, mm_per_pixel, views, tmp_path) -> None:
    for view, picture in zip(VIEWS, views, strict=True):
        write_dicom(tmp_path / f"{view}.dcm", grey_levels(picture, 4095), PatientID="1", **tags)
    placed = place_pair([tmp_path / f"{view}.dcm" for view in VIEWS], SIZE, **loading)
    for view in VIEWS:
        assert placed.record[view]["scale_from"] == source
        assert placed.record[view]["scale_error"] is None
        assert linear(placed.record[view]) == pytest.approx(np.eye(2) * mm_per_pixel * SIZE / DETECTOR_MM)


def test_a_scale_that_only_one_view_states_is_the_others(views, tmp_path) -> None:
    write_dicom(tmp_path / "pa.dcm", grey_levels(views[0], 4095), ImagerPixelSpacing=[DETECTOR_MM / PIXELS] * 2)
    lateral = Image.fromarray(grey_levels(views[1], 255))
    lateral.resize((384, 384)).save(tmp_path / "lateral.png")
    placed = place_pair([tmp_path / "pa.dcm", tmp_path / "lateral.png"], SIZE)
    assert placed.record["lateral"]["scale_from"] == "other view"
    assert linear(placed.record["lateral"])[0, 0] == pytest.approx(SIZE / 384, rel=0.06)


def test_a_scale_that_nobody_states_is_a_typical_chests_and_says_its_error(views, tmp_path) -> None:
    placed = place_pair(write(tmp_path, views), SIZE)
    for view in VIEWS:
        assert placed.record[view]["scale_from"] == "typical chest"
        assert placed.record[view]["scale_error"] == pytest.approx(0.1)
        assert linear(placed.record[view])[0, 0] == pytest.approx(SIZE / PIXELS, rel=0.1)
    placed_at_one_scale(placed)


def write_detector(folder: Path, views: np.ndarray, repeat: int, **tags: object) -> list[Path]:
    """The crops of :func:`write` as DICOM, each pixel ``repeat`` times as long and as high."""
    paths = []
    for view, picture in zip(VIEWS, views, strict=True):
        part = picture[CROP if view == "pa" else np.s_[:, 40:]]
        stored = grey_levels(part, 4095).repeat(repeat, 0).repeat(repeat, 1)
        step = DETECTOR_MM / PIXELS / repeat
        shape = dict(CollimatorShape="RECTANGULAR", CollimatorUpperHorizontalEdge=7 * repeat + 1)
        shape |= dict(CollimatorLeftVerticalEdge=12 * repeat + 1, CollimatorRightVerticalEdge=stored.shape[1])
        paths.append(folder / f"{repeat} {view}.dcm")
        write_dicom(
            paths[-1], stored, CollimatorLowerHorizontalEdge=stored.shape[0], ImagerPixelSpacing=[step, step], **shape
        )
    return paths


@pytest.mark.parametrize("loading", [{}, dict(field_of_view_mm=400)], ids=["spacing", "field of view"])
def test_a_detector_of_many_pixels_is_placed_as_one_of_few(loading, views, tmp_path) -> None:
    repeat = 11  # over 2000 pixels, and no whole number of blocks
    few, many = (place_pair(write_detector(tmp_path, views, n), 96, **loading) for n in (1, repeat))
    finer = np.array([[repeat, 0, (repeat - 1) / 2], [0, repeat, (repeat - 1) / 2], [0, 0, 1]])
    for view, first, second in zip(VIEWS, few.image.numpy(), many.image.numpy(), strict=True):
        matrix = np.array(many.record[view]["file_to_image"]) @ finer
        np.testing.assert_allclose(matrix, few.record[view]["file_to_image"], atol=0.3)
        np.testing.assert_allclose(many.record[view]["lungs"], few.record[view]["lungs"], atol=0.5)
        assert many.record[view]["confidence"] == pytest.approx(few.record[view]["confidence"], abs=0.02)
        assert np.mean(np.isnan(first) ^ np.isnan(second)) < 0.02
        assert np.nanmean(np.abs(first - second)) < 0.02 * (np.nanmax(first) - np.nanmin(first))
    assert len(many.warnings) == len(few.warnings)


def test_every_pixel_of_a_large_detector_is_where_file_to_image_says(views, tmp_path) -> None:
    marked = grey_levels(views[0], 4095).repeat(9, 0).repeat(9, 1)  # 2304: blocks of two pixels
    marked[700:760, 1500:1580] = 65535
    write_dicom(tmp_path / "pa.dcm", marked.T, ImagerPixelSpacing=[0.2, 0.2])
    write_dicom(tmp_path / "lateral.dcm", grey_levels(views[1], 4095), ImagerPixelSpacing=[1.8, 1.8])
    placed = place_pair([tmp_path / "pa.dcm", tmp_path / "lateral.dcm"], 96)
    image = placed.image[0].numpy()
    weight = np.nan_to_num(image - 0.3 * np.nanmax(image)).clip(0)
    middle = (np.indices(image.shape) * weight).sum((1, 2)) / weight.sum()
    expected = np.array(placed.record["pa"]["file_to_image"]) @ [729.5, 1539.5, 1]
    np.testing.assert_allclose([*middle, 1], expected, atol=0.3)


def test_placing_needs_little_memory(views, tmp_path) -> None:
    files = write_detector(tmp_path, views, 11)
    pixels = max(pydicom.dcmread(path).pixel_array.size for path in files)
    tracemalloc.start()
    try:
        place_pair(files, SIZE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 14 * pixels  # stored, indices and grey values of one file; both at once, with copies: 21


def test_a_pa_without_a_side_is_warned_of(views, tmp_path) -> None:
    both_sides = np.stack([np.minimum(views[0], views[0][::-1]), views[1]])
    assert place_pair(write(tmp_path, views), SIZE).warnings == []
    files = write(tmp_path, both_sides)
    (warning,) = [text for text in place_pair(files, SIZE).warnings if "mirrored" in text]
    assert warning.startswith("the PA view may be mirrored")
    assert "keep_orientation" in warning
    assert not any("mirrored" in text for text in place_pair(files, SIZE, keep_orientation=True).warnings)

"""Radiograph files as they come: tags that make no sense, pictures with tints and 16 bits, NIfTIs of other programs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import matplotlib
import nibabel
import numpy as np
import pydicom
import pytest
import skimage
from dicom_encodings import ENCODINGS, encoded
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin
from pydicom.dataset import Dataset
from radiograph_cases import DETECTOR_MM, HEAD_DOWN, MIRRORED, ON_ITS_SIDE, UPRIGHT, write_dicom
from scipy import ndimage

from xrecon_bundle.datasets.radiograph_pairs import choose_radiographs, find_pairs
from xrecon_bundle.dicom.write import read_source, write_ct_series
from xrecon_bundle.files import InputError
from xrecon_bundle.io.radiograph import read_radiograph
from xrecon_bundle.io.radiograph_files import PNG_FIELD_OF_VIEW
from xrecon_bundle.placement.radiographs import place_pair

ROWS, COLUMNS = 300, 240


def picture(highest: int, rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    """``(rows, columns)`` whole grey levels: waves on a ramp, a block at the upper left."""
    v, u = np.mgrid[:rows, :columns] / rows
    unit = 0.3 + 0.3 * v + 0.2 * np.sin(9 * u) * np.cos(6 * v)
    unit[rows // 10 : rows // 5, columns // 8 : columns // 3] = 0.95
    return np.rint(unit * highest).astype(np.uint8 if highest < 256 else np.uint16)


# --- tags that make no sense ---------------------------------------------------------------------------------------

WHOLE = (slice(0, ROWS), slice(0, COLUMNS))


def edges(shape: str, upper: Any, lower: Any, left: Any, right: Any) -> dict[str, Any]:
    return {
        f"{shape}Shape": "RECTANGULAR",
        f"{shape}UpperHorizontalEdge": upper,
        f"{shape}LowerHorizontalEdge": lower,
        f"{shape}LeftVerticalEdge": left,
        f"{shape}RightVerticalEdge": right,
    }


@pytest.mark.parametrize("shape", ["Collimator", "Shutter"])
@pytest.mark.parametrize(
    ("edge", "inside", "doubt"),
    [
        ((21, 280, 31, 200), (slice(20, 280), slice(30, 200)), None),
        ((0, ROWS + 1, 1, COLUMNS), WHOLE, None),
        ((1, ROWS, 0, COLUMNS + 1), WHOLE, None),
        ((-150, 150, -120, 120), WHOLE, "lie outside the image"),  # counted from the middle
        ((1, 430, 1, 430), WHOLE, "lie outside the image"),  # in mm, of an image with fewer pixels
        ((1, 43, 1, 35), WHOLE, "leave too little for a chest"),  # in cm
        ((10, 100, 10, 70), WHOLE, "leave too little for a chest"),
        ((280, 21, 31, 200), WHOLE, "are exchanged"),
        ((21, 280, 200, 31), WHOLE, "are exchanged"),
        ((21, 280, 31, None), WHOLE, "are missing or no numbers"),
        ((0, 0, 0, 0), WHOLE, "are exchanged"),
    ],
)
def test_edges_are_believed_where_they_leave_a_chest(shape, edge, inside, doubt, tmp_path):
    stored = picture(4095)
    write_dicom(tmp_path / "x.dcm", stored, ImagerPixelSpacing=[1.5, 1.5], **edges(shape, *edge))
    result = read_radiograph(tmp_path / "x.dcm", "pa")
    np.testing.assert_array_equal(result.grey.T[inside], stored[inside])
    exposed = np.zeros((ROWS, COLUMNS), bool)
    exposed[inside] = True
    np.testing.assert_array_equal(True if result.exposed is None else result.exposed.T, exposed)
    if not exposed.all():
        assert len(np.unique(result.grey.T[~exposed])) == 1
        assert result.grey.T[~exposed][0] <= np.percentile(stored[inside], 1)
    if doubt is None:
        assert result.warnings == ()
    else:
        (warning,) = result.warnings
        assert warning.startswith(f"PA: the {shape.lower()}'s edges (")
        assert doubt in warning


def circle(device: str, *values: Any) -> dict[str, Any]:
    row, column, radius = values
    centre = None if row is None else [row, column]
    return {f"{device}Shape": "CIRCULAR", f"CenterOfCircular{device}": centre, f"RadiusOfCircular{device}": radius}


def polygon(device: str, *corners: Any) -> dict[str, Any]:
    """Corners as rows and columns."""
    return {f"{device}Shape": "POLYGONAL", f"VerticesOfThePolygonal{device}": list(corners)}


def in_circle(row: float, column: float, radius: float, taller: float = 1.0) -> np.ndarray:
    rows, columns = np.mgrid[1 : ROWS + 1, 1 : COLUMNS + 1]
    return ((rows - row) / taller) ** 2 + (columns - column) ** 2 <= radius**2


def in_polygon(*corners: float) -> np.ndarray:
    """Of a convex polygon, its corners clockwise as a viewer sees them; a pixel's width beyond is inside too."""
    points = np.reshape(corners, (-1, 2)).astype(float)
    rows, columns = np.mgrid[1 : ROWS + 1, 1 : COLUMNS + 1]
    inside = np.ones((ROWS, COLUMNS), bool)
    for (row, column), (row_end, column_end) in zip(points, np.roll(points, -1, 0), strict=True):
        height, width = row_end - row, column_end - column
        inside &= (width * (rows - row) - height * (columns - column)) / np.hypot(height, width) >= -0.5
    return inside


EVERYWHERE = np.ones((ROWS, COLUMNS), bool)
TILTED = (21, 41, 61, 221, 281, 181, 241, 11)  # upper left, upper right, lower right, lower left
FIVE = (21, 31, 21, 201, 151, 221, 280, 121, 201, 31)
ROUND_FIELDS = {
    "circle": (circle, (141, 101, 95), in_circle(141, 101, 95), None),
    "beyond two edges": (circle, (141, 101, 120), in_circle(141, 101, 120), None),
    "around the image": (circle, (141, 101, 300), EVERYWHERE, None),
    "centre from the middle": (circle, (-20, 30, 95), EVERYWHERE, "lie outside the image"),
    "centre at 0": (circle, (0, 0, 180), EVERYWHERE, "lie outside the image"),
    "centre exchanged": (circle, (101, 270, 95), EVERYWHERE, "lie outside the image"),
    "radius in cm": (circle, (141, 101, 21), EVERYWHERE, "leave too little for a chest"),
    "negative radius": (circle, (141, 101, -95), EVERYWHERE, "leave too little for a chest"),
    "no radius": (circle, (141, 101, None), EVERYWHERE, "are missing or no numbers"),
    "no centre": (circle, (None, None, 95), EVERYWHERE, "are missing or no numbers"),
    "tilted": (polygon, TILTED, in_polygon(*TILTED), None),
    "first corner repeated": (polygon, (*TILTED, *TILTED[:2]), in_polygon(*TILTED), None),
    "anticlockwise": (polygon, (241, 11, 281, 181, 61, 221, 21, 41), in_polygon(*TILTED), None),
    "five corners": (polygon, FIVE, in_polygon(*FIVE), None),
    "corners in mm": (polygon, (1, 1, 1, 430, 430, 430, 430, 1), EVERYWHERE, "lie outside the image"),
    "corners from the middle": (polygon, (-99, -99, -99, 99, 99, 99, 99, -99), EVERYWHERE, "lie outside the image"),
    "two corners exchanged": (polygon, (21, 41, 281, 181, 61, 221, 241, 11), EVERYWHERE, "make sides that cross"),
    "corners in cm": (polygon, (1, 1, 1, 43, 43, 43, 43, 1), EVERYWHERE, "leave too little for a chest"),
    "a sliver": (polygon, (1, 1, 1, 11, 300, 240, 300, 230), EVERYWHERE, "leave too little for a chest"),
    "one point": (polygon, (50, 50, 50, 50, 50, 50, 50, 50), EVERYWHERE, "leave too little for a chest"),
    "odd": (polygon, TILTED[:-1], EVERYWHERE, "are missing or no numbers"),
    "a line": (polygon, (21, 41, 281, 181), EVERYWHERE, "are missing or no numbers"),
}  # fmt: skip


@pytest.mark.parametrize("device", ["Collimator", "Shutter"])
@pytest.mark.parametrize(("draw", "values", "inside", "doubt"), ROUND_FIELDS.values(), ids=ROUND_FIELDS)
def test_round_and_polygonal_fields_are_believed_where_they_leave_a_chest(
    draw, values, inside, doubt, device, tmp_path
):
    stored = picture(4095)
    write_dicom(tmp_path / "x.dcm", stored, ImagerPixelSpacing=[1.5, 1.5], **draw(device, *values))
    result = read_radiograph(tmp_path / "x.dcm", "pa")
    exposed = np.ones_like(inside) if result.exposed is None else result.exposed.T
    near_outline = ndimage.binary_dilation(inside) & ~ndimage.binary_erosion(inside, border_value=1)
    tolerated = near_outline if draw is polygon else np.zeros_like(inside)
    np.testing.assert_array_equal(exposed | tolerated, inside | tolerated)
    np.testing.assert_array_equal(result.grey.T[exposed], stored[exposed])
    if not exposed.all():
        assert result.grey.T[~exposed].max() <= np.percentile(stored[exposed], 1)
    if doubt is None:
        assert result.warnings == ()
    else:
        (warning,) = result.warnings
        assert warning.startswith(
            f"PA: the {device.lower()}'s {'corners' if draw is polygon else 'centre and radius'} ("
        )
        assert doubt in warning


def test_a_polygon_with_straight_sides_is_a_rectangle(tmp_path):
    write_dicom(tmp_path / "a.dcm", picture(4095), **edges("Collimator", 21, 280, 31, 200))
    write_dicom(tmp_path / "b.dcm", picture(4095), **polygon("Collimator", 21, 31, 21, 200, 280, 200, 280, 31))
    first, second = (read_radiograph(tmp_path / name, "pa").exposed for name in ("a.dcm", "b.dcm"))
    np.testing.assert_array_equal(first, second)


def test_a_circle_is_round_in_millimetres(tmp_path):
    tags = circle("Collimator", 141, 101, 80)  # the radius is counted in columns, 1.8 mm apart; rows: 1.2 mm
    write_dicom(tmp_path / "x.dcm", picture(4095), ImagerPixelSpacing=[1.2, 1.8], **tags)
    exposed = read_radiograph(tmp_path / "x.dcm", "pa").exposed.T
    np.testing.assert_array_equal(exposed, in_circle(141, 101, 80, taller=1.5))


def test_what_is_outside_any_shape_is_unknown(tmp_path):
    tags = edges("Collimator", 41, 280, 31, 200) | circle("Collimator", 141, 101, 95) | polygon("Shutter", *TILTED)
    tags |= dict(CollimatorShape=["RECTANGULAR", "CIRCULAR"], ImagerPixelSpacing=[1.5, 1.5])
    write_dicom(tmp_path / "x.dcm", picture(4095), **tags)
    result = read_radiograph(tmp_path / "x.dcm", "pa")
    rectangle = np.zeros((ROWS, COLUMNS), bool)
    rectangle[40:280, 30:200] = True
    all_three = rectangle & in_circle(141, 101, 95) & in_polygon(*TILTED)
    assert np.mean(result.exposed.T ^ all_three) < 0.002
    assert result.warnings == ()


def test_shapes_that_leave_nothing_together_are_not_both_believed(tmp_path):
    tags = edges("Collimator", 1, 140, 1, COLUMNS) | edges("Shutter", 141, ROWS, 1, COLUMNS)
    write_dicom(tmp_path / "x.dcm", picture(4095), **tags)
    result = read_radiograph(tmp_path / "x.dcm", "pa")
    np.testing.assert_array_equal(result.exposed[0], np.arange(ROWS) < 140)
    (warning,) = result.warnings
    assert warning.startswith("PA: the shutter's edges")


def test_a_polygon_with_very_many_corners_is_refused_at_once(tmp_path):
    angle = np.linspace(0, 2 * np.pi, 5000)
    corners = np.stack([150 + 100 * np.cos(angle), 120 + 100 * np.sin(angle)], 1).astype(int).ravel().tolist()
    write_dicom(tmp_path / "x.dcm", picture(4095), **polygon("Shutter", *corners))
    (warning,) = read_radiograph(tmp_path / "x.dcm", "pa").warnings
    assert "more than a field has" in warning
    assert len(warning) < 200


def test_edges_that_leave_too_few_millimetres_are_not_believed(tmp_path):
    for spacing, believed in ((0.5, False), (1.5, True)):
        tags = edges("Collimator", 61, 180, 61, 180)
        write_dicom(tmp_path / "x.dcm", picture(4095), ImagerPixelSpacing=[spacing, spacing], **tags)
        assert (read_radiograph(tmp_path / "x.dcm", "pa").exposed is not None) == believed


@pytest.mark.parametrize(
    ("tags", "spacing", "doubts"),
    [
        (dict(ImagerPixelSpacing=["0", "0"]), None, ["ImagerPixelSpacing is '0\\0', which is no spacing"]),
        (dict(PixelSpacing=["0", "0"], ImagerPixelSpacing=[0.4, 0.5]), (0.5, 0.4), ["PixelSpacing is '0\\0'"]),
        (dict(PixelSpacing=["NaN", "NaN"], ImagerPixelSpacing=[0.4, 0.5]), (0.5, 0.4), ["PixelSpacing is"]),
        (dict(PixelSpacing=["-0.2", "-0.2"], ImagerPixelSpacing=None), None, ["PixelSpacing is"]),
        (dict(PixelSpacing="0.2", ImagerPixelSpacing=None), None, ["PixelSpacing is '0.2', which is no spacing"]),
        (dict(PixelSpacing=["inf", "inf"], ImagerPixelSpacing=None), None, ["PixelSpacing is"]),
        (
            dict(PixelSpacing=["0", "0"], ImagerPixelSpacing=["0", "0"], NominalScannedPixelSpacing=[0.4, 0.5]),
            (0.5, 0.4),
            ["ImagerPixelSpacing", "PixelSpacing"],
        ),
        (dict(DistanceSourceToDetector="0"), (0.5, 0.4), ["DistanceSourceToDetector is '0'"]),
        (dict(DistanceSourceToDetector="1.8"), (0.5, 0.4), ["DistanceSourceToDetector is '1.8' mm"]),
        (dict(DistanceSourceToDetector="180"), (0.5, 0.4), ["DistanceSourceToDetector is '180' mm"]),
        (dict(DistanceSourceToDetector="-1800"), (0.5, 0.4), ["DistanceSourceToDetector"]),
        (dict(DistanceSourceToDetector=""), (0.5, 0.4), []),
    ],
)
def test_a_scale_that_makes_no_sense_is_not_believed(tags, spacing, doubts, tmp_path):
    write_dicom(tmp_path / "x.dcm", picture(4095), **(dict(ImagerPixelSpacing=[0.4, 0.5]) | tags))
    result = read_radiograph(tmp_path / "x.dcm", "lateral")
    assert result.spacing_mm is None if spacing is None else result.spacing_mm == pytest.approx(spacing)
    assert len(result.warnings) == len(doubts)
    for warning, doubt in zip(result.warnings, doubts, strict=True):
        assert warning.startswith("left lateral: ")
        assert doubt in warning
        assert "not believed" in warning


def test_padding_that_covers_the_image_is_not_believed(tmp_path):
    stored = np.full((ROWS, COLUMNS), 0, np.uint16)
    stored[:20] = picture(4095)[:20]
    write_dicom(tmp_path / "x.dcm", stored, PixelPaddingValue=0)
    result = read_radiograph(tmp_path / "x.dcm", "pa")
    assert result.exposed is None
    assert result.warnings == ("PA: the padding value covers 93% of the image: not believed",)


def test_what_is_not_believed_reaches_the_pair(tmp_path):
    write_dicom(tmp_path / "pa.dcm", picture(4095), PixelSpacing=["0", "0"])
    write_dicom(tmp_path / "lateral.dcm", picture(4095)[::-1].copy(), **edges("Shutter", 5, 2, 1, 1))
    first, second, *_ = place_pair([tmp_path / "pa.dcm", tmp_path / "lateral.dcm"], 32).warnings
    assert first.startswith("PA: PixelSpacing")
    assert second.startswith("left lateral: the shutter's edges")


# --- how the file lies ---------------------------------------------------------------------------------------------


def check_matrix(result: Any, in_file: np.ndarray) -> None:
    """Each of the file's pixels (row, column) is where ``file_to_grey`` says."""
    rows, columns = np.indices(in_file.shape)
    u, v, one = result.file_to_grey @ np.stack([columns.ravel(), rows.ravel(), np.ones(in_file.size)])
    np.testing.assert_array_equal(one, 1)
    np.testing.assert_array_equal(result.grey[u.astype(int), v.astype(int)], in_file.ravel())


@pytest.mark.parametrize(
    ("change", "orientation"),
    [
        (lambda a: a, UPRIGHT),
        (np.fliplr, MIRRORED),
        (lambda a: np.rot90(a, 2), HEAD_DOWN),
        (lambda a: np.rot90(a, -1), ON_ITS_SIDE),
        (np.transpose, {"pa": ["F", "L"], "lateral": ["F", "P"]}),
        (np.flipud, {"pa": ["L", "H"], "lateral": ["P", "H"]}),
    ],
    ids=["upright", "mirrored", "head down", "on its side", "transposed", "upside down"],
)
@pytest.mark.parametrize("view", ["pa", "lateral"])
def test_file_to_grey_says_how_a_dicom_was_turned(change, orientation, view, tmp_path):
    upright = picture(4095)
    stored = np.ascontiguousarray(change(upright))
    tags = edges("Collimator", 31, stored.shape[0] - 10, 21, stored.shape[1])
    write_dicom(tmp_path / "x.dcm", stored, PatientOrientation=orientation[view], ImagerPixelSpacing=[1.4, 1.5], **tags)
    result = read_radiograph(tmp_path / "x.dcm", view)
    assert result.oriented
    inside = np.zeros(stored.shape, bool)
    inside[30:-10, 20:] = True
    u, v, _ = (result.file_to_grey @ np.stack([*np.argwhere(inside)[:, ::-1].T, np.ones(inside.sum())])).astype(int)
    np.testing.assert_array_equal(result.grey[u, v], stored[inside])
    assert result.exposed[u, v].all()
    assert result.exposed.sum() == inside.sum()
    found, expected = result.grey[result.exposed], upright.T[result.exposed]
    np.testing.assert_array_equal(found, expected)
    assert result.spacing_mm == pytest.approx((1.4, 1.5) if stored.shape != upright.shape else (1.5, 1.4))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_turn_is_followed_and_told(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(255)).save(tmp_path / "x.png", exif=exif)
    result = read_radiograph(tmp_path / "x.png", "pa")
    with Image.open(tmp_path / "x.png") as image:
        np.testing.assert_array_equal(result.grey.T, np.asarray(ImageOps.exif_transpose(image)))
    check_matrix(result, picture(255))
    assert not result.oriented


@pytest.mark.parametrize(
    ("affine", "turned"),
    [
        # dcm2niix of a DICOM without position: the lowest row first
        (np.diag([-0.2, 0.3, 1, 1]), True),
        (np.diag([-1.0, 1, 1, 1]), True),
        # ITK of a picture: DICOM's axes
        (np.diag([-0.2, -0.3, 1, 1]), False),
        # writers that know no axes
        (np.eye(4), False),
        (np.diag([0.2, 0.3, 1, 1]), False),
    ],
    ids=["dcm2niix", "dcm2niix without spacing", "ITK", "identity", "spacing only"],
)
@pytest.mark.parametrize("view", ["pa", "lateral"])
def test_a_nifti_that_knows_the_screen_alone_stands_upright(affine, turned, view, tmp_path):
    upright = picture(4095).T.astype(np.float32)
    array = upright[:, ::-1] if turned else upright
    nibabel.save(nibabel.Nifti1Image(array[..., None], affine), tmp_path / "x.nii.gz")
    result = read_radiograph(tmp_path / "x.nii.gz", view)
    np.testing.assert_array_equal(result.grey, upright)
    check_matrix(result, array.T)
    spacing = np.abs(np.diag(affine)[:2])
    assert result.spacing_mm is None if np.all(spacing == 1) else result.spacing_mm == pytest.approx(spacing)
    assert not result.oriented


def test_a_nifti_as_dcm2niix_leaves_it_without_orientation_codes(tmp_path):
    upright = picture(4095).T.astype(np.int16)
    image = nibabel.Nifti1Image(upright[:, ::-1, None], None)
    image.header.set_zooms((0.2, 0.3, 1))
    nibabel.save(image, tmp_path / "x.nii")
    assert int(nibabel.load(tmp_path / "x.nii").header["sform_code"]) == 0
    np.testing.assert_array_equal(read_radiograph(tmp_path / "x.nii", "pa").grey, upright)


# --- pictures ------------------------------------------------------------------------------------------------------

WIDE = picture(4095)  # 12 bits, as exporters put them into 16


@pytest.mark.parametrize(
    "array",
    [
        WIDE,
        np.stack([WIDE] * 3, -1),
        np.stack([WIDE, np.full_like(WIDE, 65535)], -1),
        np.stack([WIDE] * 3 + [np.full_like(WIDE, 65535)], -1),
    ],
    ids=["grey", "RGB", "grey and alpha", "RGBA"],
)
def test_all_bits_of_a_16_bit_png_are_kept(array, tmp_path):
    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(array))
    result = read_radiograph(tmp_path / "x.png", "pa")
    np.testing.assert_array_equal(result.grey, WIDE.T)
    assert result.exposed is None


def test_what_is_transparent_is_not_exposed(tmp_path):
    alpha = np.full_like(WIDE, 65535)
    alpha[:, :50] = 0
    bright = WIDE.copy()
    bright[:, :50] = 65535
    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(np.stack([bright, alpha], -1)))
    result = read_radiograph(tmp_path / "x.png", "pa")
    np.testing.assert_array_equal(result.exposed, np.arange(COLUMNS)[:, None].repeat(ROWS, 1) >= 50)
    assert result.grey[:50].max() <= np.percentile(WIDE[:, 50:], 1)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("454.0", 454.0),
        ("454,0", 454.0),
        (" 430 ", 430.0),
        ("430 mm", None),
        ("0", None),
        ("-1", None),
        ("nan", None),
        ("1e9", None),
        ("", None),
    ],
)
def test_the_field_of_view_of_a_png_in_any_language(text, length, tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text(PNG_FIELD_OF_VIEW, text)
    Image.fromarray(picture(255)).save(tmp_path / "x.png", pnginfo=info)
    result = read_radiograph(tmp_path / "x.png", "pa")
    if length is None:
        assert result.spacing_mm is None
        assert "which is no length: not believed" in result.warnings[0]
    else:
        assert result.spacing_mm == pytest.approx(length / ROWS)
        assert result.warnings == ()


TINTS = {
    "blue film": lambda g: (0.75 * g, 0.85 * g, g),
    "sepia": lambda g: (g, 0.8 * g, 0.55 * g),
    "green lamp": lambda g: (0.5 * g, g, 0.6 * g),
    "blue base": lambda g: (g, g, np.maximum(g, 60)),
    "warm paper": lambda g: (30 + 0.85 * g, 25 + 0.8 * g, 10 + 0.7 * g),
    "tone curves": lambda g: (255 * (g / 255) ** 1.4, 255 * (g / 255) ** 1.1, 255 * (g / 255) ** 0.8),
    "one channel": lambda g: (0 * g, 0 * g, g),
}


@pytest.mark.parametrize("suffix", ["png", "jpg", "dcm"])
@pytest.mark.parametrize("tint", TINTS)
def test_a_tinted_picture_is_grey(tint, suffix, tmp_path):
    grey = picture(255)
    noisy = grey + np.random.default_rng(0).normal(0, 3, grey.shape)  # of the film's grain
    colours = np.stack(TINTS[tint](noisy.clip(0, 255)), -1).clip(0, 255).round().astype(np.uint8)
    path = tmp_path / f"x.{suffix}"
    if suffix == "dcm":
        write_dicom(path, colours)
    else:
        Image.fromarray(colours).save(path, **(dict(quality=80) if suffix == "jpg" else {}))
    found = read_radiograph(path, "pa").grey.T
    assert np.corrcoef(found.ravel(), grey.ravel())[0, 1] > 0.99
    order = np.argsort(grey.ravel())
    steps = found.ravel()[order].reshape(100, -1).mean(axis=1)
    assert (np.diff(steps) >= -1).all()  # darker is nowhere brighter


def test_a_coloured_emblem_does_not_make_a_radiograph_a_photograph(tmp_path):
    colours = np.stack([picture(255)] * 3, -1)
    colours[-60:-10, 10:60] = (150, 190, 110)  # 3.5 % of the picture
    Image.fromarray(colours).save(tmp_path / "x.jpg", quality=85)
    found = read_radiograph(tmp_path / "x.jpg", "pa").grey.T
    assert np.abs(found - picture(255))[:-60].mean() < 2


@pytest.mark.parametrize("name", ["astronaut.png", "chelsea.png", "coffee.png", "ihc.png", "retina.jpg", "rocket.jpg"])
def test_a_photograph_is_not_grey(name, tmp_path):
    photograph = Path(skimage.__file__).parent / "data" / name
    for path in (photograph, tmp_path / "x.dcm"):
        if path.suffix == ".dcm":
            write_dicom(path, np.asarray(Image.open(photograph).convert("RGB")))
        with pytest.raises(InputError, match="is a colour picture, not a radiograph"):
            read_radiograph(path, "pa")


@pytest.mark.parametrize("name", ["jet", "hot", "viridis", "inferno"])
def test_a_colour_map_is_not_grey(name, tmp_path):
    colours = matplotlib.colormaps[name](picture(255) / 255)[..., :3] * 255
    Image.fromarray(colours.astype(np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match="is a colour picture, not a radiograph"):
        read_radiograph(tmp_path / "x.png", "pa")


def test_a_palette_of_greys_is_grey(tmp_path):
    palette = np.arange(256).astype("<u2") * 257
    tags = {f"{name}PaletteColorLookupTableData": palette.tobytes() for name in ("Red", "Green", "Blue")}
    tags |= {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in ("Red", "Green", "Blue")}
    write_dicom(tmp_path / "x.dcm", picture(255), PhotometricInterpretation="PALETTE COLOR", **tags)
    found = read_radiograph(tmp_path / "x.dcm", "pa").grey.T
    np.testing.assert_allclose(found / 257, picture(255), atol=0.01)


# --- files without preamble, and damaged ones ----------------------------------------------------------------------


def without_preamble(path: Path, implicit: bool) -> bytes:
    """The data set alone, as very old archives send it."""
    dataset = pydicom.dcmread(path)
    del dataset.file_meta
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, implicit_vr=implicit, little_endian=True)
    return file.getvalue()


@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
def test_files_without_preamble_are_read_and_found(implicit, tmp_path):
    for name, position in (("one", "PA"), ("two", "LL")):
        write_dicom(tmp_path / name, picture(4095), ViewPosition=position, StudyInstanceUID="1.2.3")
        (tmp_path / name).write_bytes(without_preamble(tmp_path / name, implicit))
    np.testing.assert_array_equal(read_radiograph(tmp_path / "one", "pa").grey.T, picture(4095))
    pairs, problems = find_pairs(tmp_path)
    assert [(pair.case, pair.files) for pair in pairs] == [("1.2.3", (tmp_path / "one", tmp_path / "two"))]
    assert problems == {}
    assert choose_radiographs(tmp_path) == (tmp_path / "one", tmp_path / "two")


def full_header(path: Path, encoding: str) -> bytes:
    """A radiograph whose header has a tag of every kind that is read."""
    code, table = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "272479007", "SCT", "postero-anterior"
    bits = 12 if 12 in ENCODINGS[encoding].bits else 8
    table.LUTDescriptor, table.LUTData = [2**bits % 65536, 0, 16], np.arange(2**bits).astype("<u2").tobytes()
    write_dicom(
        path,
        picture(2**bits - 1, 48, 40),
        BitsStored=bits,
        HighBit=bits - 1,
        PatientName="Doe^Jane",
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.4",
        SeriesDescription="Chest PA",
        AcquisitionTime="101112",
        InstanceNumber="1",
        ViewPosition="PA",
        ViewCodeSequence=[code],
        PatientOrientation=UPRIGHT["pa"],
        PixelSpacing=[0.4, 0.5],
        DistanceSourceToDetector="1800",
        RescaleSlope="1",
        RescaleIntercept="0",
        WindowCenter="2048",
        WindowWidth="4096",
        VOILUTSequence=[table],
        PixelPaddingValue=0,
        SpecificCharacterSet="ISO_IR 192",
        **edges("Collimator", 1, 48, 1, 40),
    )
    encoded(pydicom.dcmread(path), encoding).save_as(path, enforce_file_format=True)
    return path.read_bytes()


ENCODED = ["explicit little endian", "implicit little endian", "deflated", "RLE", "JPEG lossless SV1", "HTJ2K"]
VRS = [b"SQ", b"UN", b"OB", b"OW", b"DS", b"IS", b"US", b"XX", b"PN", b"UI", bytes(2), b"\xff\xff\xff\xff"]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("good")
    return [full_header(folder / "x.dcm", name) for name in ENCODED]


@st.composite
def damages(draw: st.DrawFn) -> tuple[int, int | None, list[tuple[float, bytes]]]:
    """Which file, where it is cut off if at all, and what is written where (as a share of its header)."""
    patch = st.sampled_from(VRS) | st.binary(min_size=1, max_size=6)
    patches = st.lists(st.tuples(st.floats(0, 1), patch), min_size=1, max_size=5)
    cut = st.none() | st.none() | st.integers(1, 2500)
    return draw(st.integers(0, len(ENCODED) - 1)), draw(cut), draw(patches)


def refusal(read: Callable[[], Any]) -> str:
    """The message of the one error that there may be."""
    try:
        read()
    except InputError as error:
        return str(error)
    return ""


@settings(deadline=None, max_examples=400, derandomize=True)
@given(damage=damages())
def test_no_damage_ends_in_anything_but_a_picture_or_a_refusal(damage, good, tmp_path_factory):
    number, cut, patches = damage
    content = bytearray(good[number])
    for place, patch in patches:
        start = 132 + int(place * min(len(content) - 132, 1600))
        content[start : start + len(patch)] = patch
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    path = folder / "x"
    path.write_bytes(bytes(content[:cut]))
    for read in (
        lambda: read_radiograph(path, "pa"),
        lambda: read_radiograph(path, "lateral", accept_any_view=True),
        lambda: choose_radiographs(folder),
    ):
        assert "\n" not in refusal(read)
    found = []
    refused = refusal(lambda: found.append(find_pairs(folder)))
    assert "no radiographs here" in refused or (found[0][0] == [] and found[0][1])
    read_source(path)


def test_a_damaged_header_costs_one_file_and_is_listed(good, tmp_path):
    for name, position in (("one", "PA"), ("two", "LL")):
        write_dicom(tmp_path / name, picture(4095), ViewPosition=position, StudyInstanceUID="1.2.3")
    bad = good[0].replace(b"CS\x02\x00PA", b"ZZ\x02\x00PA")
    assert bad != good[0]
    (tmp_path / "unknown VR").write_bytes(bad)
    (tmp_path / "cut").write_bytes(good[0][:152])
    pairs, problems = find_pairs(tmp_path)
    assert [pair.case for pair in pairs] == ["1.2.3"]
    assert sorted(problems) == ["cut", "unknown VR"]
    for name, problem in problems.items():
        assert problem.startswith(f"{tmp_path / name}: the DICOM header is damaged (")
    assert choose_radiographs(tmp_path) == (tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.replace(b"PN\x08\x00Doe^Jane", b"XX\x08\x00Doe^Jane"),
        lambda content: content.replace(b"ISO_IR 192", b"ISO_IR 9\xff2"),
        lambda content: content.replace(b"Doe^Jane", b"Doe^\xff\xfe\xfde"),
        lambda content: content,
    ],
    ids=["unknown VR", "unknown character set", "undecodable name", "good"],
)
def test_a_dicom_series_can_be_derived_from_a_damaged_header(damage, good, tmp_path):
    (tmp_path / "x").write_bytes(damage(good[0]))
    source = read_source(tmp_path / "x")
    assert source.PatientID == "1"
    assert source.StudyInstanceUID == "1.2.3"
    write_ct_series(tmp_path / "ct", np.zeros((4, 4, 2)), np.diag([-1.0, -1, 1, 1]), [source])
    assert pydicom.dcmread(next((tmp_path / "ct").iterdir())).PatientID == "1"


def test_a_source_without_preamble_still_gives_patient_and_study(tmp_path):
    write_dicom(tmp_path / "x", picture(4095), PatientName="Müller", SpecificCharacterSet="ISO_IR 192")
    (tmp_path / "x").write_bytes(without_preamble(tmp_path / "x", implicit=True))
    assert str(read_source(tmp_path / "x").PatientName) == "Müller"


def test_scale_of_a_whole_detector_is_kept(tmp_path):
    write_dicom(tmp_path / "x.dcm", picture(4095))
    assert read_radiograph(tmp_path / "x.dcm", "pa").spacing_mm == pytest.approx(
        (DETECTOR_MM / COLUMNS, DETECTOR_MM / ROWS)
    )

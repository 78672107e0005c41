"""CT files that are not DICOM: read as their header says, or refused; never with a wrong side, size or value."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py
import itk
import nibabel
import numpy as np
import pytest
from chest_phantom import dicom_slices, phantom, phantom_affine, save_dicom, save_nifti
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xrecon_bundle.datasets.prepare import prepare
from xrecon_bundle.datasets.sources import find_sources
from xrecon_bundle.files import InputError, write_nifti
from xrecon_bundle.io.hdf5 import read_hdf5, write_hdf5
from xrecon_bundle.io.readers import read_ct
from xrecon_bundle.placement.standardize import standardize_ct
from xrecon_bundle.workflows.simulate import simulate_case

SHAPE = (50, 30, 36)
AFFINE = phantom_affine(10.0, SHAPE) @ np.diag([1.0, 1, -1, 1])  # columns to the left, rows to the back, slices upwards
AFFINE[2, 3] = phantom_affine(10.0, SHAPE)[2, 3] - 10 * (SHAPE[2] - 1)
HU = phantom(AFFINE, SHAPE)
LPS = np.diag([-1.0, -1, 1, 1])
SHEARED = AFFINE @ np.array(
    [[1, 0, 0, 0], [0, 1, 0.36, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]
)  # a gantry tilt of 20 degrees

Build = Callable[[Path], Path]


def nifti(change: Callable[[nibabel.Nifti1Header], None] = lambda header: None, affine: np.ndarray = AFFINE) -> Build:
    """HU with sform, qform and pixdim of ``affine``; ``change`` then edits the header as nibabel would not."""

    def build(folder: Path) -> Path:
        write_nifti(folder / "ct.nii", HU, affine)
        content = (folder / "ct.nii").read_bytes()
        header = nibabel.Nifti1Header(content[:348], check=False)
        change(header)
        (folder / "ct.nii").write_bytes(header.binaryblock + content[348:])
        return folder / "ct.nii"

    return build


def fields(**values: object) -> Callable[[nibabel.Nifti1Header], None]:
    """Fields of a NIfTI header as they are stored; ``pixdim`` is that of the three axes."""

    def change(header: nibabel.Nifti1Header) -> None:
        for name, value in values.items():
            if name == "pixdim":
                header["pixdim"][1:4] = value
            else:
                header[name] = value

    return change


def sform(affine: np.ndarray, **values: object) -> Callable[[nibabel.Nifti1Header], None]:
    rows = dict(zip(("srow_x", "srow_y", "srow_z"), affine[:3], strict=True))
    return fields(**rows, **values)


def stored(values: np.ndarray, slope: float = 1, intercept: float = 0) -> Build:
    def build(folder: Path) -> Path:
        image = nibabel.Nifti1Image(values, AFFINE, dtype=values.dtype)
        image.header.set_slope_inter(slope, intercept)
        nibabel.save(image, folder / "ct.nii.gz")
        return folder / "ct.nii.gz"

    return build


def itk_file(suffix: str, *changes: tuple[str, str], name: str = "ct", compression: bool = False) -> Build:
    """HU written by ITK; each change is a pattern in the header, of one line, and what it is replaced by."""

    def build(folder: Path) -> Path:
        path, lps = folder / f"{name}.{suffix}", LPS @ AFFINE
        image = itk.image_from_array(np.ascontiguousarray(HU.transpose(2, 1, 0)))
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing)
        image.SetOrigin(lps[:3, 3])
        image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
        itk.imwrite(image, str(path), compression=compression)
        content = path.read_bytes()
        for pattern, replacement in changes:
            content, count = re.subn(pattern.encode(), replacement.encode(), content, count=1, flags=re.MULTILINE)
            assert count == 1
        path.write_bytes(content)
        return path

    return build


def split_raw(*names: str, data: str, suffix: str = "mhd") -> Build:
    """A header whose voxels lie in several files of equally many slices; ``data`` is the entry that names them."""

    def build(folder: Path) -> Path:
        entry = {"mhd": "ElementDataFile = ", "nhdr": "data file: "}[suffix]
        path = itk_file(suffix, (f"^{entry}.*", f"{entry}{data}"), name="one")(folder)
        (raw,) = folder.glob("one*raw")
        slices = np.array_split(np.frombuffer(raw.read_bytes(), np.int16).reshape(SHAPE[::-1]), len(names))
        for name, part in zip(names, slices, strict=True):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(part.tobytes())
        raw.unlink()
        return path

    return build


def voxels_as_text(folder: Path) -> Path:
    """A MetaImage whose voxels are written as numbers; the last one is missing."""
    path = itk_file("mhd", ("^BinaryData = True", "BinaryData = False"))(folder)
    (folder / "ct.raw").write_text(" ".join(map(str, HU.transpose(2, 1, 0).ravel()[:-1])))
    return path


ONE_A_SLICE = [f"s{number:03d}.raw" for number in range(1, SHAPE[2] + 1)]
SPACED = [f"sub/slice {number}.raw" for number in range(1, SHAPE[2] + 1)]
READ = {
    "nifti": nifti(),
    "nifti, only sform": nifti(fields(qform_code=0)),
    "nifti, only qform": nifti(fields(sform_code=0)),
    "nifti, slope 0": nifti(fields(scl_slope=0, scl_inter=7)),
    "nifti, slope NaN": nifti(fields(scl_slope=np.nan, scl_inter=np.nan)),
    "nifti, metres": nifti(fields(xyzt_units=1), np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE),
    "nifti, micrometres": nifti(fields(xyzt_units=3), np.diag([1e3, 1e3, 1e3, 1]) @ AFFINE),
    "nifti, qfac 0": nifti(lambda header: header["pixdim"].__setitem__(0, 0)),
    "nifti, 4D with one volume": nifti(lambda header: header["dim"].__setitem__(slice(0, 5), (4, *SHAPE, 1))),
    "nifti, uint16 with an intercept": stored((HU + 1024).astype(np.uint16), 1, -1024),
    "nifti, int64": stored(HU.astype(np.int64)),
    "nifti, uint32 with slope and intercept": stored(((HU + 1024) * 2).astype(np.uint32), 0.5, -1024),
    "mha": itk_file("mha"),
    "mha, compressed": itk_file("mha", compression=True),
    "mha, unknown AnatomicalOrientation": itk_file("mha", ("^AnatomicalOrientation.*", "AnatomicalOrientation = ???")),
    "mha, no AnatomicalOrientation": itk_file("mha", ("^AnatomicalOrientation.*\n", "")),
    "mha, the matrix called Rotation": itk_file("mha", ("^TransformMatrix", "Rotation")),
    "mhd": itk_file("mhd"),
    "mhd, a space in the raw file's name": itk_file("mhd", name="my ct"),
    "mhd, a list of raw files": split_raw(*ONE_A_SLICE, data="\n".join(["LIST", *ONE_A_SLICE])),
    "mhd, a list with spaces in the names": split_raw(*SPACED, data="\n".join(["LIST 2", *SPACED])),
    "mhd, a pattern of raw files": split_raw(*ONE_A_SLICE, data=f"s%03d.raw 1 {SHAPE[2]} 1"),
    "nrrd": itk_file("nrrd"),
    "nrrd, compressed": itk_file("nrrd", compression=True),
    "nrrd, LPS": itk_file("nrrd", ("left-posterior-superior", "LPS")),
    "nrrd, space in capitals": itk_file("nrrd", ("left-posterior-superior", "Left-Posterior-Superior")),
    "nrrd, RAS": itk_file(
        "nrrd",
        ("left-posterior-superior", "right-anterior-superior"),
        (r"\(10,0,0\) \(0,10,0\)", "(-10,0,0) (0,-10,0)"),
        (r"\(-257,-115", "(257,115"),
    ),
    "nrrd, metres": itk_file(
        "nrrd",
        (r"\(10,0,0\) \(0,10,0\) \(0,0,10\)", "(.01,0,0) (0,.01,0) (0,0,.01)"),
        ("^space origin.*", 'space origin: (-.257,-.115,-.325)\nspace units: "m" "m" "m"'),
    ),
    "nhdr, a space in the raw file's name": itk_file("nhdr", name="my ct"),
    "nhdr, a list of raw files": split_raw("a.raw", "sub/b.raw", data="LIST 3\na.raw\nsub/b.raw", suffix="nhdr"),
    "nhdr, a pattern of raw files": split_raw(*ONE_A_SLICE, data=f"s%03d.raw 1 {SHAPE[2]} 1 2", suffix="nhdr"),
}


@pytest.mark.parametrize("name", READ)
def test_what_says_where_it_is_is_read_as_it_is(name, tmp_path):
    volume = read_ct(READ[name](tmp_path))
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-3)
    np.testing.assert_array_equal(volume.hu, HU)


def test_a_gantry_tilt_is_no_contradiction(tmp_path):
    """A qform cannot be sheared: what nibabel (and we) write, and what keeps the directions within the slice."""
    np.testing.assert_allclose(read_ct(nifti(affine=SHEARED)(tmp_path)).affine, SHEARED, atol=1e-3)
    quatern = nibabel.Nifti1Header()
    quatern.set_qform(AFFINE, 1)
    quaternion = {f"quatern_{letter}": quatern[f"quatern_{letter}"] for letter in "bcd"}
    for spacing in ((10, 10, np.linalg.norm(SHEARED[:3, 2])), (10, 10, 10)):  # along the slices' stack; between planes
        path = nifti(fields(**quaternion, pixdim=spacing), SHEARED)(tmp_path)
        np.testing.assert_allclose(read_ct(path).affine, SHEARED, atol=1e-3)


def turned(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ AFFINE


def shorten(path: Path, raw: str) -> Path:
    raw = path.with_name(raw)
    raw.write_bytes(raw.read_bytes()[:-2])
    return path


NEITHER = "left and right are unknown"
REFUSED = {
    "nifti, no codes": (nifti(fields(sform_code=0, qform_code=0)), NEITHER),
    "nifti, sform of another scale than qform": (nifti(sform(AFFINE @ np.diag([0.5, 0.5, 0.2, 1]))), "contradict"),
    "nifti, sform of another scale than pixdim, no qform": (
        nifti(sform(AFFINE @ np.diag([1, 1, 0.5, 1]), qform_code=0)),
        "voxels of 10 x 10 x 5 mm and of 10 x 10 x 10 mm",
    ),
    "nifti, sform the identity beside a right qform": (nifti(sform(np.eye(4))), "contradict"),
    "nifti, sform turned against qform": (nifti(sform(turned(30))), "turned by 30 degrees"),
    "nifti, sform mirrored against qform": (nifti(sform(np.diag([-1.0, 1, 1, 1]) @ AFFINE)), "contradict"),
    "nifti, sform with axes exchanged": (nifti(sform(AFFINE[:, [1, 0, 2, 3]])), "contradict"),
    "nifti, the identity": (nifti(affine=np.eye(4)), "geometry is lost"),
    "nifti, the identity, no sform": (nifti(fields(sform_code=0), np.eye(4)), "geometry is lost"),
    "nifti, the identity in LPS": (nifti(affine=LPS), "geometry is lost"),
    "nifti, pixdim 0": (nifti(fields(pixdim=0)), "voxel size"),
    "nifti, pixdim 0, no sform": (nifti(fields(pixdim=0, sform_code=0)), "voxel size"),
    "nifti, pixdim negative": (nifti(fields(pixdim=(-10, 10, 10), sform_code=0)), "voxel size"),
    "nifti, pixdim NaN": (nifti(fields(pixdim=np.nan)), "voxel size"),
    "nifti, metres that are mm": (nifti(fields(xyzt_units=1)), "affine in mm"),
    "nifti, micrometres that are mm": (nifti(fields(xyzt_units=3)), "affine in mm"),
    "nifti, an unknown unit": (nifti(fields(xyzt_units=5)), "damaged"),
    "nifti, slope infinite": (nifti(fields(scl_slope=np.inf)), "damaged"),
    "nifti, intercept NaN": (nifti(fields(scl_slope=2, scl_inter=np.nan)), "damaged"),
    "nifti, more voxels than the file has": (nifti(fields(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])), "promises"),
    "nifti, negative HU in unsigned integers": (stored(HU.astype(np.uint16)), "below 0 have been written as"),
    "mha, AnatomicalOrientation but no matrix": (itk_file("mha", ("^TransformMatrix.*\n", "")), NEITHER),
    "mha, neither": (itk_file("mha", ("^TransformMatrix.*\n", ""), ("^Anatomical.*\n", "")), NEITHER),
    "mha, they contradict": (itk_file("mha", ("^AnatomicalOrientation.*", "AnatomicalOrientation = LAI")), NEITHER),
    "mha, they contradict, axes": (itk_file("mha", ("^Anatomical.*", "AnatomicalOrientation = AIR")), NEITHER),
    "mha, they contradict, matrix": (
        itk_file("mha", ("^Transform.*", "TransformMatrix = -1 0 0 0 -1 0 0 0 1")),
        NEITHER,
    ),
    "mha, a matrix that scales": (itk_file("mha", ("^Transform.*", "TransformMatrix = 2 0 0 0 2 0 0 0 2")), "length 1"),
    "mha, no voxel size": (itk_file("mha", ("^ElementSpacing.*\n", "")), "voxel size"),
    "mha, voxel size 0": (itk_file("mha", ("^ElementSpacing.*", "ElementSpacing = 10 10 0")), "voxel size"),
    "mha, negative voxel size": (itk_file("mha", ("^ElementSpacing.*", "ElementSpacing = -10 10 10")), "voxel size"),
    "mha, the identity": (
        itk_file("mha", ("^ElementSpacing.*", "ElementSpacing = 1 1 1"), ("^Offset.*", "Offset = 0 0 0")),
        "geometry is lost",
    ),
    "mha, a slope": (
        itk_file("mha", ("^ElementSpacing", "ElementToIntensityFunctionSlope = 2\nElementSpacing")),
        "slope",
    ),
    "mhd, a short raw file in a list": (
        lambda folder: shorten(READ["mhd, a list of raw files"](folder), "s020.raw"),
        "s020.raw holds 2998 of 3000",
    ),
    "mhd, a short raw file in a pattern": (
        lambda folder: shorten(READ["mhd, a pattern of raw files"](folder), "s036.raw"),
        "s036.raw holds 2998 of 3000",
    ),
    "mhd, a list of volumes": (split_raw("a.raw", "b.raw", data="LIST 3\na.raw\nb.raw"), "one a slice"),
    "mhd, a list too short": (split_raw(*ONE_A_SLICE, data="\n".join(["LIST", *ONE_A_SLICE[:-1]])), "names 35 files"),
    "mhd, a pattern too short": (split_raw(*ONE_A_SLICE, data="s%03d.raw 1 35 1"), "names 35 files"),
    "mhd, a pattern without numbers": (split_raw(*ONE_A_SLICE, data="s%03d.raw"), "pattern"),
    "nhdr, a list too short": (
        split_raw(*ONE_A_SLICE, data="\n".join(["LIST 2", *ONE_A_SLICE[:-1]]), suffix="nhdr"),
        "damaged",
    ),
    "mhd, voxels as text, too few": (voxels_as_text, "damaged"),
    "mhd, a short raw file": (lambda folder: shorten(itk_file("mhd")(folder), "ct.raw"), "damaged"),
    "nhdr, a short raw file": (lambda folder: shorten(itk_file("nhdr")(folder), "ct.raw"), "damaged"),
    "mhd, a raw file outside": (itk_file("mhd", ("^ElementDataFile.*", "ElementDataFile = ../ct.raw")), "outside"),
    "mhd, an absolute path": (itk_file("mhd", ("^ElementDataFile.*", "ElementDataFile = /etc/passwd")), "outside"),
    "mhd, a list that goes outside": (split_raw("a.raw", data="LIST\na.raw\nsub/../../b.raw"), "outside"),
    "mhd, a pattern that goes outside": (split_raw("a.raw", data="../s%03d.raw 1 36 1"), "outside"),
    "mhd, a pattern of something else": (split_raw("a.raw", data="%s%n.raw 1 36 1"), "pattern"),
    "nhdr, a raw file outside": (itk_file("nhdr", ("^data file:.*", "data file: ../ct.raw")), "outside"),
    "nrrd, no space": (itk_file("nrrd", ("^space:.*\n", "space dimension: 3\n")), NEITHER),
    "nrrd, no directions": (itk_file("nrrd", ("^space directions:.*\n", "")), NEITHER),
    "nrrd, spacings for directions": (itk_file("nrrd", ("^space directions:.*", "spacings: 10 10 10")), NEITHER),
    "nrrd, a direction that is none": (itk_file("nrrd", (r"\(10,0,0\)", "none")), NEITHER),
    "nrrd, the identity": (
        itk_file(
            "nrrd", ("^space directions:.*", "space directions: (1,0,0) (0,1,0) (0,0,1)"), ("^space origin.*\n", "")
        ),
        "geometry is lost",
    ),
    "nrrd, directions of length 0": (itk_file("nrrd", (r"\(10,0,0\)", "(0,0,0)")), "damaged|singular"),
    "nrrd, a unit of something else": (itk_file("nrrd", ("^kinds", 'space units: "px" "px" "px"\nkinds')), "in px"),
    "nrrd, no end of the header": (itk_file("nrrd", (r"\)\n\n", ")\n")), "damaged"),
    **{
        f"nrrd, {space}": (itk_file("nrrd", ("left-posterior-superior", space)), NEITHER)
        for space in ("3D-right-handed", "3D-left-handed", "scanner-xyz", "Scanner-XYZ", "left-posterior-superior-time")
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_is_refused_with_the_reason_and_the_remedy(name, tmp_path):
    build, reason = REFUSED[name]
    path = build(tmp_path)
    with pytest.raises(InputError, match=reason) as error:
        read_ct(path)
    assert str(path) in str(error.value)
    assert ";" in str(error.value)


# The published HDF5


def hdf5(folder: Path, ct: np.ndarray, views: np.ndarray | None = None) -> Path:
    views = np.random.default_rng(0).integers(0, 255, (2, 40, 40)) if views is None else views
    (folder / "case").mkdir()
    with h5py.File(folder / "case" / "ct_xray_data.h5", "w") as file:
        file["ct"], file["xray1"], file["xray2"] = ct, *views
    return folder / "case" / "ct_xray_data.h5"


@pytest.fixture(scope="module")
def cube() -> np.ndarray:
    """The chest in its frame, HU."""
    return standardize_ct(phantom(phantom_affine()), phantom_affine(), 40).ct


def test_the_published_hdf5_is_one_case_whichever_command_reads_it(cube, tmp_path):
    """Its cube is the chest frame's and stays where it is: its radiographs belong to it."""
    off_centre = np.roll(cube, 3, axis=2)
    hdf5(tmp_path, off_centre.T + 1024)
    prepare(tmp_path / "case", tmp_path / "prepared", 40, workers=1)
    simulate_case(tmp_path / "case" / "ct_xray_data.h5", tmp_path / "simulated", 40)
    first, second = (
        nibabel.load(path) for path in (*tmp_path.glob("prepared/*/ct.nii.gz"), tmp_path / "simulated" / "ct.nii.gz")
    )
    np.testing.assert_array_equal(first.get_fdata(), second.get_fdata())
    np.testing.assert_array_equal(first.affine, second.affine)
    np.testing.assert_array_equal(first.get_fdata(), off_centre)


def test_a_hdf5_with_padding_below_air_is_read(cube, tmp_path):
    padded = np.where(np.arange(40) < 3, -2000, cube.T + 1024)
    expected = np.where(np.arange(40)[:, None, None] < 3, -1024, cube)
    np.testing.assert_array_equal(read_hdf5(hdf5(tmp_path, padded)).ct, expected)


HDF5_REFUSED = {
    "HU": (lambda ct: ct, "add 1024"),
    "0 to 1": (lambda ct: (ct + 1024) / 2500, "HU \\+ 1024"),
    "-1 to 1": (lambda ct: ct / 1250, "HU \\+ 1024"),
    "8-bit": (lambda ct: ((ct + 1024) / 10).clip(0, 255).astype(np.uint8), "HU \\+ 1024"),
    "all air": (lambda ct: ct * 0, "every value"),
    "HU + 2048": (lambda ct: ct + 2048, "HU \\+ 1024"),
    "NaN": (lambda ct: np.where(ct > -900, np.nan, ct + 1024.0)[8:32, 8:32, 8:32], "NaN"),
    "text": (lambda ct: np.full((4, 4, 4), b"a"), "not an HDF5 file with"),
}


@pytest.mark.parametrize("name", HDF5_REFUSED)
def test_an_hdf5_that_is_not_hu_plus_1024_is_left_out_by_every_command(name, cube, tmp_path):
    change, reason = HDF5_REFUSED[name]
    path = hdf5(tmp_path, change(cube.T))
    with pytest.raises(InputError, match=reason):
        prepare(tmp_path / "case", tmp_path / "prepared", 32, workers=1)
    with pytest.raises(InputError, match=reason):
        simulate_case(path, tmp_path / "out", 32)
    assert not list(tmp_path.rglob("ct.nii.gz"))


def test_an_hdf5_with_damaged_radiographs_or_data_elsewhere_is_refused(cube, tmp_path):
    path = hdf5(tmp_path, cube.T + 1024, np.full((2, 40, 40), np.nan))
    with pytest.raises(InputError, match="xray1 or xray2"):
        read_hdf5(path)
    with h5py.File(path, "a") as file:
        del file["ct"]
        file["ct"] = h5py.ExternalLink("elsewhere.h5", "ct")
        elsewhere = path.with_name("elsewhere.h5")
        with h5py.File(elsewhere, "w") as other:
            other["ct"] = cube.T + 1024
    with pytest.raises(InputError, match="other files"):
        read_hdf5(path)


# Damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """One good file of each kind, those of NIfTI not compressed."""
    folder = tmp_path_factory.mktemp("whole")
    write_hdf5(folder / "ct.h5", HU[:30, :30, :30], np.ones((2, 30, 30)))
    built = [nifti()(folder), *(itk_file(suffix)(folder) for suffix in ("mha", "nrrd")), folder / "ct.h5"]
    return {path.name.partition(".")[2]: path.read_bytes() for path in built}


edits = st.lists(st.tuples(st.integers(0, 2**16), st.binary(max_size=4), st.integers(0, 4)), min_size=1, max_size=6)


@pytest.mark.parametrize(("suffix", "head"), [("nii", 352), ("nii.gz", 352), ("mha", 420), ("nrrd", 420), ("h5", 4000)])
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(edits=edits, kept=st.floats(0, 1), cut=st.booleans())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(suffix, head, whole, tmp_path, edits, kept, cut):
    content = bytearray(whole[suffix.removesuffix(".gz")])
    for place, new, removed in edits:
        place %= head
        content[place : place + removed] = new
    content = bytes(content[: int(kept * len(content))] if cut else content)
    path = tmp_path / f"ct.{suffix}"
    path.write_bytes(gzip.compress(content, 1) if suffix == "nii.gz" else content)
    with suppress(InputError):
        assert np.isfinite(read_ct(path).affine).all()


@pytest.mark.parametrize("damage", [b"\xff" * 40, b"\x5a"], ids=["many bytes", "one byte"])
@pytest.mark.parametrize("suffix", ["nii.gz", "mha", "nrrd"])
def test_damage_within_compressed_voxels_is_refused(damage, suffix, tmp_path):
    """What cannot be unpacked is not read as far as it goes, and a wrong checksum means wrong voxels."""
    path = tmp_path / f"ct.{suffix}"
    build = (lambda folder: save_nifti(path, HU, AFFINE)) if suffix == "nii.gz" else itk_file(suffix, compression=True)
    content = bytearray(build(tmp_path).read_bytes())
    middle = len(content) * 2 // 3
    content[middle : middle + len(damage)] = damage
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="damaged"):
        read_ct(path)


# Cohorts

CHANGED = {
    "mhd, a space in the raw file's name": "my ct.raw",
    "mhd, a list of raw files": "s020.raw",
    "mhd, a list with spaces in the names": "sub/slice 20.raw",
    "mhd, a pattern of raw files": "s020.raw",
    "nhdr, a space in the raw file's name": "my ct.raw",
    "nhdr, a list of raw files": "sub/b.raw",
    "nhdr, a pattern of raw files": "s036.raw",
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_voxel_file_is_another_source(name, tmp_path):
    header = READ[name](tmp_path)
    (source,), _ = find_sources(tmp_path)
    assert source.path == header.name
    assert {*source.files} == {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert CHANGED[name] in source.files


def test_a_case_is_made_again_when_its_voxels_change(tmp_path):
    fine, shape = phantom_affine() @ np.diag([1.0, 1, -1, 1]), (100, 60, 72)
    fine[2, 3] -= 5 * 71
    hu = phantom(fine, shape)
    image = itk.image_from_array(np.ascontiguousarray(hu.transpose(2, 1, 0)))
    image.SetSpacing([5.0] * 3)
    image.SetOrigin((LPS @ fine)[:3, 3])
    (tmp_path / "cts").mkdir()
    itk.imwrite(image, str(tmp_path / "cts" / "my ct.mhd"))

    def run() -> tuple[int, int]:
        summary = prepare(tmp_path / "cts", tmp_path / "out", 32, workers=1)
        return summary.prepared, summary.reused

    assert run() == (1, 0)
    assert run() == (0, 1)
    hu[:, :, 30:40] = np.where(hu[:, :, 30:40] == 50, 80, hu[:, :, 30:40])
    (tmp_path / "cts" / "my ct.raw").write_bytes(np.ascontiguousarray(hu.transpose(2, 1, 0)).tobytes())
    assert run() == (1, 0)


@pytest.mark.parametrize("data", ["../secret.raw", "/etc/passwd", "LIST\nct.raw\n../secret.raw", "../s%03d.raw 1 36 1"])
def test_a_header_cannot_reach_outside_its_folder(data, tmp_path):
    (tmp_path / "cohort").mkdir()
    (tmp_path / "secret.raw").write_bytes(HU.tobytes())
    itk_file("mhd", ("^ElementDataFile.*", f"ElementDataFile = {data}"))(tmp_path / "cohort")
    (source,), _ = find_sources(tmp_path / "cohort")
    assert source.files == ("ct.mhd",)
    with pytest.raises(InputError, match="outside its folder"):
        prepare(tmp_path / "cohort", tmp_path / "out", 32, workers=1)


def test_linked_patients_are_prepared_and_no_link_vanishes(tmp_path):
    """Patients elsewhere, linked as folder and as file; a folder linked twice; links in a ring and to nothing."""
    fine = phantom_affine()
    for number, place in enumerate(["cohort/ann", "disk/bob", "disk/cyd"]):
        moved = fine.copy()
        moved[0, 3] += number
        (tmp_path / place).mkdir(parents=True)
        save_nifti(tmp_path / place / "ct.nii.gz", phantom(fine), moved)
    links = {
        "bob": "disk/bob",
        "bob2": "disk/bob",
        "ring": "cohort",
        "lost": "nowhere",
        "cyd.nii.gz": "disk/cyd/ct.nii.gz",
    }
    for name, target in links.items():
        (tmp_path / "cohort" / name).symlink_to(tmp_path / target)
    summary = prepare(tmp_path / "cohort", tmp_path / "out", 32, workers=1)
    manifest = json.loads(summary.manifest.read_text())
    assert {case["source"] for case in manifest["cases"]} == {"ann/ct.nii.gz", "bob/ct.nii.gz", "cyd.nii.gz"}
    assert {case["patient"] for case in manifest["cases"]} == {"ann", "bob", "cyd"}
    reasons = {item["source"]: item["reason"] for item in manifest["exclusions"]}
    assert set(reasons) == {"bob2", "ring", "lost"}
    assert reasons["bob2"] == "read already as bob, to which a link leads"
    assert str(tmp_path) not in json.dumps(manifest)


def test_names_of_cases_are_short_in_bytes(tmp_path):
    for name in ("肺" * 80, "肺" * 81):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ct.nii").touch()
    sources, _ = find_sources(tmp_path)
    assert len({source.name for source in sources}) == 2
    assert max(len(source.name.encode()) for source in sources) < 120


def test_a_dicom_folder_behind_a_link_is_read(tmp_path):
    save_dicom(tmp_path / "disk" / "series", dicom_slices(HU, AFFINE))
    (tmp_path / "patient").mkdir()
    (tmp_path / "patient" / "series").symlink_to(tmp_path / "disk" / "series")
    np.testing.assert_array_equal(read_ct(tmp_path / "patient").hu, HU)

"""Read a CT from whatever it is stored in: NIfTI, MetaImage, NRRD, DICOM, the published HDF5."""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import itk
import nibabel
import numpy as np

from ..files import InputError
from .dicom import Series, choose_series, is_dicom, load_series, other_series, scan_dicom
from .hdf5 import HDF5_SUFFIXES, read_hdf5
from .volume import LPS_TO_RAS, CTVolume, check_affine, check_hu

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")
FILE_SUFFIXES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES, *HDF5_SUFFIXES)
_MM = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}


def read_ct(path: str | os.PathLike, series: str | None = None) -> CTVolume:
    """Read one CT in HU with its geometry.

    Args:
        path: a NIfTI, MetaImage (``.mha``, ``.mhd``), NRRD or published-format HDF5 file, a folder with DICOM files
            (sub-folders included, other files ignored), or one DICOM file, which stands for its series in its folder.
        series: SeriesInstanceUID to read from DICOM; default: see :func:`xrecon_bundle.io.dicom.choose_series`.

    Returns:
        The volume as stored; padding and NaN are left for :func:`xrecon_bundle.placement.standardize.standardize_ct`.

    Raises:
        InputError: the file cannot be read, says nothing about its geometry, is no 3D volume, or is not in HU. The
            message names the file, the reason and the remedy.
    """
    path = Path(path)
    with named(path):
        if not path.exists():
            raise InputError("no such file or folder")
        if path.is_dir():
            return read_dicom(dicom_files(path), series)
        if path.stat().st_size and not has_suffix(path, FILE_SUFFIXES) and is_dicom(path):
            return read_series((file for file in path.parent.iterdir() if file.is_file()), series, path)[1]
        return _checked(_reader(path)(path))


def read_dicom(files: Iterable[Path], series: str | None = None) -> CTVolume:
    """Read one CT series from DICOM files. Arguments, result and errors otherwise as :func:`read_ct`."""
    return read_series(files, series)[1]


def read_series(
    files: Iterable[Path], series: str | None = None, beside: Path | None = None
) -> tuple[Series, CTVolume]:
    """As :func:`read_dicom`, with the series that was chosen.

    The volume's ``source`` also has ``other_series``, the CT series among the files that were not chosen (see
    :func:`~.dicom.other_series`), and warns of DICOM files that are damaged.

    Args:
        files: the DICOM files.
        series: SeriesInstanceUID.
        beside: one of the files, whose series is the only one to choose from.
    """
    unreadable: dict[Path, str] = {}
    found = scan_dicom(files, unreadable)
    if beside is not None:
        found = [one for one in found if beside in one.files()]
        if not found:
            raise InputError("a DICOM file without an image (or a damaged one); give the folder of the CT series")
    path, reason = next(iter(unreadable.items()), (None, ""))
    damaged = f"{len(unreadable)} damaged DICOM files left out ({path.name}: {reason})" if path else ""
    if damaged and not found:
        raise InputError(f"no CT series: {damaged}; copy them again")
    chosen = choose_series(found, series)
    volume = load_series(chosen)
    if others := other_series(found, chosen):
        volume.source["other_series"] = others
    if damaged:
        volume.source["notes"].append(damaged)
        volume.source["warnings"].append(damaged)
    return chosen, _checked(volume)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Put ``path`` in front of an :class:`InputError` that does not yet name a file."""
    try:
        yield
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error


def dicom_files(folder: Path) -> list[Path]:
    """Every DICOM file below ``folder``, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and is_dicom(path))


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether the file's name ends in one of ``suffixes``, in any case."""
    return path.name.lower().endswith(suffixes)


def _checked(volume: CTVolume) -> CTVolume:
    check_affine(volume.affine)
    notes = "; ".join(volume.source.get("notes", []))
    check_hu(volume.hu, f" ({notes})" if notes else "")
    return volume


def _reader(path: Path) -> Callable[[Path], CTVolume]:
    if path.stat().st_size == 0:
        raise InputError("the file is empty; copy it again")
    for suffixes, reader in (
        (NIFTI_SUFFIXES, _read_nifti),
        (ITK_SUFFIXES, _read_itk),
        (HDF5_SUFFIXES, _read_published),
    ):
        if has_suffix(path, suffixes):
            return reader
    raise InputError(f"not a CT file; give DICOM or one of {', '.join(FILE_SUFFIXES)}")


def _read_nifti(path: Path) -> CTVolume:
    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Image):
            raise InputError("not a NIfTI-1 or NIfTI-2 image; convert it to .nii.gz")
        if image.get_data_dtype().kind not in "iuf":
            raise InputError("not a grey-level image (colour or complex values); give the CT in HU")
        _check_shape(image.shape)
        hu = image.get_fdata(dtype=np.float32, caching="unchanged").reshape(image.shape[:3])
    except InputError:
        raise
    except (EOFError, OSError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError) as error:
        raise InputError(f"damaged or not NIfTI ({_last_line(error)}); copy or convert it again") from error
    header = image.header
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        raise InputError(
            "the header gives no orientation (sform and qform codes are 0), so left and right are unknown; "
            "convert the CT from DICOM again"
        )
    if header["sform_code"] > 0 and header["qform_code"] > 0:
        axes = [_axes(header.get_sform()), _axes(header.get_qform())]
        if axes[0] != axes[1]:
            raise InputError(f"sform and qform contradict each other ({axes[0]} and {axes[1]}); convert the CT again")
    scale = _MM[header.get_xyzt_units()[0]]
    return CTVolume(hu, np.diag([scale, scale, scale, 1.0]) @ image.affine, {"format": "NIfTI"})


def _read_itk(path: Path) -> CTVolume:
    if has_suffix(path, (".nrrd", ".nhdr")) and not re.search(rb"^space:", _head(path), re.MULTILINE):
        raise InputError(
            "the NRRD header gives no space, so left and right are unknown; convert the CT from DICOM again"
        )
    try:
        information = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
        information.SetFileName(str(path))
        information.ReadImageInformation()
        if information.GetNumberOfComponents() != 1:
            raise InputError("not a grey-level image (several components a voxel); give the CT in HU")
        _check_shape(tuple(information.GetDimensions(axis) for axis in range(information.GetNumberOfDimensions())))
        reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New(FileName=str(path))
        reader.Update()
    except (RuntimeError, AttributeError) as error:
        raise InputError(f"damaged or not an image ({_last_line(error)}); copy or convert it again") from error
    image = reader.GetOutput()
    hu = itk.array_from_image(image).transpose(2, 1, 0)
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    affine[:3, 3] = np.array(image.GetOrigin())
    return CTVolume(hu, LPS_TO_RAS @ affine, {"format": path.suffix[1:].upper()})


def _read_published(path: Path) -> CTVolume:
    case = read_hdf5(path)
    return CTVolume(case.ct.astype(np.float32), case.affine, {"format": "HDF5"})


def _check_shape(shape: tuple[int, ...]) -> None:
    """3D, or 4D with one volume."""
    if len(shape) > 3 and set(shape[3:]) != {1}:
        raise InputError(f"a series of volumes (shape {shape}); give one 3D CT")
    if len(shape) < 3 or min(shape[:3]) < 2:
        raise InputError(f"a single image (shape {shape}), not a volume; give a 3D CT")


def _axes(affine: np.ndarray) -> str:
    check_affine(affine)
    return "".join(nibabel.aff2axcodes(affine))


def _head(path: Path) -> bytes:
    """The text header of an NRRD file: it ends at the first empty line."""
    with open(path, "rb") as file:
        return file.read(65536).split(b"\n\n")[0].replace(b"\r", b"")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

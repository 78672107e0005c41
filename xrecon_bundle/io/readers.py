"""Read a CT from whatever it is stored in: NIfTI, MetaImage, NRRD, DICOM, the published HDF5."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from io import IOBase
from pathlib import Path
from typing import TYPE_CHECKING, cast

import nibabel
import numpy as np

from ..dicom.series import Series, choose_series, is_dicom, load_series, other_series, scan_dicom
from ..files import InputError, check_readable, find_files, one_line
from ..volume import LPS_TO_RAS, CTVolume, check_affine, check_hu
from .hdf5 import HDF5_SUFFIXES, read_hdf5
from .itk_header import METAIMAGE_SUFFIXES, NRRD_SUFFIXES, VolumeHeader, check_voxels, millimetres, read_header

if TYPE_CHECKING:
    import itk

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (*METAIMAGE_SUFFIXES, *NRRD_SUFFIXES)
FILE_SUFFIXES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES, *HDF5_SUFFIXES)
SAME_SIZE = 0.01  # by how much of itself a voxel's edge may differ between two places of a header
SAME_DIRECTION_DEGREES = 5.0  # and its axes' directions
MOST_COMPRESSION = 1100  # deflate reaches 1032 : 1; a header that promises more voxels than that is damaged
_MM = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}


def read_ct(path: str | os.PathLike, series: str | None = None) -> CTVolume:
    """Read one CT in HU with its geometry.

    Args:
        path: a NIfTI, MetaImage (``.mha``, ``.mhd``), NRRD or published-format HDF5 file, a folder with DICOM files
            (sub-folders included, other files ignored), or one DICOM file, which stands for its series in its folder.
        series: SeriesInstanceUID to read from DICOM; default: see :func:`xrecon_bundle.dicom.series.choose_series`.

    Returns:
        The volume as stored; padding and NaN are left for :func:`xrecon_bundle.placement.standardize.standardize_ct`.

    Raises:
        InputError: the file cannot be read, says nothing about its geometry, is no 3D volume, or is not in HU. The
            message names the file, the reason and the remedy.
    """
    path = Path(path)
    with named(path):
        check_readable(path, "file or folder")
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
    """Every DICOM file below ``folder``, sorted; see :func:`xrecon_bundle.files.find_files`."""
    return [path for path in find_files(folder)[0] if is_dicom(path)]


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether the file's name ends in one of ``suffixes``, in any case."""
    return path.name.lower().endswith(suffixes)


def _checked(volume: CTVolume) -> CTVolume:
    check_affine(volume.affine)
    notes = "; ".join(volume.source.get("notes", []))
    check_hu(volume.hu, f" ({notes})" if notes else "")
    if unknown := np.count_nonzero(~np.isfinite(volume.hu)):
        said = f"{unknown} of {volume.hu.size} voxels are not numbers (NaN or infinite): they count as air"
        volume.source.setdefault("warnings", []).append(said)
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
        with nibabel.imageglobals.LoggingOutputSuppressor(), nibabel.openers.ImageOpener(str(path)) as file:
            kind = type(nibabel.load(path))
            if not issubclass(kind, nibabel.Nifti1Image):
                raise InputError("not a NIfTI-1 or NIfTI-2 image; convert it to .nii.gz")
            header = kind.header_class.from_fileobj(file, check=False)  # as it is; the image's has pixdim put right
            image = kind.from_file_map({"image": nibabel.FileHolder(str(path), cast(IOBase, file))}, mmap=False)
            if image.get_data_dtype().kind not in "iuf":
                raise InputError("not a grey-level image (colour or complex values); give the CT in HU")
            _check_shape(image.shape)
            _check_bytes(image.shape, image.get_data_dtype().itemsize, [path])
            if np.isinf([header["scl_slope"], header["scl_inter"]]).any():
                raise InputError("damaged (slope or intercept is infinite); copy or convert it again")
            affine = _nifti_affine(image, header)
            hu = image.get_fdata(dtype=np.float32, caching="unchanged").reshape(image.shape[:3])
            while file.read(2**20):  # to the end, where gzip has the checksum
                pass
    except InputError:
        raise
    except Exception as error:  # gzip, zlib, nibabel and NumPy each raise their own
        raise InputError(f"damaged or not NIfTI ({one_line(error)}); copy or convert it again") from error
    _check_not_lost(affine)
    return CTVolume(hu, affine, {"format": "NIfTI"})


def _nifti_affine(image: nibabel.Nifti1Image, header: nibabel.Nifti1Header) -> np.ndarray:
    """The affine in mm, from the sform if there is one, which must agree with qform and pixdim."""
    sform, qform = (int(header[f"{name}_code"]) > 0 for name in ("sform", "qform"))
    if not sform and not qform:
        raise InputError(
            "the header gives no orientation (sform and qform codes are 0), so left and right are unknown; "
            "convert the CT from DICOM again"
        )
    scale = _MM[header.get_xyzt_units()[0]]
    affine = np.diag([scale, scale, scale, 1.0]) @ image.affine
    check_affine(affine)
    edges, found = scale * np.asarray(header["pixdim"][1:4], dtype=float), np.linalg.norm(affine[:3, :3], axis=0)
    between = 1 / np.linalg.norm(np.linalg.inv(affine[:3, :3]), axis=1)  # planes, which is less where axes are sheared
    if not (edges > 0).all():
        raise InputError(
            f"the header gives a voxel size (pixdim) of {_millimetres(edges)}; convert the CT from DICOM again"
        )
    if not (np.isclose(found, edges, SAME_SIZE, 0) | np.isclose(between, edges, SAME_SIZE, 0)).all():
        raise InputError(
            f"sform and pixdim contradict each other (voxels of {_millimetres(found)} and of {_millimetres(edges)}), "
            "so the size of the lungs is unknown; convert the CT from DICOM again"
        )
    if sform and qform:
        other = image.header.get_qform()
        axes = ["".join(nibabel.aff2axcodes(each)) for each in (affine, other)]
        turned = _turned(affine, other)
        if turned > SAME_DIRECTION_DEGREES:
            raise InputError(
                f"sform and qform contradict each other ({axes[0]} and {axes[1]}, turned by {turned:.0f} degrees), "
                "so left and right are unknown; convert the CT from DICOM again"
            )
    return affine


def _turned(sform: np.ndarray, qform: np.ndarray) -> float:
    """The angle in degrees between the axes of two affines; 180 where one is a mirror image.

    A qform cannot say that axes are sheared (gantry tilt). Then it holds the rotation nearest to them, or the true
    directions within the slice, by whoever wrote it.
    """
    sform, qform = ((affine / np.linalg.norm(affine, axis=0)) for affine in (sform[:3, :3], qform[:3, :3]))
    if np.linalg.det(sform) * np.linalg.det(qform) < 0:
        return 180.0
    left, _, right = np.linalg.svd(sform)
    cosines = [((left @ right) * qform).sum(axis=0).min(), (sform * qform).sum(axis=0)[:2].min()]
    return float(np.degrees(np.arccos(np.clip(max(cosines), -1, 1))))


def _read_itk(path: Path) -> CTVolume:
    import itk  # as slow to import as all the rest of this module

    header = read_header(path)
    scale = millimetres(path, header)
    try:
        image = _itk_image(path, header)
    except InputError:
        raise
    except Exception as error:  # ITK's own, and those of its wrapping
        raise InputError(f"damaged or not an image ({one_line(error)}); copy or convert it again") from error
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing()) * scale
    affine[:3, 3] = np.array(image.GetOrigin()) * scale
    affine = LPS_TO_RAS @ affine
    check_affine(affine)
    _check_not_lost(affine)
    return CTVolume(itk.array_from_image(image).transpose(2, 1, 0), affine, {"format": path.suffix[1:].upper()})


def _itk_image(path: Path, header: VolumeHeader) -> itk.Image[itk.F, 3]:
    import itk

    information = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    information.SetFileName(str(path))
    information.ReadImageInformation()
    if information.GetNumberOfComponents() != 1:
        raise InputError("not a grey-level image (several components a voxel); give the CT in HU")
    shape = tuple(information.GetDimensions(axis) for axis in range(information.GetNumberOfDimensions()))
    _check_shape(shape)
    _check_bytes(shape, information.GetComponentSize(), [path, *header.voxel_files])
    check_voxels(path, header, shape, information.GetComponentSize())
    reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New(FileName=str(path))
    reader.Update()
    return reader.GetOutput()


def _read_published(path: Path) -> CTVolume:
    case = read_hdf5(path)
    return CTVolume(case.ct.astype(np.float32), case.affine, {"format": "HDF5"})


def _check_shape(shape: tuple[int, ...]) -> None:
    """3D, or 4D with one volume."""
    if len(shape) > 3 and set(shape[3:]) != {1}:
        raise InputError(f"a series of volumes (shape {shape}); give one 3D CT")
    if len(shape) < 3 or min(shape[:3]) < 2:
        raise InputError(f"a single image (shape {shape}), not a volume; give a 3D CT")


def _check_bytes(shape: tuple[int, ...], voxel_bytes: int, files: Iterable[Path]) -> None:
    """Refuse a header that promises more voxels than its files can hold, before memory is asked for."""
    promised = math.prod(int(length) for length in shape) * voxel_bytes
    if promised > MOST_COMPRESSION * sum(file.stat().st_size for file in files if file.is_file()):
        raise InputError(f"damaged (the header promises a volume of {shape} voxels); copy or convert it again")


def _check_not_lost(affine: np.ndarray) -> None:
    """Refuse the identity, which programs write when they know nothing; in RAS+ (NIfTI) or LPS+ (ITK)."""
    if any(np.allclose(affine, identity, atol=1e-6) for identity in (np.eye(4), LPS_TO_RAS)):
        raise InputError(
            "the geometry is lost (the affine is the identity: voxels of 1 mm, no position), so size and sides of the "
            "lungs are unknown; convert the CT from DICOM again"
        )


def _millimetres(edges: np.ndarray) -> str:
    return " x ".join(f"{edge:.3g}" for edge in edges) + " mm"

"""An asymmetric phantom, and every kind of file in which its radiographs may come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import itk
import nibabel
import numpy as np
import pydicom
import torch
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from xrecon_bundle import frame
from xrecon_bundle.io.radiograph_files import View, write_radiograph_nifti, write_radiograph_png
from xrecon_bundle.projection.radiographs import simulate_radiographs

DETECTOR_MM = frame.detector_size_mm()
CENTRE_MM = (12.0, -34.0, 56.0)  # RAS+, where files that can say it say that the cube stands
MARKER_MM = np.array([75.0, -65.0, -95.0])  # left, anterior, superior of the centre


def grid_mm(size: int) -> np.ndarray:
    """Voxel centres ``(3, S, S, S)`` in mm from the cube's centre, towards left, back, feet."""
    line = (np.arange(size) - (size - 1) / 2) * frame.voxel_size(size)
    return np.stack(np.meshgrid(line, line, line, indexing="ij"))


def ellipsoid(size: int, centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    shape = np.array([3, 1, 1, 1])
    return (((grid_mm(size) - np.reshape(centre, shape)) / np.reshape(radii, shape)) ** 2).sum(0) <= 1


def marked_chest(size: int) -> np.ndarray:
    """HU ``(S, S, S)``: a light body with a dense ball at left-anterior-superior."""
    hu = np.full((size,) * 3, -1000.0, dtype=np.float32)
    hu[ellipsoid(size, (0, 0, 0), (150, 100, 150))] = -850
    hu[ellipsoid(size, tuple(MARKER_MM), (20, 20, 20))] = 3000
    return hu


def marked_views(pixels: int) -> np.ndarray:
    return simulate_radiographs(torch.from_numpy(marked_chest(64)), pixels).numpy()


def marker_on_detector_mm() -> dict[View, np.ndarray]:
    """By the rule of three: PA's detector is in front of the patient, the lateral's at the left."""
    source_to_centre = frame.SOURCE_TO_DETECTOR_MM - frame.DETECTOR_TO_CENTRE_MM
    x, y, z = MARKER_MM
    return {
        "pa": np.array([x, z]) * frame.SOURCE_TO_DETECTOR_MM / (source_to_centre - y),
        "lateral": np.array([y, z]) * frame.SOURCE_TO_DETECTOR_MM / (source_to_centre + x),
    }


def brightest_mm(image: np.ndarray) -> np.ndarray:
    """Position on the detector of the marker: the centroid of what is over 60 % of the grey range, in mm."""
    marked = image > image.min() + 0.6 * np.ptp(image)
    middle = np.argwhere(marked).mean(0)
    return (middle - (image.shape[0] - 1) / 2) * DETECTOR_MM / image.shape[0]


def grey_levels(image: np.ndarray, highest: int) -> np.ndarray:
    """``(U, V)`` to whole grey levels ``(rows, columns)``."""
    return np.rint((image - image.min()) / np.ptp(image) * highest).astype(np.uint16 if highest > 255 else np.uint8).T


def write_dicom(path: Path, stored: np.ndarray, **tags: Any) -> None:
    """Write ``stored`` ``(rows, columns)`` as a DX file; ``tags`` replace or, as None, remove the defaults."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    bits = 8 * stored.dtype.itemsize
    defaults = dict(
        SOPClassUID=DigitalXRayImageStorageForPresentation,
        SOPInstanceUID=dataset.file_meta.MediaStorageSOPInstanceUID,
        Modality="DX",
        PatientID="1",
        PresentationIntentType="FOR PRESENTATION",
        Rows=stored.shape[0],
        Columns=stored.shape[1],
        BitsAllocated=bits,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=0,
        SamplesPerPixel=1 if stored.ndim == 2 else 3,
        PhotometricInterpretation="MONOCHROME2" if stored.ndim == 2 else "RGB",
        PixelData=stored.tobytes(),
        ImagerPixelSpacing=[DETECTOR_MM / stored.shape[0], DETECTOR_MM / stored.shape[1]],
    )
    if stored.ndim == 3:
        defaults["PlanarConfiguration"] = 0
    for name, value in (defaults | tags).items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


def _dicom(
    change: Callable[[np.ndarray], np.ndarray], orientation: dict[View, list[str]] | None, **tags: Any
) -> Callable:
    def write(path: Path, image: np.ndarray, view: View) -> None:
        stored = np.ascontiguousarray(change(grey_levels(image, 4095)))
        write_dicom(path, stored, PatientOrientation=orientation and orientation[view], **tags)

    return write


def _lossless_jpeg_dicom(path: Path, image: np.ndarray, view: View) -> None:
    picture = itk.image_from_array(np.ascontiguousarray(grey_levels(image, 4095)))
    writer = itk.GDCMImageIO.New(Compressor="JPEG")
    itk.imwrite(picture, str(path), imageio=writer, compression=True)
    dataset = pydicom.dcmread(path)
    assert dataset.file_meta.TransferSyntaxUID.name.startswith("JPEG Lossless")
    dataset.PixelSpacing = [DETECTOR_MM / dataset.Rows, DETECTOR_MM / dataset.Columns]
    dataset.save_as(path)


def _voi_table(bits: int) -> Dataset:
    """From 4096 stored values to ``bits`` bits, linear."""
    table = Dataset()
    table.LUTDescriptor = [4096, 0, bits]
    table.LUTData = (np.arange(4096) * (2**bits - 1) // 4095).astype("<u2").tobytes()
    return table


def _dicom_voi(bits: int) -> Callable:
    def write(path: Path, image: np.ndarray, view: View) -> None:
        write_dicom(path, grey_levels(image, 4095), VOILUTSequence=[_voi_table(bits)])

    return write


def _picture(path: Path, image: np.ndarray, view: View) -> None:
    Image.fromarray(grey_levels(image, 255)).save(path, quality=95)


def _rgb_picture(path: Path, image: np.ndarray, view: View) -> None:
    Image.fromarray(grey_levels(image, 255)).convert("RGB").save(path, quality=95)


def _turned_photo(path: Path, image: np.ndarray, view: View) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    Image.fromarray(np.rot90(grey_levels(image, 255))).save(path, quality=95, exif=exif)


def _nifti(path: Path, image: np.ndarray, affine: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), affine), path)


def _pair_nifti(path: Path, image: np.ndarray, view: View) -> None:
    _nifti(path, image, frame.radiograph_affine(image.shape[0], CENTRE_MM))


def _plain_nifti(path: Path, image: np.ndarray, view: View) -> None:
    _nifti(path, image[..., None], np.eye(4))


def _other_axes_nifti(path: Path, image: np.ndarray, view: View) -> None:
    """Rows first, up to the head and to the right or front: what another tool may write of the same picture."""
    write_radiograph_nifti(path, image, view, CENTRE_MM)
    own = nibabel.load(path, mmap=False)
    towards = {"pa": "RS", "lateral": "AS"}[view]
    third = {"pa": "A", "lateral": "L"}[view]
    wanted = nibabel.orientations.axcodes2ornt((towards[1], towards[0], third))
    volume = nibabel.Nifti1Image(np.asarray(own.dataobj)[..., None], own.affine)
    change = nibabel.orientations.ornt_transform(nibabel.io_orientation(volume.affine), wanted)
    nibabel.save(volume.as_reoriented(change), path)


class Format(NamedTuple):
    suffix: str
    write: Callable[[Path, np.ndarray, View], None]
    arguments: dict[str, Any] = {}
    positioned: bool = False
    error: float = 0.01  # largest mean difference from the original, of its range: levels, JPEG, percentiles


KNOWN_FIELD = dict(field_of_view_mm=DETECTOR_MM)
UPRIGHT: dict[View, list[str]] = {"pa": ["L", "F"], "lateral": ["P", "F"]}
MIRRORED: dict[View, list[str]] = {"pa": ["R", "F"], "lateral": ["A", "F"]}
HEAD_DOWN: dict[View, list[str]] = {"pa": ["R", "H"], "lateral": ["A", "H"]}
ON_ITS_SIDE: dict[View, list[str]] = {"pa": ["H", "L"], "lateral": ["H", "P"]}

FORMATS = {
    "own NIfTI": Format(".nii.gz", lambda p, i, v: write_radiograph_nifti(p, i, v, CENTRE_MM), {}, True, 1e-6),
    "NIfTI with the pair's affine": Format(".nii.gz", _pair_nifti, {}, True, 1e-6),
    "NIfTI with other axes": Format(".nii", _other_axes_nifti, {}, True, 1e-6),
    "NIfTI that knows no patient": Format(".nii", _plain_nifti, KNOWN_FIELD, False, 1e-6),
    "own PNG": Format(".png", lambda p, i, v: write_radiograph_png(p, i), error=0.02),
    "8-bit PNG": Format(".png", _picture, KNOWN_FIELD),
    "grey PNG as RGB": Format(".png", _rgb_picture, KNOWN_FIELD),
    "grey JPEG": Format(".jpg", _picture, KNOWN_FIELD),
    "grey JPEG as RGB": Format(".jpeg", _rgb_picture, KNOWN_FIELD),
    "JPEG turned by EXIF": Format(".jpg", _turned_photo, KNOWN_FIELD),
    "DICOM without orientation": Format(".dcm", _dicom(lambda a: a, None)),
    "DICOM upright": Format(".dcm", _dicom(lambda a: a, UPRIGHT)),
    "DICOM mirrored": Format(".dcm", _dicom(np.fliplr, MIRRORED)),
    "DICOM head down": Format(".dcm", _dicom(lambda a: np.rot90(a, 2), HEAD_DOWN)),
    "DICOM on its side": Format(".dcm", _dicom(lambda a: np.rot90(a, -1), ON_ITS_SIDE)),
    "DICOM mirrored, untagged": Format(".dcm", _dicom(np.fliplr, None), dict(flip=True)),
    "DICOM dense is dark": Format(".dcm", _dicom(lambda a: 4095 - a, UPRIGHT, PhotometricInterpretation="MONOCHROME1")),
    "DICOM negative, untagged": Format(".dcm", _dicom(lambda a: 4095 - a, None), dict(invert=True)),
    "DICOM with window": Format(".dcm", _dicom(lambda a: a, UPRIGHT, WindowCenter=2048, WindowWidth=4096)),
    "DICOM with 8-bit VOI table": Format(".dcm", _dicom_voi(8)),
    "DICOM with 12-bit VOI table": Format(".dcm", _dicom_voi(12)),
    "DICOM in lossless JPEG": Format(".dcm", _lossless_jpeg_dicom),
    "DICOM without its suffix": Format("", _dicom(lambda a: a, UPRIGHT)),
}

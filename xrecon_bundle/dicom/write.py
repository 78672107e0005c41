"""Write a CT volume as a DICOM series (PS3.3 A.3, CT Image Storage) that says what it was derived from."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

from .. import __version__
from ..files import InputError, atomic_path
from ..volume import LPS_TO_RAS
from .headers import is_dicom, read_dataset

MANUFACTURER = "xrecon_bundle"
NOT_FOR_DIAGNOSIS = "NOT FOR DIAGNOSIS"
RESCALE_INTERCEPT = -1024
SERIES_NUMBER = 9001  # far from a scanner's own
# What a derived image takes over from the image it is made from: who, and in which study.
PATIENT_AND_STUDY = [
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize"),
    *("PatientWeight", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber"),
    *("ReferringPhysicianName", "SpecificCharacterSet", "TimezoneOffsetFromUTC"),
]
MANDATORY = [
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
]
HEADER = [*PATIENT_AND_STUDY, "SOPClassUID", "SOPInstanceUID"]


def read_source(path: str | os.PathLike) -> Dataset | None:
    """What a derived series takes over from the DICOM file ``path``; None where it is no DICOM file.

    Damaged tags are left out.
    """
    try:
        if not is_dicom(Path(path)):
            return None
        found = read_dataset(Path(path), stop_before_pixels=True, specific_tags=HEADER)
    except Exception:  # pydicom raises what its parts raise
        return None
    header = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on values that break the standard
        for tag in ("SpecificCharacterSet", *HEADER):  # by which the texts are written
            try:
                if tag in found:
                    header[tag] = found[tag]
                    pydicom.dcmwrite(BytesIO(), header, implicit_vr=False, little_endian=True)
            except Exception:  # as it is read or as it would be written
                header.pop(tag, None)
    return header if header.get("SOPInstanceUID") and header.get("SOPClassUID") else None


def write_ct_series(
    folder: str | os.PathLike,
    hu: np.ndarray,
    affine: np.ndarray,
    sources: Sequence[Dataset] = (),
    description: str = "CT from radiographs",
    derivation: str = "Computed from other images, not acquired by a CT scanner",
    extra: Sequence[tuple[str, str]] = (),
) -> list[Path]:
    """Write a volume as one axial CT image a slice, ``0001.dcm`` ..., into a new ``folder``: all of it or nothing.

    Stored values are ``HU + 1024`` (unsigned, RescaleSlope 1), so whole HU come back exactly; what is below -1024 HU
    becomes -1024. Series, instances and frame of reference get UIDs of their own; patient and study are those of the
    first source, or empty.

    Args:
        folder: to make; it may exist if it is empty.
        hu: ``(I, J, K)`` in HU.
        affine: ``(4, 4)`` voxel index to RAS+ mm, axes at right angles.
        sources: the DICOM images that the volume was computed from, as :func:`read_source` gives them.
        description: SeriesDescription, behind which "NOT FOR DIAGNOSIS" is put.
        derivation: DerivationDescription, likewise.
        extra: names and texts of files to put beside the images.

    Returns:
        the images' paths, from feet to head.

    Raises:
        InputError: there is something in ``folder`` already.
        ValueError: the affine's axes are not at right angles.
    """
    folder = Path(folder)
    check_new_folder(folder)
    template = _series(hu.shape, sources, description, derivation)
    slices = _slices(template, np.asarray(hu), np.asarray(affine, dtype=float))
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for number, image in enumerate(slices, start=1):
            pydicom.dcmwrite(temporary / f"{number:04d}.dcm", image, enforce_file_format=True)
        for name, text in extra:
            (temporary / name).write_text(text)
    return [folder / f"{number:04d}.dcm" for number in range(1, len(slices) + 1)]


def check_new_folder(folder: Path) -> None:
    """Raise :class:`InputError` where a series' ``folder`` is there and has something in it."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} exists already; give a new folder for the DICOM series")


def _series(shape: tuple[int, ...], sources: Sequence[Dataset], description: str, derivation: str) -> Dataset:
    """Everything that the images of the series share."""
    now = datetime.now().astimezone()
    image = Dataset()
    for name in MANDATORY:
        setattr(image, name, "")
    image.StudyInstanceUID = generate_uid(prefix=None)
    if not sources:
        image.StudyDate, image.StudyTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    for name in PATIENT_AND_STUDY:
        if sources and name in sources[0]:
            image[name] = sources[0][name]
    image.SpecificCharacterSet = image.get("SpecificCharacterSet") or "ISO_IR 192"
    image.SOPClassUID = CTImageStorage
    image.Modality = "CT"
    image.BodyPartExamined = "CHEST"
    image.PatientPosition = "HFS"
    image.SeriesInstanceUID = generate_uid(prefix=None)
    image.SeriesNumber = SERIES_NUMBER
    image.SeriesDescription = f"{description} - {NOT_FOR_DIAGNOSIS}"[:64]
    image.SeriesDate = image.ContentDate = image.InstanceCreationDate = now.strftime("%Y%m%d")
    image.SeriesTime = image.ContentTime = image.InstanceCreationTime = now.strftime("%H%M%S")
    image.FrameOfReferenceUID = generate_uid(prefix=None)
    image.PositionReferenceIndicator = ""
    image.Manufacturer = image.ManufacturerModelName = MANUFACTURER
    image.SoftwareVersions = __version__
    image.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    image.DerivationDescription = f"{derivation} ({MANUFACTURER} {__version__}). {NOT_FOR_DIAGNOSIS}"[:1024]
    image.ImageComments = NOT_FOR_DIAGNOSIS
    image.SyntheticData = "YES"
    image.BurnedInAnnotation = "NO"
    image.LossyImageCompression = "00"
    if sources:
        image.SourceImageSequence = [_reference(source) for source in sources]
    image.AcquisitionNumber = None
    image.KVP = None
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 0
    image.RescaleSlope = 1
    image.RescaleIntercept = RESCALE_INTERCEPT
    image.RescaleType = "HU"
    image.WindowCenter, image.WindowWidth = [-500, 40], [1500, 400]
    image.WindowCenterWidthExplanation = ["LUNG", "MEDIASTINUM"]
    return image


def _slices(template: Dataset, hu: np.ndarray, affine: np.ndarray) -> list[Dataset]:
    """One image a slice, rows to the back and columns to the left (as near as the axes allow), from feet to head."""
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt("LPS"))
    lps = LPS_TO_RAS @ affine @ nibabel.orientations.inv_ornt_aff(turn, hu.shape)
    volume = nibabel.orientations.apply_orientation(hu, turn)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / spacing
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3):
        raise ValueError("a DICOM series needs axes at right angles")
    stored = np.clip(np.rint(volume) - RESCALE_INTERCEPT, 0, 65535).astype("<u2")
    slices = []
    for index in range(volume.shape[2]):
        image = Dataset()
        image.update(template)
        image.SOPInstanceUID = generate_uid(prefix=None)
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.InstanceNumber = index + 1
        position = lps[:3, 2] * index + lps[:3, 3]
        image.ImagePositionPatient = _decimals(position)
        image.ImageOrientationPatient = _decimals([*axes[:, 0], *axes[:, 1]])
        image.PixelSpacing = _decimals([spacing[1], spacing[0]])
        image.SliceThickness = image.SpacingBetweenSlices = _decimals([spacing[2]])[0]
        image.SliceLocation = _decimals([np.dot(position, axes[:, 2])])[0]
        image.Rows, image.Columns = volume.shape[1], volume.shape[0]
        image.PixelData = np.ascontiguousarray(stored[:, :, index].T).tobytes()
        slices.append(image)
    return slices


def _decimals(values: Sequence[float]) -> list[DSfloat]:
    """Decimal strings of at most 16 characters."""
    return [DSfloat(float(value) + 0.0, auto_format=True) for value in values]


def _reference(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [_code_item(codes.DCM.SourceImageForImageProcessingOperation)]
    return item


def _code_item(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item

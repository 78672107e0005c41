"""An asymmetric chest made of ellipsoids, known at every point of space, and ways to store it."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

CENTRE = np.array([12.0, -30.0, -150.0])  # RAS+, mm
MARKER = CENTRE + np.array([-70.0, 40.0, 60.0])  # a dense ball in the left upper lung, in front
SHAPE = (100, 60, 72)


def phantom_affine(step: float = 5.0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Axis-aligned LPI grid of ``step`` mm around the chest."""
    affine = np.diag([-step, -step, -step, 1.0])
    affine[:3, 3] = CENTRE + step * (np.array(shape) - 1) / 2
    return affine


def phantom(affine: np.ndarray, shape: tuple[int, int, int] = SHAPE, collapsed: bool = False) -> np.ndarray:
    """HU, int16, on a grid. With a table that touches the back, a gown, an arm beside the trunk; optionally the left
    lung collapsed to a tenth beside a pneumothorax."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    left, back, down = np.moveaxis((CENTRE - affine[:3, 3]) - index @ affine[:3, :3].T, -1, 0)

    def ball(l0: float, p0: float, i0: float, a: float, b: float, c: float) -> np.ndarray:
        return ((left - l0) / a) ** 2 + ((back - p0) / b) ** 2 + ((down - i0) / c) ** 2 < 1

    def cylinder(l0: float, p0: float, a: float, b: float) -> np.ndarray:
        return ball(l0, p0, 0, a, b, np.inf)

    hu = np.full(shape, -1000, np.int16)
    hu[(np.abs(left) < 210) & (back > 109) & (back < 116)] = 150  # table
    hu[(np.abs(left) < 120) & (back < -112) & (back > -118)] = -50  # gown
    hu[cylinder(-205, 10, 26, 26)] = 30  # right arm
    hu[cylinder(0, 0, 165, 110)] = -80  # fat
    hu[cylinder(0, 0, 150, 96)] = 40
    hu[ball(-75, 0, 0, 60, 78, 120)] = -850
    left_lung = ball(80, 0, 0, 52, 74, 115)
    hu[left_lung] = -1000 if collapsed else -850
    if collapsed:
        hu[ball(52, 0, 0, 26, 34, 52)] = -250
    hu[ball(35, -35, 50, 50, 45, 45)] = 50  # heart
    hu[ball(-60, -10, 125, 90, 80, 60)] = 60  # liver
    hu[cylinder(0, 75, 18, 18)] = 500  # spine
    hu[ball(70, -40, -60, 12, 12, 12)] = 1000
    return hu


def save_nifti(path: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    """Write the volume in HU with sform and qform (none where it is sheared)."""
    image = nibabel.Nifti1Image(hu, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def dicom_slices(hu: np.ndarray, affine: np.ndarray, series: str | None = None, modality: str = "CT") -> list[Dataset]:
    """One CT image for each index of the last axis, as a scanner would write it: stored values are HU + 1024."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    study, series, reference = generate_uid(entropy_srcs=["study"]), series or generate_uid(), generate_uid()
    slices = []
    for number in range(hu.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        part = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        part.SOPClassUID, part.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        part.StudyInstanceUID, part.SeriesInstanceUID, part.FrameOfReferenceUID = study, series, reference
        part.PatientID, part.PatientName, part.Modality, part.SeriesDescription = "P1", "", modality, "CHEST"
        part.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        part.InstanceNumber, part.AcquisitionNumber = number + 1, 1
        part.ImagePositionPatient = [round(float(x), 6) for x in (lps @ [0, 0, number, 1])[:3]]
        part.ImageOrientationPatient = [
            round(float(x), 9) for x in (*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1]))
        ]
        part.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        part.Rows, part.Columns = hu.shape[1], hu.shape[0]
        part.SamplesPerPixel, part.PhotometricInterpretation = 1, "MONOCHROME2"
        part.BitsAllocated, part.BitsStored, part.HighBit, part.PixelRepresentation = 16, 16, 15, 1
        part.RescaleSlope, part.RescaleIntercept = 1, -1024
        part.PixelData = (hu[:, :, number].T.astype(np.int16) + 1024).tobytes()
        slices.append(part)
    return slices


def save_dicom(folder: Path, slices: list[Dataset]) -> Path:
    """Write the images into a folder under names in an order that means nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(slices):
        pydicom.dcmwrite(folder / f"{(number * 37) % 997:04d}-{part.SOPInstanceUID[-8:]}.dcm", part)
    return folder


def place_of(seg: Dataset, label: int) -> set[tuple[int, ...]]:
    """Voxels of one segment of a DICOM SEG, in the patient (RAS+, whole mm)."""
    points = []
    shared = seg.SharedFunctionalGroupsSequence[0]
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, dtype=float)
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == label:
            position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
            i, j = np.nonzero(pixels)
            points.append(position + j[:, None] * row * spacing[1] + i[:, None] * column * spacing[0])
    ras = np.concatenate(points) * [-1, -1, 1]
    return {tuple(point) for point in np.rint(ras).astype(int)}

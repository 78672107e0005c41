"""From a CT series in DICOM to a DICOM Segmentation (PS3.3 A.51) and a measurement report (TID 1500), by highdicom."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageColor
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid
from pydicom.valuerep import DSfloat

from .. import __version__
from ..files import InputError, atomic_path
from ..segmentation.labels import COLOURS, REGIONS
from ..volume import LPS_TO_RAS
from .series import OFF_LINE_MM
from .write import MANDATORY, MANUFACTURER, NOT_FOR_DIAGNOSIS, SERIES_NUMBER

ABNORMAL = codes.SCT.MorphologicallyAbnormalStructure
ANATOMY = codes.SCT.AnatomicalStructure
# kind of region -> category, type, place
CODES: dict[str, tuple[Code, Code, Code]] = {
    "lung": (ANATOMY, codes.SCT.Lung, codes.SCT.Lung),
    "pneumothorax": (ABNORMAL, codes.SCT.Pneumothorax, codes.SCT.Pleura),
}
LATERALITY = {"right": codes.SCT.Right, "left": codes.SCT.Left}
MILLILITRE = Code("mL", "UCUM", "milliliter")
CHEST_CT = Code("24627-2", "LN", "CT Chest")
EQUIPMENT = {
    "manufacturer": MANUFACTURER,
    "manufacturer_model_name": "PTX-Seg",
    "software_versions": __version__,
    "device_serial_number": "1",
}


def write_segmentation(
    path: str | os.PathLike,
    labels: np.ndarray,
    affine: np.ndarray,
    images: Sequence[Dataset],
    statistics: dict[str, Any],
) -> None:
    """Write a label map as DICOM SEG, and its statistics beside it as a structured report ``.sr.dcm``.

    Args:
        path: the DICOM SEG, ``.dcm``.
        labels: ``(I, J, K)``, on the grid of the series.
        affine: ``(4, 4)`` voxel index to RAS+ mm, of any orientation whose third axis runs from image to image.
        images: headers of the CT images, one frame each.
        statistics: what :func:`~xrecon_bundle.segmentation.measures.measure_pneumothorax` returned.
    """
    require_highdicom()
    step = float(np.linalg.norm(affine[:3, 2]))
    for image in images:  # highdicom insists on what the standard makes mandatory and exporters forget
        for name in MANDATORY:
            image.setdefault(name, "")
        if not image.get("SliceThickness"):
            image.SliceThickness = DSfloat(step, auto_format=True)
    images, frames = frames_of_images(labels, affine, images)
    seg = segmentation_object(frames, images)
    report = measurement_report(statistics, seg, images)
    with atomic_path(path) as seg_path, atomic_path(Path(path).with_suffix(".sr.dcm")) as report_path:
        seg.save_as(seg_path)
        report.save_as(report_path)


def frames_of_images(
    labels: np.ndarray, affine: np.ndarray, images: Sequence[Dataset]
) -> tuple[list[Dataset], np.ndarray]:
    """The slice of a label map that belongs to each image of a series.

    Args:
        labels: ``(columns, rows, K)``, as :func:`xrecon_bundle.dicom.series.load_series` lays out a series.
        affine: ``(4, 4)`` voxel index to RAS+ mm.
        images: headers of the series, in any order.

    Returns:
        the images of the volume, from its first slice to its last, and their label maps ``(len(images), rows,
        columns)``: of the slice that each is nearest to. The volume's slices are evenly apart, which the images need
        not be. Doubles and images of another size have none.
    """
    inverse = np.linalg.inv(LPS_TO_RAS @ affine)
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    across = max(OFF_LINE_MM, 0.5 * max(edges[:2]))
    found: dict[float, tuple[int, Dataset]] = {}
    for image in images:
        i, j, k = (inverse @ [*map(float, image.ImagePositionPatient), 1.0])[:3]
        index = round(k)
        aligned = max(abs(i) * edges[0], abs(j) * edges[1]) <= across
        if aligned and 0 <= index < labels.shape[2] and (image.Columns, image.Rows) == labels.shape[:2]:
            # Two images may share a slice of the volume, where they stand closer than its slices do; doubles do not.
            found.setdefault(round(k * edges[2], 2), (index, image))
    order = sorted(found)
    return [found[at][1] for at in order], np.stack([labels[:, :, found[at][0]].T for at in order])


def segmentation_object(frames: np.ndarray, images: Sequence[Dataset]) -> Dataset:
    """A DICOM Segmentation of a label map.

    Args:
        frames: ``(len(images), rows, columns)`` uint8, values of :data:`~xrecon_bundle.segmentation.labels.REGIONS`.
        images: headers of the CT images that the frames lie on; patient and study are theirs.
    """
    hd = require_highdicom()
    algorithm = hd.AlgorithmIdentificationSequence(
        name="PTX-Seg", family=codes.DCM.ArtificialIntelligence, version=__version__
    )
    descriptions = []
    for (region, label), colour in zip(REGIONS.items(), COLOURS, strict=True):
        side, kind = region.split("_")
        category, what, place = CODES[kind]
        description = hd.seg.SegmentDescription(
            segment_number=label,
            segment_label=region,
            segmented_property_category=category,
            segmented_property_type=what,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=generate_uid(prefix=None),
            tracking_id=region,
            anatomic_regions=[place],
            display_color=hd.color.CIELabColor.from_rgb(*ImageColor.getrgb(colour)),
        )
        modified = description.SegmentedPropertyTypeCodeSequence[0], description.AnatomicRegionSequence[0]
        modified[0].SegmentedPropertyTypeModifierCodeSequence = [hd.sr.CodedConcept(*LATERALITY[side][:3])]
        modified[1].AnatomicRegionModifierSequence = [hd.sr.CodedConcept(*LATERALITY[side][:3])]
        descriptions.append(description)
    return hd.seg.Segmentation(
        source_images=images,
        pixel_array=frames,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(prefix=None),
        series_number=SERIES_NUMBER + 1,
        sop_instance_uid=generate_uid(prefix=None),
        instance_number=1,
        content_label="PTXSEG",
        content_description=f"Lungs and pneumothorax - {NOT_FOR_DIAGNOSIS}",
        series_description=f"PTX-Seg - {NOT_FOR_DIAGNOSIS}",
        **EQUIPMENT,
    )


def measurement_report(statistics: dict[str, Any], seg: Dataset, images: Sequence[Dataset]) -> Dataset:
    """A Comprehensive 3D SR with the volume of each region, and of lung, its mean density (TID 1500, TID 1411).

    Args:
        statistics: what :func:`~xrecon_bundle.segmentation.measures.measure_pneumothorax` returned.
        seg: the DICOM Segmentation.
        images: headers of the CT images.
    """
    hd = require_highdicom()
    content = hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
                uid=generate_uid(prefix=None), name="PTX-Seg", manufacturer_name=MANUFACTURER
            ),
        )
    )
    series = images[0].SeriesInstanceUID
    groups = [_measurement_group(region, label, statistics, seg, series) for region, label in REGIONS.items()]
    report = hd.sr.MeasurementReport(
        observation_context=content,
        procedure_reported=CHEST_CT,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    return hd.sr.Comprehensive3DSR(
        evidence=[seg, *images],
        content=report,
        series_instance_uid=generate_uid(prefix=None),
        series_number=SERIES_NUMBER + 2,
        sop_instance_uid=generate_uid(prefix=None),
        instance_number=1,
        manufacturer=MANUFACTURER,
        series_description=f"PTX-Seg measurements - {NOT_FOR_DIAGNOSIS}",
    )


def _measurement_group(region: str, label: int, statistics: dict[str, Any], seg: Dataset, series: str) -> Any:
    """What the report says of one region, of which ``label`` is the segment, in a CT of UID ``series``."""
    hd = require_highdicom()
    side, kind = region.split("_")
    _, what, place = CODES[kind]
    values = [(codes.SCT.Volume, statistics[side][f"{kind}_ml"], MILLILITRE, None)]
    if kind == "lung":
        density = statistics[side]["mean_lung_hu"]
        values.append((codes.DCM.AttenuationCoefficient, density, codes.UCUM.HounsfieldUnit, codes.SCT.Mean))
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=seg.SegmentSequence[label - 1].TrackingUID, identifier=region),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=label,
            source_series=hd.sr.SourceSeriesForSegmentation(series),
        ),
        finding_type=what,
        finding_sites=[hd.sr.FindingSite(anatomic_location=place, laterality=LATERALITY[side])],
        measurements=[
            hd.sr.Measurement(name=name, value=round(float(value), 3), unit=unit, derivation=derivation)
            for name, value, unit, derivation in values
            if np.isfinite(value)
        ],
    )


def require_highdicom() -> Any:
    """The optional package ``highdicom``, or an :class:`InputError` that says how to install it."""
    try:
        import highdicom
    except ImportError as error:
        raise InputError("DICOM segmentations need highdicom: pip install 'xrecon-bundle[dicom]'") from error
    return highdicom

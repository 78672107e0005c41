"""From a CT file to a label map, its statistics and a picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from monai.data import MetaTensor
from pydicom.dataset import Dataset

from ..files import InputError, atomic_path, check_writable, write_json, write_nifti
from ..frame import AXCODES, voxel_spacing
from ..io.dicom import volume_slices
from ..io.dicom_headers import Series, one_line, read_dataset
from ..io.dicom_seg import require_highdicom, write_segmentation
from ..io.readers import dicom_files, named, read_ct, read_series
from ..io.volume import CTVolume
from ..segmentation.labels import COLOURS, REGIONS, WINDOW_HU
from ..segmentation.measures import measure_pneumothorax
from ..segmentation.plausibility import volume_warnings
from ..segmentation.ptxseg import PTXSeg, Segmenter
from ..transforms.segmentation import PTXSegd


def segment_file(
    ct_path: str | os.PathLike,
    output_path: str | os.PathLike,
    segmenter: str | Segmenter = "classical",
    weights: str | os.PathLike | None = None,
    series: str | None = None,
) -> dict[str, Any]:
    """Segment a CT file.

    Writes the label map on the CT's own grid (uint8 NIfTI), ``statistics.json`` beside it, and a picture with the label
    map's name and ``.png``.

    Args:
        ct_path: anything that :func:`xrecon_bundle.io.readers.read_ct` reads; any axis order and direction.
        output_path: the label map, ``.nii`` or ``.nii.gz``.
        segmenter: as in :class:`PTXSeg`.
        weights: as in :class:`PTXSeg`.
        series: SeriesInstanceUID, where a DICOM folder has several.

    Returns:
        the content of ``statistics.json``: :func:`measure_pneumothorax` with ``ct``, ``segmenter``, ``labels``, what is
        known of the CT (``format``; of DICOM the series that was read, and ``other_series``) and ``warnings``.

    Raises:
        InputError: the CT cannot be read, shows no lung, or the output cannot be written or does not end in .nii or
            .nii.gz.
    """
    output_path = Path(output_path)
    suffix = next((end for end in (".nii.gz", ".nii") if output_path.name.endswith(end)), None)
    if suffix is None:
        raise InputError(f"{output_path}: a label map is written as NIfTI; let the name end in .nii.gz")
    statistics_path = output_path.parent / "statistics.json"
    picture_path = output_path.with_name(output_path.name.removesuffix(suffix) + ".png")
    for path in (output_path, statistics_path, picture_path):
        check_writable(path, sources=[ct_path])
    ptxseg = PTXSeg(segmenter, weights)
    ct = read_ct(ct_path, series)
    hu, spacing = in_chest_axes(ct)
    labels = ptxseg(hu, spacing)
    if not labels.any():
        raise InputError(f"{ct_path}: no lung was found; give a CT of the chest in HU")
    statistics = {
        "ct": str(ct_path),
        **ct.source,
        "warnings": list(ct.source.get("warnings", [])),
        "segmenter": segmenter if isinstance(segmenter, str) else type(segmenter).__name__,
        "labels": REGIONS,
        **measure_pneumothorax(labels, hu, spacing),
    }
    statistics["warnings"] += volume_warnings(statistics)
    chest, stored = nibabel.orientations.axcodes2ornt(AXCODES), nibabel.io_orientation(ct.affine)
    back = nibabel.orientations.ornt_transform(chest, stored)
    write_nifti(output_path, nibabel.orientations.apply_orientation(labels, back), ct.affine)
    write_json(statistics_path, statistics)
    with atomic_path(picture_path) as temporary:
        draw_segmentation(hu, labels, spacing, statistics).savefig(temporary, dpi=110)
    return statistics


def in_chest_axes(ct: CTVolume) -> tuple[np.ndarray, np.ndarray]:
    """What :class:`PTXSeg` takes: HU ``(X, Y, Z)`` with LPI axes, NaN as air, and the voxel size ``(3,)`` in mm."""
    stored = nibabel.io_orientation(ct.affine)
    turn = nibabel.orientations.ornt_transform(stored, nibabel.orientations.axcodes2ornt(AXCODES))
    hu = np.nan_to_num(nibabel.orientations.apply_orientation(ct.hu, turn), nan=-1024.0)
    return hu, voxel_spacing(ct.affine)[np.argsort(stored[:, 0])]


def draw_segmentation(hu: np.ndarray, labels: np.ndarray, spacing: np.ndarray, statistics: dict[str, Any]) -> Figure:
    """Axial, coronal and sagittal plane with the label map on it, cut where most free air is, else most lung.

    Args:
        hu: ``(X, Y, Z)`` in HU, LPI.
        labels: label map of the same shape.
        spacing: voxel size in mm.
        statistics: what :func:`measure_pneumothorax` returned.
    """
    shown = labels > 2 if np.count_nonzero(labels > 2) else labels > 0
    x, y, z = (int(np.argmax(shown.sum(axis=tuple({0, 1, 2} - {axis})))) for axis in range(3))
    dx, dy, dz = spacing
    planes = {
        "axial": (np.s_[:, :, z], dy / dx),
        "coronal": (np.s_[:, y, :], dz / dx),
        "sagittal": (np.s_[x, :, :], dz / dy),
    }
    figure = Figure(figsize=(13, 5), facecolor="black", layout="constrained")
    for axis, (name, (cut, aspect)) in zip(figure.subplots(1, 3), planes.items(), strict=True):
        axis.imshow(hu[cut].T, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=aspect)
        for colour, label in zip(COLOURS, REGIONS.values(), strict=True):
            region = (labels[cut] == label).T
            if region.any():
                axis.contourf(region, levels=[0.5, 1.5], colors=colour, alpha=0.3)
                axis.contour(region, levels=[0.5], colors=colour, linewidths=0.8)
        axis.set_title(name, color="white", fontsize=10)
        axis.axis("off")
    sides = [
        f"{side}: pneumothorax {statistics[side]['pneumothorax_ml']:.0f} mL, "
        f"{100 * statistics[side]['occupancy']:.1f} % of the cavity ({statistics[side]['size']}), "
        f"lung {statistics[side]['lung_ml']:.0f} mL"
        for side in ("right", "left")
    ]
    figure.suptitle("\n".join(sides), color="white", fontsize=11)
    handles = [
        Line2D([], [], color=colour, label=name.replace("_", " "))
        for colour, name in zip(COLOURS, REGIONS, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, labelcolor="white", fontsize=9)
    return figure


def segment_dicom(
    ct_path: str | os.PathLike,
    output_path: str | os.PathLike,
    segmenter: str | Segmenter = "classical",
    weights: str | os.PathLike | None = None,
    series: str | None = None,
) -> dict[str, Any]:
    """Segment a CT series in DICOM; the label map refers to its images.

    Writes the DICOM SEG, and beside it, under the same name, the measurements as ``.json`` and as a DICOM structured
    report ``.sr.dcm`` (Comprehensive 3D SR, TID 1500).

    Args:
        ct_path: folder with the CT series, one image a file.
        output_path: the DICOM SEG, ``.dcm``.
        segmenter: as in :class:`PTXSeg`.
        weights: as in :class:`PTXSeg`.
        series: SeriesInstanceUID, where the folder has several.

    Returns:
        the content of the ``.json``, as :func:`segment_file` describes it.

    Raises:
        InputError: highdicom is not installed, the CT cannot be read, shows no lung, or the output's name does not end
            in .dcm.
    """
    output_path, ct_path = Path(output_path), Path(ct_path)
    require_highdicom()
    if output_path.suffix != ".dcm":
        raise InputError(f"{output_path}: a DICOM segmentation is one file; let the name end in .dcm")
    for suffix in (".dcm", ".json", ".sr.dcm"):
        check_writable(output_path.with_suffix(suffix))
    if not ct_path.is_dir():
        raise InputError(f"{ct_path} is no folder; a DICOM segmentation refers to a CT series: give its folder")
    with named(ct_path):
        chosen, ct = read_series(dicom_files(ct_path), series)
        for suffix in (".dcm", ".sr.dcm"):
            check_writable(output_path.with_suffix(suffix), sources=chosen.files())
        images = _images(chosen)
    tensor = MetaTensor(torch.from_numpy(np.nan_to_num(ct.hu, nan=-1024.0))[None], affine=torch.as_tensor(ct.affine))
    labels = PTXSegd("ct", "labels", segmenter, weights)({"ct": tensor})["labels"][0].numpy()
    if not labels.any():
        raise InputError(f"{ct_path}: no lung was found; give a CT of the chest in HU")
    statistics = {
        "ct": str(ct_path),
        **ct.source,
        "warnings": list(ct.source.get("warnings", [])),
        "segmenter": segmenter if isinstance(segmenter, str) else type(segmenter).__name__,
        "labels": REGIONS,
        **measure_pneumothorax(labels, ct.hu, voxel_spacing(ct.affine)),
    }
    statistics["warnings"] += volume_warnings(statistics)
    try:
        write_segmentation(output_path, labels, ct.affine, images, statistics)
    except InputError:
        raise
    except Exception as error:  # highdicom copies much of the headers, and raises what a damaged tag leads to
        raise InputError(
            f"{ct_path}: a DICOM segmentation cannot refer to these images ({one_line(error)}); "
            "segment it with --format nifti"
        ) from error
    write_json(output_path.with_suffix(".json"), statistics)
    return statistics


def _images(series: Series) -> list[Dataset]:
    """Headers of the images that the volume of a series is made of.

    Raises:
        InputError: they cannot be referred to, one by one.
    """
    slices = volume_slices(series)
    if any(part.frame for part in slices):
        raise InputError("a multi-frame CT; segment it with --format nifti")
    if len({part.uid for part in slices} - {""}) < len(slices) or not (series.uid and series.study):
        raise InputError(
            "UIDs are missing or the same for several images, so a DICOM segmentation cannot say which image it means; "
            "segment it with --format nifti"
        )
    return [read_dataset(part.path, stop_before_pixels=True) for part in slices]

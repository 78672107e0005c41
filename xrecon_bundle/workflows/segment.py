"""From a CT to a label map, its statistics and, in NIfTI, a picture; in DICOM, a report."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import (
    Format,
    InputError,
    check_format,
    check_readable,
    check_writable,
    one_line,
    write_json,
    write_nifti,
    write_text,
)
from ..frame import AIR_HU, AXCODES, voxel_spacing
from ..segmentation.labels import REGIONS, SIDES
from .estimates import FROM_RADIOGRAPHS, reconstruction_warnings
from .pages import NIFTI_SUFFIXES, page_path, report_beside

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from ..dicom.headers import Series
    from ..segmentation.free_air import JudgedPocket
    from ..segmentation.ptxseg import Segmenter
    from ..volume import CTVolume

THIRDS = (("front", "middle", "back"), ("upper", "middle", "lower"))  # of a cavity, along y and z


def segment_file(
    ct_path: str | os.PathLike,
    output_path: str | os.PathLike,
    segmenter: str | Segmenter = "classical",
    weights: str | os.PathLike | None = None,
    output_format: Format = "nifti",
    explain: bool = False,
    series: str | None = None,
    view: bool = True,
) -> dict[str, Any]:
    """Segment a CT.

    ``nifti`` writes the label map on the CT's own grid (uint8), ``dicom`` a DICOM SEG that refers to the CT's images.
    Beside it, under its name, lie the statistics (``.json``), and a picture (``.png``) or, for ``dicom``, a structured
    report (``.sr.dcm``, Comprehensive 3D SR, TID 1500).
    With ``view`` either has a page to look at beside it, under its name with ``.html``.

    Args:
        ct_path: anything that :func:`xrecon_bundle.io.readers.read_ct` reads; any axis order and direction. For
            ``dicom`` the folder of the CT series, one image a file.
        output_path: the label map: ``.nii`` or ``.nii.gz``, or ``.dcm``.
        segmenter: as in :class:`PTXSeg`.
        weights: as in :class:`PTXSeg`.
        output_format: ``nifti`` or ``dicom``.
        explain: say of each pocket of air why it counts as a pneumothorax or not.
        series: SeriesInstanceUID, where a DICOM folder has several.
        view: write the page.

    Returns:
        the statistics as written: :func:`measure_pneumothorax` with ``ct``, ``segmenter``, ``labels``, what is known of
        the CT (``format``; of DICOM the series that was read, and ``other_series``) and ``warnings``; with ``explain``
        also ``pockets``, see :func:`explained`.

    Raises:
        InputError: the CT cannot be read, shows no lung, or does not suit the format; the output cannot be written or
            its name does not suit the format; the segmenter cannot be had, or does not explain.
    """
    ct_path = Path(ct_path)
    target = _Target.at(Path(output_path), output_format, view)
    for path in target.files():
        check_writable(path, sources=[ct_path])
    check_readable(ct_path, "file or folder")
    import nibabel

    from ..segmentation.measures import measure_pneumothorax
    from ..segmentation.plausibility import volume_warnings
    from ..segmentation.ptxseg import PTXSeg

    ptxseg = PTXSeg(segmenter, weights)
    ct, images = _read(ct_path, output_format, series, target)
    hu, spacing = in_chest_axes(ct)
    labels, pockets = ptxseg.explain(hu, spacing) if explain else (ptxseg(hu, spacing), None)
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
    if (report := report_beside(ct_path)) is not None:
        statistics["warnings"].append(FROM_RADIOGRAPHS)
        statistics["warnings"] += reconstruction_warnings(statistics, report["estimates"])
    if pockets is not None:
        statistics["pockets"] = explained(pockets, labels, ct.affine)
    back = nibabel.orientations.ornt_transform(_chest_axes(), nibabel.io_orientation(ct.affine))
    stored = nibabel.orientations.apply_orientation(labels, back)
    if images is None:
        write_nifti(target.labels, stored, ct.affine)
    else:
        _write_dicom(target.labels, stored, ct.affine, images, statistics)
    if target.picture is not None:
        from ..report.segmentation import write_segmentation_picture

        write_segmentation_picture(target.picture, hu, labels, spacing, statistics)
    if target.page is not None:
        title = f"{Path(os.path.abspath(ct_path)).name}: lungs and pneumothorax"
        from .view import segmentation_page

        write_text(target.page, segmentation_page(title, ct.hu, stored, ct.affine, statistics))
    else:  # one of an earlier result, perhaps another patient's
        page_path(target.labels).unlink(missing_ok=True)
    write_json(target.statistics, statistics)
    return statistics


def write_dicom_labels(
    path: str | os.PathLike, labels_path: str | os.PathLike, series_path: str | os.PathLike, statistics: dict[str, Any]
) -> None:
    """Write a label map that is there as NIfTI also as a DICOM SEG, with its report ``.sr.dcm`` beside it.

    Args:
        path: the DICOM SEG, ``.dcm``.
        labels_path: label map of PTX-Seg, NIfTI, on the grid of the series.
        series_path: folder of the CT series that the two refer to, one image a file.
        statistics: of :func:`segment_file`; ``series`` says which one where the folder has several.

    Raises:
        InputError: the label map lies elsewhere, the images cannot be referred to, or highdicom is missing.
    """
    from ..dicom.seg import require_highdicom
    from ..io.on_grid import read_on_grid
    from ..io.readers import dicom_files, named, read_series

    require_highdicom()
    with named(Path(series_path)):
        chosen, ct = read_series(dicom_files(Path(series_path)), statistics.get("series"))
        images = _images(chosen)
    _write_dicom(Path(path), read_on_grid(labels_path, ct, series_path), ct.affine, images, statistics)


@dataclass(frozen=True)
class _Target:
    """Where the results go."""

    labels: Path
    statistics: Path
    picture: Path | None = None
    report: Path | None = None
    page: Path | None = None

    def files(self) -> list[Path]:
        """All of them."""
        return [path for path in vars(self).values() if path is not None]

    @classmethod
    def at(cls, path: Path, output_format: Format, view: bool) -> _Target:
        """The files of a format, where ``path`` can be its label map."""
        check_format(output_format)
        page = page_path(path) if view else None
        if output_format == "dicom":
            from ..dicom.seg import require_highdicom

            require_highdicom()
            if path.suffix != ".dcm":
                raise InputError(f"{path}: a DICOM segmentation is one file; let the name end in .dcm")
            return cls(path, path.with_suffix(".json"), report=path.with_suffix(".sr.dcm"), page=page)
        suffix = next((end for end in NIFTI_SUFFIXES if path.name.endswith(end)), None)
        if suffix is None:
            raise InputError(f"{path}: a label map is written as NIfTI; let the name end in .nii.gz")
        name = path.name.removesuffix(suffix)
        picture = path.with_name(f"{name}.png")
        return cls(path, path.with_name(f"{name}.json"), picture, page=page)


def _read(
    ct_path: Path, output_format: Format, series: str | None, target: _Target
) -> tuple[CTVolume, list[Dataset] | None]:
    """The CT, and for DICOM the headers of its images."""
    from ..io.readers import dicom_files, named, read_ct, read_series

    if output_format != "dicom":
        return read_ct(ct_path, series), None
    if not ct_path.is_dir():
        raise InputError(f"{ct_path} is no folder; a DICOM segmentation refers to a CT series: give its folder")
    with named(ct_path):
        chosen, ct = read_series(dicom_files(ct_path), series)
        for path in target.files():
            check_writable(path, sources=chosen.files())
        return ct, _images(chosen)


def _images(series: Series) -> list[Dataset]:
    """Headers of the images that the volume of a series is made of.

    Raises:
        InputError: they cannot be referred to, one by one.
    """
    from ..dicom.headers import read_dataset
    from ..dicom.series import volume_slices

    slices = volume_slices(series)
    if any(part.frame for part in slices):
        raise InputError("a multi-frame CT; segment it with --format nifti")
    if len({part.uid for part in slices} - {""}) < len(slices) or not (series.uid and series.study):
        raise InputError(
            "UIDs are missing or the same for several images, so a DICOM segmentation cannot say which image it means; "
            "segment it with --format nifti"
        )
    return [read_dataset(part.path, stop_before_pixels=True) for part in slices]


def _write_dicom(
    path: Path, labels: np.ndarray, affine: np.ndarray, images: list[Dataset], statistics: dict[str, Any]
) -> None:
    from ..dicom.seg import write_segmentation

    try:
        write_segmentation(path, labels, affine, images, statistics)
    except InputError:
        raise
    except Exception as error:  # highdicom copies much of the headers, and raises what a damaged tag leads to
        raise InputError(
            f"{statistics['ct']}: a DICOM segmentation cannot refer to these images ({one_line(error)}); "
            "segment it with --format nifti"
        ) from error


def _chest_axes() -> np.ndarray:
    import nibabel

    return nibabel.orientations.axcodes2ornt(AXCODES)


def in_chest_axes(ct: CTVolume) -> tuple[np.ndarray, np.ndarray]:
    """What :class:`PTXSeg` takes: HU ``(X, Y, Z)`` with LPI axes, NaN as air, and the voxel size ``(3,)`` in mm."""
    import nibabel

    stored = nibabel.io_orientation(ct.affine)
    turn = nibabel.orientations.ornt_transform(stored, _chest_axes())
    hu = np.nan_to_num(nibabel.orientations.apply_orientation(ct.hu, turn), nan=AIR_HU)
    return hu, voxel_spacing(ct.affine)[np.argsort(stored[:, 0])]


def explained(pockets: dict[str, list[JudgedPocket]], labels: np.ndarray, affine: np.ndarray) -> list[dict[str, Any]]:
    """What :meth:`.PTXSeg.explain` says of the pockets of air, for people to read and JSON to hold.

    Args:
        pockets: by side.
        labels: label map ``(X, Y, Z)``, LPI.
        affine: ``(4, 4)`` of the CT as stored, voxel index to RAS+ mm.

    Returns:
        a dictionary a pocket: ``side``; ``counted``, whether as pneumothorax; ``reason``; ``where`` in that pleural
        cavity; ``centre_mm`` in the patient (RAS+); and what was measured of it, see :class:`.Pocket`.
    """
    import nibabel
    from scipy import ndimage

    stored = nibabel.io_orientation(affine)
    turn = nibabel.orientations.ornt_transform(stored, _chest_axes())
    shape = tuple(labels.shape[int(axis)] for axis in turn[:, 0])
    affine = affine @ nibabel.orientations.inv_ornt_aff(turn, shape)
    rows = []
    for side, judged in pockets.items():
        cavity = ndimage.find_objects(np.isin(labels, SIDES[side]).astype(np.uint8))
        for pocket, verdict in judged:
            measures = asdict(pocket)
            centre = np.array(measures.pop("centre_mm")) / nibabel.affines.voxel_sizes(affine)
            places = [(at - part.start) / (part.stop - part.start) for at, part in zip(centre, cavity[0], strict=True)]
            where = [names[int(np.clip(3 * at, 0, 2))] for names, at in zip(THIRDS, places[1:], strict=True)]
            rows.append(
                {
                    "side": side,
                    "counted": verdict.kept,
                    "reason": verdict.reason,
                    "where": f"{where[1]} third, {where[0]}",
                    "centre_mm": nibabel.affines.apply_affine(affine, centre).round(1).tolist(),
                    **{name: round(value, 3) for name, value in measures.items()},
                }
            )
    return rows


def in_words(pockets: list[dict[str, Any]]) -> list[str]:
    """Lines for the terminal on what :func:`explained` returned, side by side, what is counted first."""
    lines = []
    for side in SIDES:
        of_side = [pocket for pocket in pockets if pocket["side"] == side]
        if not of_side:
            lines.append(f"{side}: no pocket of air large enough to be judged")
        for pocket in sorted(of_side, key=lambda pocket: not pocket["counted"]):
            verdict = "counted" if pocket["counted"] else "not counted"
            size = f"{pocket['volume_ml']:.0f} mL, {pocket['thickness_mm']:.1f} mm thick"
            place = f"{pocket['where']}, at {', '.join(f'{at:.0f}' for at in pocket['centre_mm'])} mm"
            lines.append(f"{side}, {size} ({place}): {verdict}: {pocket['reason']}")
    return lines

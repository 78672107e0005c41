"""Two radiograph files in; the CT volume and its report out, as NIfTI or as a DICOM series."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import (
    Format,
    InputError,
    check_format,
    check_readable,
    check_writable,
    to_json,
    write_json,
    write_nifti,
    write_text,
)
from .pages import NIFTI_SUFFIXES, REPORT, VIEW, report_path, view_path

if TYPE_CHECKING:
    from .predictor import Predictor, Reconstruction


def check_output(output: Path, output_format: str) -> None:
    """Raise :class:`InputError` when a result of this format cannot be called ``output``."""
    check_format(output_format)
    if output_format == "nifti" and not output.name.endswith(NIFTI_SUFFIXES):
        raise InputError(
            f"{output}: the CT is written as NIfTI; give a name that ends in .nii.gz, or a folder with --format dicom"
        )
    if output_format == "dicom" and output.name.endswith(NIFTI_SUFFIXES):
        raise InputError(f"{output}: a DICOM series is a folder; give a folder's name")


def write_reconstruction(result: Reconstruction, output: Path, output_format: Format, view: bool = False) -> None:
    """Write the volume, with ``view`` its page, and its JSON (last, so that it vouches for the rest)."""
    check_output(output, output_format)
    page = None
    if view:
        from .view import reconstruction_page

        page = reconstruction_page(result)
    if output_format == "dicom":
        from ..dicom.write import read_source, write_ct_series

        sources = [source for path in result.files if (source := read_source(path)) is not None]
        write_ct_series(
            output,
            result.hu,
            result.affine,
            sources,
            derivation="Computed from two radiographs by a neural network",
            extra=[(REPORT, to_json(result.report) + "\n"), *([(VIEW, page)] if page else [])],
        )
        return
    write_nifti(output, result.hu, result.affine)
    if page:
        write_text(view_path(output, output_format), page)
    write_json(report_path(output, output_format), result.report)


def check_request(
    pa: str | Path,
    lateral: str | Path,
    output: str | Path,
    output_format: Format = "nifti",
    picture: str | Path | None = None,
    labels: str | Path | None = None,
    deviation: str | Path | None = None,
) -> None:
    """Raise :class:`InputError` where files are not there or cannot be written; cheap, before PyTorch is imported.

    Arguments as of :func:`reconstruct_files`.
    """
    output = Path(output)
    check_output(output, output_format)
    check_writable(output, folder=output_format == "dicom", sources=(pa, lateral))
    if output_format == "nifti":
        for path in (report_path(output, output_format), view_path(output, output_format)):
            check_writable(path, sources=(pa, lateral))
    else:
        from ..dicom.write import check_new_folder

        check_new_folder(output)
    beside = [path for path in (picture, labels, deviation) if path is not None]
    for number, file in enumerate(beside):
        check_writable(file, sources=(pa, lateral))
        if Path(file).resolve() in {Path(other).resolve() for other in (output, *beside[:number])}:
            raise InputError(f"{file} is to hold two results; give each a name of its own")
    if picture is not None and Path(picture).suffix.lower() != ".png":
        raise InputError(f"{picture}: the picture is a PNG; give a name that ends in .png")
    for volume_file in (labels, deviation):
        if volume_file is not None and not str(volume_file).endswith(NIFTI_SUFFIXES):
            raise InputError(f"{volume_file}: a volume is written as NIfTI; give a name that ends in .nii.gz")
    for radiograph in (pa, lateral):
        check_readable(radiograph)


def reconstruct_files(
    pa: str | Path,
    lateral: str | Path,
    output: str | Path,
    predictor: Predictor,
    output_format: Format = "nifti",
    view: bool = True,
    picture: str | Path | None = None,
    labels: str | Path | None = None,
    deviation: str | Path | None = None,
) -> dict[str, Any]:
    """Write the CT of two radiograph files (PNG, JPEG, NIfTI, DICOM) in HU, and its JSON.

    Args:
        pa: the posteroanterior view.
        lateral: the left lateral view.
        output: file to write (``.nii`` or ``.nii.gz``), or the new folder of the DICOM series; nothing is written when
            anything is wrong.
        predictor: the weights and the options of reading.
        output_format: ``nifti`` or ``dicom``.
        view: also write the page to look at, under the JSON's name with ``.html``.
        picture: PNG to write of both views as they were placed.
        labels: NIfTI to write of the network's own label map, ``(S, S, S)`` uint8.
        deviation: NIfTI to write of the standard deviation in HU, ``(S, S, S)`` int16.

    Returns:
        the content of the JSON.

    Raises:
        InputError: a file cannot be used; the message names it and the remedy.
    """
    check_request(pa, lateral, output, output_format, picture, labels, deviation)
    if (labels is not None or deviation is not None) and not predictor.tells:
        name = predictor.weights["file"] if predictor.weights else "the network"
        raise InputError(f"{name}: gives neither labels nor a deviation; leave out --labels, --deviation")
    result = predictor((pa, lateral))
    if picture is not None:
        from ..report.placement import write_placement_picture

        write_placement_picture(picture, result.radiographs, result.report["placement"])
    for volume_file, volume in ((labels, result.labels), (deviation, result.deviation)):
        if volume_file is not None and volume is not None:
            write_nifti(Path(volume_file), volume, result.affine)
    write_reconstruction(result, Path(output), output_format, view)
    if not view:  # one of an earlier result, perhaps another patient's
        view_path(Path(output), output_format).unlink(missing_ok=True)
    return result.report

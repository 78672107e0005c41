"""A radiograph pair in, a CT volume and the record of how it came about out; as NIfTI or as a DICOM series."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor

from .. import __version__
from ..datasets.cases import file_sha256
from ..datasets.radiograph_pairs import read_biplanar
from ..files import FORMATS, Format, InputError, to_json, write_json, write_nifti
from ..frame import AIR_HU, HU_SPAN, cube_affine, grid_centre, radiograph_to_unit, unit_to_hu
from ..io.dicom_write import read_source, write_ct_series
from ..networks import XReconGenerator
from ..networks.weights import load_generator
from ..placement.radiographs import load_radiograph_pair
from ..quality import check_radiographs, projection_geometry, reprojection_consistency
from ..quality.consistency import LOW_SCORE

NIFTI_SUFFIXES = (".nii.gz", ".nii")
REPORT = "reconstruction.json"  # in the folder of a DICOM series
NOTICE = "Computed from two radiographs. Not for diagnosis."


class Reconstruction(NamedTuple):
    """A CT and how it came about.

    Attributes:
        hu: ``(S, S, S)`` int16 HU, LPI.
        affine: ``(4, 4)`` voxel index to RAS+ mm.
        files: the radiographs' files.
        report: what is written as JSON beside the volume, see docs/dicom.md.
    """

    hu: np.ndarray
    affine: np.ndarray
    files: tuple[Path, ...]
    report: dict[str, Any]


def reconstruct(image: torch.Tensor, generator: XReconGenerator) -> np.ndarray:
    """CT ``(S, S, S)`` in HU, int16, LPI, of a radiograph pair ``(2, S, S)`` of any grey scale (bright is dense)."""
    with torch.inference_mode():
        unit = generator(radiograph_to_unit(torch.as_tensor(image).float())[None])[0, 0]
    return np.rint(unit_to_hu(unit.clip(0, 1)).clip(AIR_HU, AIR_HU + HU_SPAN).numpy()).astype(np.int16)


class Reconstructor:
    """Weights, loaded once, that turn files into reconstructions.

    Args:
        model: weights, see :func:`xrecon_bundle.networks.weights.load_generator`.
        spatial_size: edge of the volume that they were trained for.
        loading: passed to :func:`xrecon_bundle.placement.radiographs.load_radiograph_pair`. With
            ``accept_any_view`` the input gate does not refuse either.

    Raises:
        InputError: the weights cannot be used.
    """

    def __init__(self, model: str | Path, spatial_size: int, **loading: Any) -> None:
        self.generator = load_generator(model, spatial_size)
        self.weights = {"file": str(model), "sha256": file_sha256(model)}
        self.spatial_size = spatial_size
        self.loading = loading

    def origin(self, files: Sequence[Path]) -> dict[str, Any]:
        """What a result depends on: version, input files and weights with their SHA-256, settings."""
        return {
            "version": __version__,
            "inputs": [{"file": str(path), "sha256": file_sha256(path)} for path in files],
            "weights": self.weights,
            "spatial_size": self.spatial_size,
            "loading": {name: value for name, value in sorted(self.loading.items()) if value},
        }

    def __call__(self, files: Sequence[str | Path]) -> Reconstruction:
        """Reconstruct from a PA and a lateral file, or from one biplanar NIfTI.

        The volume stands where the radiographs' own affine says (ours carry it), else around the origin.

        Raises:
            InputError: a file cannot be used, or the pair is no chest; the message says what to do.
        """
        files = tuple(Path(path) for path in files)
        size = self.spatial_size
        image: MetaTensor = (
            read_biplanar(files[0], size) if len(files) == 1 else load_radiograph_pair(*files, size, **self.loading)
        )
        quality = check_radiographs(image)
        if quality.refusals and not self.loading.get("accept_any_view"):
            names = " and ".join(str(path) for path in files)
            raise InputError(f"{names}: {quality.refusals[0]}, or set accept_any_view to try all the same")
        hu = reconstruct(image, self.generator)
        affine = cube_affine(size, tuple(grid_centre(image.affine.numpy(), (size, size, 2))))
        consistency = reprojection_consistency(hu, image)
        warnings = [*quality.refusals, *quality.warnings]
        if consistency["score"] < LOW_SCORE:
            warnings.append(f"the volume explains its radiographs poorly (consistency {consistency['score']:.2f})")
        report = {
            "notice": NOTICE,
            **self.origin(files),
            "geometry": {**projection_geometry(), "affine": affine.tolist()},
            "consistency": consistency,
            "input_quality": quality.measures,
            "warnings": warnings,
        }
        return Reconstruction(hu, affine, files, report)


def check_output(output: Path, output_format: str) -> None:
    """Raise :class:`InputError` when a result of this format cannot be called ``output``."""
    if output_format not in FORMATS:
        raise InputError(f"format '{output_format}' is unknown; choose one of {', '.join(FORMATS)}")
    if output_format == "nifti" and not output.name.endswith(NIFTI_SUFFIXES):
        raise InputError(
            f"{output}: the CT is written as NIfTI; give a name that ends in .nii.gz, or a folder with --format dicom"
        )
    if output_format == "dicom" and output.name.endswith(NIFTI_SUFFIXES):
        raise InputError(f"{output}: a DICOM series is a folder; give a folder's name")


def report_path(output: Path, output_format: Format) -> Path:
    """Where the JSON of a result is: beside a NIfTI under its name, in a DICOM series' folder."""
    if output_format == "dicom":
        return output / REPORT
    suffix = next(suffix for suffix in NIFTI_SUFFIXES if output.name.endswith(suffix))
    return output.with_name(f"{output.name.removesuffix(suffix)}.json")


def write_reconstruction(result: Reconstruction, output: Path, output_format: Format) -> None:
    """Write the volume and its JSON (last, so that it vouches for the volume)."""
    check_output(output, output_format)
    if output_format == "dicom":
        sources = [source for path in result.files if (source := read_source(path)) is not None]
        write_ct_series(
            output,
            result.hu,
            result.affine,
            sources,
            derivation="Computed from two radiographs by a neural network",
            extra=[(REPORT, to_json(result.report) + "\n")],
        )
        return
    write_nifti(output, result.hu, result.affine)
    write_json(report_path(output, output_format), result.report)


def reconstruct_files(
    pa: str | Path,
    lateral: str | Path,
    output: str | Path,
    model: str | Path,
    spatial_size: int,
    output_format: Format = "nifti",
    **loading: Any,
) -> dict[str, Any]:
    """Write the CT of two radiograph files (PNG, JPEG, NIfTI, DICOM) in HU, and its JSON.

    Args:
        pa: the posteroanterior view.
        lateral: the left lateral view.
        output: file to write (``.nii`` or ``.nii.gz``), or the new folder of the DICOM series; nothing is written when
            anything is wrong.
        model: weights, see :class:`Reconstructor`.
        spatial_size: edge of the volume that the weights were trained for.
        output_format: ``nifti`` or ``dicom``.
        loading: see :class:`Reconstructor`.

    Returns:
        the content of the JSON.

    Raises:
        InputError: a file cannot be used; the message names it and the remedy.
    """
    output = Path(output)
    check_output(output, output_format)
    result = Reconstructor(model, spatial_size, **loading)((pa, lateral))
    write_reconstruction(result, output, output_format)
    return result.report


def same_origin(report: Path, origin: dict[str, Any]) -> dict[str, Any] | None:
    """The report of a finished result that has this origin (files may have moved), else None."""
    try:
        found = json.loads(report.read_text())
        same = _without_files(found) == _without_files(json.loads(to_json(origin)))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if same else None


def _without_files(origin: dict[str, Any]) -> list[Any]:
    return [
        *(origin[name] for name in ("version", "spatial_size", "loading")),
        origin["weights"]["sha256"],
        *(item["sha256"] for item in origin["inputs"]),
    ]

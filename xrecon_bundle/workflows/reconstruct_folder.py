"""Reconstruct a folder of patients: resumable, past bad cases, with a summary table."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ..datasets.radiograph_pairs import RadiographPair, find_pairs
from ..files import Format, InputError, atomic_path, check_writable, write_nifti
from ..segmentation import PTXSeg
from ..segmentation.measures import measure_pneumothorax
from ..segmentation.plausibility import volume_warnings
from .predictor import Predictor, Reconstruction
from .reconstruct import (
    check_output,
    report_path,
    same_origin,
    write_reconstruction,
)

SUMMARY = "summary.csv"
CT = {"nifti": "ct.nii.gz", "dicom": "ct"}
SEGMENTATION = {"nifti": "segmentation.nii.gz", "dicom": "segmentation.dcm"}
OURS = {*CT.values(), *SEGMENTATION.values(), "ct.json", "segmentation.sr.dcm"}  # all that a case's folder may hold
SEGMENTATION_KEY = "pneumothorax"
MEASURES = ("lung_ml", "pneumothorax_ml", "occupancy", "size")


class BatchSummary(NamedTuple):
    """What became of the cases. ``failed``: reasons by case; ``table``: path of the CSV."""

    made: int
    reused: int
    failed: dict[str, str]
    table: Path


def reconstruct_folder(
    folder: str | os.PathLike,
    output_dir: str | os.PathLike,
    predictor: Predictor,
    output_format: Format = "nifti",
    segment: bool = False,
) -> BatchSummary:
    """Reconstruct every radiograph pair below ``folder``.

    Each case becomes a folder in ``output_dir``, complete or not there at all. A case whose result is there, made of
    the same files by the same weights, code and settings, is kept. A case that fails is listed and the next one
    goes on.

    Args:
        folder: see :func:`xrecon_bundle.datasets.radiograph_pairs.find_pairs`.
        output_dir: receives a folder a case, and ``summary.csv``: a row a case with status, consistency, warnings and,
            with ``segment``, the measures of lung and pneumothorax.
        predictor: the weights and the options of reading.
        output_format: ``nifti`` or ``dicom``.
        segment: run PTX-Seg on each reconstruction.

    Raises:
        InputError: no radiographs in ``folder``, or an unknown format.
    """
    output = Path(output_dir)
    check_output(output / CT.get(output_format, ""), output_format)
    check_writable(output / SUMMARY)
    pairs, failed = find_pairs(folder)
    rows = [{"case": case, "status": "failed", "error": reason} for case, reason in failed.items()]
    reused = 0
    for pair in tqdm(pairs, desc="reconstruct", unit="case"):
        try:
            report, was_there = _make_or_reuse(pair, output / pair.case, predictor, output_format, segment)
        except InputError as error:
            failed[pair.case] = str(error)
        except Exception as error:  # one case must not cost the others
            failed[pair.case] = f"{pair.files[0]}: {type(error).__name__}: {error}"
        else:
            reused += was_there
            rows.append({"case": pair.case, "status": "reused" if was_there else "made", **_columns(report)})
            continue
        rows.append({"case": pair.case, "status": "failed", "error": failed[pair.case]})
    _write_table(output / SUMMARY, rows)
    return BatchSummary(len(rows) - len(failed) - reused, reused, failed, output / SUMMARY)


def _make_or_reuse(
    pair: RadiographPair, target: Path, predictor: Predictor, output_format: Format, segment: bool
) -> tuple[dict[str, Any], bool]:
    finished = same_origin(report_path(target / CT[output_format], output_format), predictor.origin(pair.files))
    if finished is not None and segment == (SEGMENTATION_KEY in finished):
        return finished, True
    if target.exists() and not {path.name for path in target.iterdir()} <= OURS:
        raise InputError(f"{target} holds files that are no result; give another output folder")
    result = predictor(pair.files)
    with atomic_path(target) as temporary:
        temporary.mkdir()
        labels = _segment(result) if segment else None
        write_reconstruction(result, temporary / CT[output_format], output_format)
        if labels is not None and labels.any():
            _write_labels(labels, result, temporary, output_format)
        if target.exists():  # a result of other weights, files or code
            shutil.rmtree(target)
    return result.report, False


def _segment(result: Reconstruction) -> np.ndarray:
    """The label map; its measures join the report."""
    spacing = np.linalg.norm(result.affine[:3, :3], axis=0)
    labels = PTXSeg()(result.hu, spacing)
    result.report[SEGMENTATION_KEY] = measure_pneumothorax(labels, result.hu, spacing)
    if labels.any():
        result.report["warnings"] += volume_warnings(result.report[SEGMENTATION_KEY])
    else:
        result.report["warnings"].append("no lung was found in the reconstruction")
    return labels


def _write_labels(labels: np.ndarray, result: Reconstruction, folder: Path, output_format: Format) -> None:
    path = folder / SEGMENTATION[output_format]
    if output_format == "nifti":
        write_nifti(path, labels, result.affine)
        return
    import pydicom

    from ..dicom.seg import write_segmentation

    images = [pydicom.dcmread(image, stop_before_pixels=True) for image in sorted((folder / CT["dicom"]).glob("*.dcm"))]
    write_segmentation(path, labels, result.affine, images, result.report[SEGMENTATION_KEY])


def _columns(report: dict[str, Any]) -> dict[str, Any]:
    consistency = report["consistency"]
    row = {"consistency": round(consistency["score"], 4)}
    for view in ("pa", "lateral"):
        row |= {f"{view}_{name}": round(value, 4) for name, value in consistency[view].items()}
    row["warnings"] = "; ".join(report["warnings"])
    for side in ("right", "left", "total"):
        measured = report.get(SEGMENTATION_KEY, {}).get(side, {})
        row |= {f"{side}_{name}": measured[name] for name in MEASURES if name in measured}
    return row


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda row: row["case"])
    names = [*dict.fromkeys(name for row in rows for name in row if name != "error"), "error"]
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)

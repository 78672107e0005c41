"""Reconstruct a folder of patients: resumable, past bad cases, with a summary table."""

from __future__ import annotations

import csv
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..datasets.radiograph_pairs import RadiographPair, find_pairs
from ..datasets.store import FILES, Outcome, make_or_reuse, run_cases
from ..files import (
    Format,
    InputError,
    atomic_path,
    check_writable,
    file_sha256,
    write_json,
    write_nifti,
    write_text,
)
from .estimates import reconstruction_warnings
from .pages import report_path, view_path
from .predictor import Predictor, Reconstruction
from .reconstruct import check_output, write_reconstruction

SUMMARY = "summary.csv"
SOURCE = "source.json"  # of a case: what it was made of and how, for the next run
CT = {"nifti": "ct.nii.gz", "dicom": "ct"}
SEGMENTATION = {"nifti": "segmentation.nii.gz", "dicom": "segmentation.dcm"}
# All that a case's folder may hold.
OURS = {*CT.values(), *SEGMENTATION.values(), "ct.json", "ct.html", "segmentation.sr.dcm", SOURCE}
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
    view: bool = True,
) -> BatchSummary:
    """Reconstruct every radiograph pair below ``folder``.

    Each case becomes a folder in ``output_dir``, complete or not there at all. A case whose result is there, made of
    the same files by the same weights, code and settings, is kept. A case that fails is listed and the next one
    goes on.

    Args:
        folder: see :func:`xrecon_bundle.datasets.radiograph_pairs.find_pairs`.
        output_dir: receives a folder a case, and ``summary.csv``: a row a case with status, consistency, warnings,
            with ``segment`` the measures of lung and pneumothorax, and with ``view`` where its page is.
        predictor: the weights and the options of reading.
        output_format: ``nifti`` or ``dicom``.
        segment: run PTX-Seg on each reconstruction.
        view: write a page to look at beside each CT.

    Raises:
        InputError: no radiographs in ``folder``, it is the output too, or an unknown format.
    """
    output = Path(output_dir)
    if output.resolve() == Path(folder).resolve():
        raise InputError(f"{output} holds the radiographs; give another output folder")
    check_output(output / CT.get(output_format, ""), output_format)
    check_writable(output / SUMMARY)
    pairs, failed = find_pairs(folder)
    rows = [{"case": case, "status": "failed", "error": reason} for case, reason in failed.items()]
    make = partial(_make, output, predictor, output_format, segment, view)
    # One after the other, each with all threads: a network keeps the cores busy by itself.
    outcomes = run_cases(make, pairs, "reconstruct", threads=None)
    for pair, outcome in zip(pairs, outcomes, strict=True):
        if outcome.reason is not None:
            failed[pair.case] = outcome.reason
            rows.append({"case": pair.case, "status": "failed", "error": outcome.reason})
            continue
        status = "reused" if outcome.reused else "made"
        rows.append({"case": pair.case, "status": status, **_columns(output, pair.case, output_format, view)})
    _write_table(output / SUMMARY, rows)
    reused = sum(outcome.reused for outcome in outcomes)
    return BatchSummary(len(rows) - len(failed) - reused, reused, failed, output / SUMMARY)


def _make(
    output: Path, predictor: Predictor, output_format: Format, segment: bool, view: bool, pair: RadiographPair
) -> Outcome:
    target = output / pair.case
    ct = CT[output_format]
    origin = predictor.origin(pair.files)
    key = {
        **origin,  # by content: files may have moved
        "inputs": [item["sha256"] for item in origin["inputs"]],
        "weights": origin["weights"] and origin["weights"]["sha256"],
        "format": output_format,
        "segment": segment,
        "view": view,
    }

    def make() -> None:
        if target.exists() and not {path.name for path in target.iterdir()} <= OURS:
            raise InputError(f"{target} holds files that are no result; give another output folder")
        result = predictor(pair.files)
        with atomic_path(target) as temporary:
            temporary.mkdir()
            labels = _segment(result) if segment else None
            write_reconstruction(result, temporary / ct, output_format)
            if labels is not None and labels.any():
                _write_labels(labels, result, temporary, output_format)
            if view:
                from .view import reconstruction_page

                write_text(view_path(temporary / ct, output_format), reconstruction_page(result, labels))
            files = sorted(path for path in temporary.rglob("*") if path.is_file())
            digests = {path.relative_to(temporary).as_posix(): file_sha256(path) for path in files}
            write_json(temporary / SOURCE, {**key, FILES: digests})
            if target.exists():  # a result of other weights, files or code
                shutil.rmtree(target)

    if origin["weights"] is None:  # a network from no file: nobody can tell whether it is the same
        make()
        return Outcome(json.loads((target / SOURCE).read_text()))
    return make_or_reuse(target / SOURCE, key, make)


def _segment(result: Reconstruction) -> np.ndarray:
    """The label map; its measures join the report."""
    from ..segmentation.measures import measure_pneumothorax
    from ..segmentation.plausibility import volume_warnings
    from ..segmentation.ptxseg import PTXSeg

    spacing = np.linalg.norm(result.affine[:3, :3], axis=0)
    labels = PTXSeg()(result.hu, spacing)
    result.report[SEGMENTATION_KEY] = measure_pneumothorax(labels, result.hu, spacing)
    if labels.any():
        measured = result.report[SEGMENTATION_KEY]
        result.report["warnings"] += volume_warnings(measured)
        result.report["warnings"] += reconstruction_warnings(measured, result.report["estimates"])
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


def _columns(output: Path, case: str, output_format: Format, view: bool) -> dict[str, Any]:
    ct = output / case / CT[output_format]
    report = json.loads(report_path(ct, output_format).read_text())
    consistency = report["consistency"]
    row: dict[str, Any] = {"consistency": _rounded(consistency["score"])}
    for side in ("pa", "lateral"):
        row |= {f"{side}_{name}": _rounded(value) for name, value in consistency[side].items()}
    row["warnings"] = " | ".join(report["warnings"])
    for side in ("right", "left", "total"):
        measured = report.get(SEGMENTATION_KEY, {}).get(side, {})
        row |= {f"{side}_{name}": measured[name] for name in MEASURES if name in measured}
    if view:
        row["page"] = view_path(ct, output_format).relative_to(output).as_posix()
    return row


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda row: row["case"])
    names = [*dict.fromkeys(name for row in rows for name in row if name != "error"), "error"]
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)

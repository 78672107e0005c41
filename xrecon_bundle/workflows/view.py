"""What is shown of a result, and of any CT: pages of :mod:`xrecon_bundle.report.viewer`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import InputError, check_writable
from ..frame import radiograph_to_unit
from ..io.on_grid import read_on_grid
from ..io.readers import read_ct
from ..report.viewer import Overlay, Table, viewer_page, write_viewer
from ..segmentation.labels import SIDES
from .pages import page_path, report_beside

if TYPE_CHECKING:
    from .predictor import Reconstruction

LABELS = "label map"


def view_file(
    ct_path: str | os.PathLike,
    labels_path: str | os.PathLike | None = None,
    output: str | os.PathLike | None = None,
    deviation_path: str | os.PathLike | None = None,
    series: str | None = None,
) -> Path:
    """Write the page of a CT.

    Args:
        ct_path: anything that :func:`xrecon_bundle.io.readers.read_ct` reads.
        labels_path: label map on the CT's grid, NIfTI, values 0 to 255; 1 to 4 are shown as those of PTX-Seg.
        output: the page, ``.html``; by default beside the CT under its name.
        deviation_path: standard deviation in HU on the CT's grid, NIfTI, 0 and more.
        series: SeriesInstanceUID, where a DICOM folder has several.

    Returns:
        the page's path.

    Raises:
        InputError: a file cannot be read, lies on another grid, is no label map or no deviation; the page cannot be
            written.
    """
    ct_path = Path(ct_path)
    if output is None:
        output = page_path(ct_path)
        # Of a series the page lies in its folder, and the one beside it is ours to replace.
        if not ct_path.is_dir() and output.exists() and report_beside(ct_path) is not None:
            raise InputError(f"{output} is the page of this reconstruction; give another name as --output")
    output = Path(output)
    if output.suffix != ".html":
        raise InputError(f"{output}: the page is HTML; give a name that ends in .html")
    given = [Path(path) for path in (labels_path, deviation_path) if path is not None]
    check_writable(output, sources=[ct_path, *given])
    ct = read_ct(ct_path, series)
    overlays = []
    if labels_path is not None:
        labels = read_on_grid(labels_path, ct, ct_path)
        if not np.array_equal(labels, labels.astype(np.uint8)):
            raise InputError(f"{labels_path}: not a label map of whole numbers from 0 to 255; give one of those")
        overlays.append(Overlay(LABELS, labels.astype(np.uint8)))
    deviation = None
    if deviation_path is not None:
        deviation = read_on_grid(deviation_path, ct, ct_path)
        if np.nanmin(deviation, initial=0) < 0:
            raise InputError(f"{deviation_path}: no standard deviation in HU, as it is negative; give one that is not")
    warnings = ct.source.get("warnings", [])
    write_viewer(
        output, ct_path.name, {"CT": ct.hu}, ct.affine, overlays=overlays, deviation=deviation, warnings=warnings
    )
    return output


def reconstruction_page(result: Reconstruction, labels: np.ndarray | None = None) -> str:
    """The page of a reconstruction: its radiographs beside what it projects to, and what its report says.

    Args:
        result: of a :class:`.Predictor`.
        labels: label map ``(S, S, S)`` of PTX-Seg.
    """
    import torch  # which a CT's page does without

    from ..projection.radiographs import simulate_radiographs

    report = result.report
    again = radiograph_to_unit(simulate_radiographs(torch.from_numpy(result.hu), len(result.hu)))
    pictures = [
        (f"{view}, {what}", picture)
        for view, given, projected in zip(("PA", "lateral"), result.radiographs, again, strict=True)
        for what, picture in (("given", given), ("projected from the CT", projected))
    ]
    consistency = report["consistency"]
    rows = [
        [name.replace("_", " "), *(f"{consistency[view][name]:.2f}" for view in ("pa", "lateral"))]
        for name in consistency["pa"]
    ]
    tables = [
        Table(f"Consistency {consistency['score']:.2f}: the CT against its radiographs", ["", "PA", "lateral"], rows)
    ]
    if "pneumothorax" in report:
        measured = pneumothorax_table(report["pneumothorax"])
        tables.insert(0, replace(measured, caption="As PTX-Seg measures them in the computed CT"))
    if report["estimates"] is not None:  # first: they know what the radiographs leave open
        tables.insert(0, estimates_table(report["estimates"]))
    overlays = [] if result.labels is None else [Overlay("labels of the network", result.labels)]
    if labels is not None:
        overlays = [Overlay(LABELS, labels)]
    names = " and ".join(path.name for path in result.files)
    return viewer_page(
        f"CT computed from {names}",
        {"CT": result.hu},
        result.affine,
        overlays=overlays,
        deviation=result.deviation,
        pictures=pictures,
        tables=tables,
        warnings=report["warnings"],
        notice=report["notice"],
    )


def segmentation_page(
    title: str, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray, statistics: dict[str, Any]
) -> str:
    """The page of a segmented CT.

    Args:
        title: what the page is called.
        hu: ``(X, Y, Z)`` in HU, on any axes.
        labels: label map on the same grid.
        affine: ``(4, 4)``, voxel index to RAS+ mm.
        statistics: of :func:`.segment_file`.
    """
    tables = [pneumothorax_table(statistics)]
    if statistics.get("pockets"):
        tables.append(_pocket_table(statistics["pockets"]))
    return viewer_page(
        title, {"CT": hu}, affine, overlays=[Overlay(LABELS, labels)], tables=tables, warnings=statistics["warnings"]
    )


def pneumothorax_table(statistics: dict[str, Any]) -> Table:
    """The measures of both sides, see :func:`xrecon_bundle.segmentation.measures.measure_pneumothorax`."""
    rows = [
        [
            side,
            f"{found['pneumothorax_ml']:.0f} mL",
            f"{100 * found['occupancy']:.1f} %" if np.isfinite(found["occupancy"]) else "-",
            found["size"],
            f"{found['lung_ml']:.0f} mL",
        ]
        for side in SIDES
        for found in [statistics[side]]
    ]
    return Table("Pneumothorax", ["side", "free air", "of the pleural cavity", "size", "lung"], rows)


def estimates_table(estimates: dict[str, Any]) -> Table:
    """The volumes of the network's labels, see :func:`.estimates.estimate_labels`."""
    total = estimates["total"]
    rows = []
    for name, (title, scale, unit) in _ESTIMATES.items():
        interval = "not known"
        if f"{name}_interval" in total:
            low, high = total[f"{name}_interval"]
            interval = f"{scale * low:.0f} to {scale * high:.0f} {unit}"
        values = [f"{scale * estimates[side][name]:.0f} {unit}" for side in (*SIDES, "total")]
        rows.append([title, *values, interval])
    caption = f"As the network sees them. {estimates['notice']}"
    return Table(caption, ["", *SIDES, "both", f"{100 * estimates['coverage']:.0f} % interval"], rows)


_ESTIMATES = {
    "lung_ml": ("lung", 1, "mL"),
    "pneumothorax_ml": ("free air", 1, "mL"),
    "occupancy": ("of the pleural cavity", 100, "%"),
}


def _pocket_table(pockets: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [
            pocket["side"],
            pocket["where"],
            f"{pocket['volume_ml']:.0f} mL",
            "counted" if pocket["counted"] else "not counted",
            pocket["reason"],
        ]
        for pocket in pockets
    ]
    return Table("Pockets of air", ["side", "where", "volume", "as pneumothorax", "because"], rows)

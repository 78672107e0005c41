"""What is shown of a result, and of any CT: pages of :mod:`xrecon_bundle.report.viewer`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import InputError, check_writable, load_nifti
from ..frame import radiograph_to_unit
from ..io.readers import read_ct
from ..report.viewer import Overlay, Table, viewer_page, write_viewer
from ..segmentation.labels import SIDES
from ..volume import CTVolume
from .pages import page_path

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
        deviation_path: standard deviation in HU on the CT's grid, NIfTI.
        series: SeriesInstanceUID, where a DICOM folder has several.

    Returns:
        the page's path.

    Raises:
        InputError: a file cannot be read, lies on another grid or is no label map; the page cannot be written.
    """
    ct_path = Path(ct_path)
    output = page_path(ct_path) if output is None else Path(output)
    if output.suffix != ".html":
        raise InputError(f"{output}: the page is HTML; give a name that ends in .html")
    given = [Path(path) for path in (labels_path, deviation_path) if path is not None]
    check_writable(output, sources=[ct_path, *given])
    ct = read_ct(ct_path, series)
    overlays = []
    if labels_path is not None:
        labels = _on_grid(Path(labels_path), ct, ct_path)
        if not np.array_equal(labels, labels.astype(np.uint8)):
            raise InputError(f"{labels_path}: not a label map of whole numbers from 0 to 255; give one of those")
        overlays.append(Overlay(LABELS, labels.astype(np.uint8)))
    if deviation_path is not None:
        overlays.append(Overlay("deviation", _on_grid(Path(deviation_path), ct, ct_path), unit="HU"))
    warnings = ct.source.get("warnings", [])
    write_viewer(output, ct_path.name, {"CT": ct.hu}, ct.affine, overlays=overlays, warnings=warnings)
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
        tables.insert(0, pneumothorax_table(report["pneumothorax"]))
    names = " and ".join(path.name for path in result.files)
    return viewer_page(
        f"CT computed from {names}",
        {"CT": result.hu},
        result.affine,
        overlays=[] if labels is None else [Overlay(LABELS, labels)],
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


def _on_grid(path: Path, ct: CTVolume, ct_path: Path) -> np.ndarray:
    """The array of a NIfTI that lies on the CT's grid, on the CT's axes."""
    import nibabel

    try:
        image = nibabel.as_closest_canonical(load_nifti(path))
        data, affine = np.asanyarray(image.dataobj), image.affine
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # nibabel raises whatever a damaged header leads to
        raise InputError(f"{path} cannot be read as NIfTI ({type(error).__name__}); give a .nii.gz") from error
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), nibabel.io_orientation(ct.affine))
    if data.ndim == 3:
        affine = affine @ nibabel.orientations.inv_ornt_aff(turn, data.shape)
        data = nibabel.orientations.apply_orientation(data, turn)
    if data.shape != ct.hu.shape or not np.allclose(affine, ct.affine, atol=0.1):
        raise InputError(f"{path} is not on the grid of {ct_path}; give the one that was made of this CT")
    return data

"""How well are real radiographs placed and reconstructed? A table, and a sheet of pictures to look at.

    python scripts/real_radiographs.py FOLDER [--model PATH] [--output eval/real]

FOLDER holds a folder a patient with ``pa`` and ``lateral``, and, if there is one, ``pa_lungs.png``: the lung fields of
the PA view as somebody else sees them. Nothing is learnt from these radiographs, and no picture of them is committed.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image
from scipy.ndimage import affine_transform
from tqdm import tqdm

from xrecon_bundle import frame
from xrecon_bundle.cli import MODEL, start
from xrecon_bundle.datasets.radiograph_pairs import find_pairs
from xrecon_bundle.files import InputError, atomic_path
from xrecon_bundle.frame import radiograph_to_unit
from xrecon_bundle.io.radiograph_files import VIEWS
from xrecon_bundle.metrics import dice_score
from xrecon_bundle.networks.thickness import REDUCED
from xrecon_bundle.placement.radiographs import fill_unknown
from xrecon_bundle.projection.radiographs import simulate_radiographs
from xrecon_bundle.segmentation import PTXSeg, measure_pneumothorax
from xrecon_bundle.segmentation.body import find_body
from xrecon_bundle.workflows.predictor import Predictor, Reconstruction

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
LUNG_FIELD = 0.3  # of the longest path through the lungs, from front to back: what is drawn as lung field
AIR_HU = -400.0


def judge(folder: str, model: str = MODEL, output: str = str(ROOT / "eval" / "real")) -> None:
    """Write ``table.csv`` and ``sheet_N.png`` into ``output`` and print the table.

    ``Dice`` is that of the lungs which the network labels, where it does, ``Dice PTX-Seg`` of those found in its CT.
    """
    target = Path(output)
    target.mkdir(parents=True, exist_ok=True)
    predictor = Predictor(model)
    pairs, _ = find_pairs(folder)
    rows, shown = [], []
    for pair in tqdm(pairs, desc="reconstruct"):
        try:
            result = predictor(pair.files)
        except InputError as error:
            rows.append({"pair": pair.case, "accepted": False, "warnings": str(error)})
            continue
        labels = PTXSeg()(result.hu, (frame.voxel_size(len(result.hu)),) * 3)
        rows.append({"pair": pair.case, "accepted": True, **_measures(result, labels, pair.files[0].parent)})
        shown.append((pair.case, result, labels))
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(target / "table.csv") as temporary, open(temporary, "w", newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)
    _print(rows, [name for name in names if name != "warnings"])
    for first in range(0, len(shown), 8):
        figure = _sheet(shown[first : first + 8])
        figure.savefig(target / f"sheet_{first // 8 + 1}.png", dpi=70, facecolor="black")
        plt.close(figure)


def lung_field(labels: np.ndarray) -> np.ndarray:
    """``(X, Z)`` bool: the lungs of a volume as a lung field is drawn on a PA view."""
    path = np.isin(labels, (1, 2, 3, 4)).sum(axis=1)
    return path >= max(1.0, LUNG_FIELD * path.max())


def drawn_field(mask: Path, size: tuple[int, int], file_to_image: np.ndarray, pixels: int) -> np.ndarray:
    """``(X, Z)`` bool: a lung field drawn on the PA file of ``size`` (columns, rows), on the cube's middle plane."""
    drawn = np.asarray(Image.open(mask).convert("L"), dtype=np.float32).T > 127
    to_mask = np.diag([drawn.shape[0] / size[0], drawn.shape[1] / size[1], 1.0])
    middle = (pixels - 1) / 2
    to_image = np.array(
        [[1 / REDUCED, 0, middle * (1 - 1 / REDUCED)], [0, 1 / REDUCED, middle * (1 - 1 / REDUCED)], [0, 0, 1]]
    )
    matrix = to_mask @ np.linalg.inv(file_to_image) @ to_image
    field = affine_transform(drawn.astype(np.float32), matrix[:2, :2], matrix[:2, 2], (pixels,) * 2, order=1)
    return field > 0.5


def _measures(result: Reconstruction, labels: np.ndarray, folder: Path) -> dict[str, Any]:
    report = result.report
    placement, consistency = report["placement"], report["consistency"]
    row: dict[str, Any] = {"exchanged": placement["exchanged"]}
    for view in VIEWS:
        record = placement[view]
        row[f"{view} turned"] = f"{record['turned']}{' mirrored' if record['mirrored'] else ''}"
        row[f"{view} sure"] = record["confidence"]
    row["scale"] = placement["pa"]["scale_from"]
    lungs = [np.array(placement[view]["lungs"] or [[0, 0]] * 2)[1] for view in VIEWS]
    row["rows apart"] = round(float(np.abs(lungs[0] - lungs[1]).max() / max(np.ptp(lungs[0]), 1e-6)), 3)
    row["consistency"] = round(consistency["score"], 3)
    row |= {f"{view} r": round(consistency[view]["correlation"], 2) for view in VIEWS}
    mask = folder / "pa_lungs.png"
    if mask.exists():
        with Image.open(next(path for path in result.files if path.stem == "pa")) as image:
            size = image.size
        field = drawn_field(mask, size, np.array(placement["pa"]["file_to_image"]), len(result.hu))
        if result.labels is not None:
            row["Dice"] = round(float(dice_score(lung_field(result.labels), field)), 3)
        row["Dice PTX-Seg"] = round(float(dice_score(lung_field(labels), field)), 3)
    volumes = measure_pneumothorax(labels, result.hu, (frame.voxel_size(len(result.hu)),) * 3)
    row |= {f"{side} mL": round(volumes[side]["lung_ml"]) for side in ("right", "left")}
    row["artefact"] = round(artefact(result.hu, labels), 3)
    row["warnings"] = "; ".join(report["warnings"])
    return row


def artefact(hu: np.ndarray, labels: np.ndarray) -> float:
    """Air within the body that is no lung, as a share of the lungs: stripes, holes in the abdomen, a cut-off chest."""
    body = find_body(hu)
    lungs = labels > 0
    stray = body & (hu < AIR_HU) & ~lungs
    return float(stray.sum() / max(lungs.sum(), 1))


def _print(rows: list[dict[str, Any]], names: list[str]) -> None:
    print("| " + " | ".join(names) + " |")
    print("| " + " | ".join("---" for _ in names) + " |")
    for row in rows:
        print("| " + " | ".join("" if row.get(name) is None else str(row[name]) for name in names) + " |")
    for name in ("consistency", "Dice", "Dice PTX-Seg", "artefact", "rows apart"):
        values = [row[name] for row in rows if row.get(name) is not None]
        if values:
            print(
                f"{name}: {np.min(values):.3f} {np.median(values):.3f} {np.max(values):.3f} (lowest, median, highest)"
            )


def _sheet(shown: list[tuple[str, Reconstruction, np.ndarray]]) -> plt.Figure:
    titles = (
        "PA as placed",
        "lateral",
        "PA projected again",
        "lateral",
        "coronal",
        "sagittal, right",
        "sagittal, left",
    )
    figure, axes = plt.subplots(len(shown), len(titles), figsize=(2.2 * len(titles), 2.2 * len(shown)), squeeze=False)
    for row, (name, result, _) in zip(axes, shown, strict=True):
        import torch

        again = radiograph_to_unit(simulate_radiographs(torch.from_numpy(result.hu.astype(np.float32)))).numpy()
        given = radiograph_to_unit(fill_unknown(result.radiographs)).numpy()
        size = len(result.hu)
        pictures = [*given, *again]
        slices = [result.hu[:, size // 2], result.hu[size // 3], result.hu[size - size // 3]]
        for axis, picture in zip(row[:4], pictures, strict=True):
            axis.imshow(picture.T, cmap="gray", vmin=0, vmax=1, interpolation="bilinear")
        for axis, picture in zip(row[4:], slices, strict=True):
            axis.imshow(picture.T, cmap="gray", vmin=-1024, vmax=300, interpolation="bilinear")
        for axis, view in zip(row[:2], VIEWS, strict=True):
            box = result.report["placement"][view]["lungs"]
            if box is not None:
                (left, right), (top, bottom) = box
                axis.plot(
                    [left, right, right, left, left], [top, top, bottom, bottom, top], color="orange", linewidth=1
                )
        score = result.report["consistency"]["score"]
        row[0].set_title(f"{name}: {score:.2f}", color="white", fontsize=9)
        for axis in row:
            axis.axis("off")
    for axis, title in zip(axes[0][1:], titles[1:], strict=True):
        axis.set_title(title, color="white", fontsize=9)
    figure.tight_layout(pad=0.2)
    return figure


if __name__ == "__main__":
    start(judge)

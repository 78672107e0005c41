"""What an evaluation leaves behind: a row a case, the figures in all, and the drawn report."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from ..files import atomic_path, write_json
from ..frame import radiograph_to_unit, unit_to_hu, voxel_size
from ..metrics import agreement, image_metrics, region_overlap
from ..projection.radiographs import simulate_radiographs
from ..segmentation import Segmenter, measure_pneumothorax
from ..segmentation.labels import REGIONS, SIDES
from .case_pages import RECONSTRUCTED, TRUE, CasePages, comparison_page
from .figures import draw_case
from .html import CasePanel, figure_uri, write_report

# name in metrics.csv -> what a reader sees, format, the paper's figure (arXiv 2407.15356)
IMAGE_ROWS = {
    "psnr": ("PSNR, whole volume (dB)", "{:.2f}", "19.85"),
    "psnr_avg": ("PSNR, mean over slices (dB)", "{:.2f}", ""),
    "ssim_avg": ("SSIM, mean over slices", "{:.3f}", "0.70"),
    "ssim_3d": ("SSIM, 3D", "{:.3f}", ""),
    "mae_hu": ("mean absolute error (HU)", "{:.0f}", ""),
    "mse": ("mean squared error (unit²)", "{:.4f}", ""),
    "cosine_similarity": ("cosine similarity", "{:.3f}", ""),
}
BODY_NOTE = (
    "The paper's figures are of 25 private patients at 224³ and are shown for scale only: PSNR and SSIM depend on the "
    "patients, the grid and the air around the body. That is why the last column counts voxels inside the body alone."
)


@dataclass
class EvaluatedCase:
    """One case measured: its name, all values by name, and its picture as data URI."""

    name: str
    values: dict[str, float]
    picture: str


def evaluate_case(
    name: str,
    radiographs: torch.Tensor,
    prediction: torch.Tensor,
    truth: torch.Tensor,
    segmenter: Segmenter | None = None,
    true_labels: np.ndarray | None = None,
    pages: CasePages | None = None,
) -> EvaluatedCase:
    """Measure and draw one case.

    Args:
        name: of the case.
        radiographs: ``(2, S, S)``, what the network was given, any scale.
        prediction: ``(1, S, S, S)`` in network units.
        truth: ``(1, S, S, S)`` in network units.
        segmenter: PTX-Seg; without it no region is measured.
        true_labels: ground truth ``(S, S, S)``; by default the segmenter's own map of ``truth``.
        pages: where the case's page goes, if it is one of those kept.

    Returns:
        Values: all of :func:`xrecon_bundle.metrics.image_metrics`; ``radiograph_mae`` and ``radiograph_correlation``
        between the input radiographs and those simulated from the reconstruction, both scaled to [0, 1]; with a
        segmenter also the regions' overlap and, for either CT (``true_``, ``predicted_``), ``lung_ml`` and
        ``pneumothorax_ml`` of both sides together and the ``occupancy`` of the worse one.
    """
    prediction, truth = (volume.detach().cpu().as_subclass(torch.Tensor).float() for volume in (prediction, truth))
    radiographs = radiographs.detach().cpu().as_subclass(torch.Tensor).float()
    predicted_hu, true_hu = (unit_to_hu(volume.clip(0, 1))[0].numpy() for volume in (prediction, truth))
    projected = radiograph_to_unit(simulate_radiographs(torch.from_numpy(predicted_hu), radiographs.shape[-1]))
    values = image_metrics(prediction, truth) | _radiograph_consistency(radiographs, projected)
    spacing = (voxel_size(truth.shape[-1]),) * 3
    predicted_labels = None
    if segmenter is not None:
        predicted_labels = segmenter(predicted_hu, spacing)
        true_labels = segmenter(true_hu, spacing) if true_labels is None else true_labels
        values |= region_overlap(predicted_labels, true_labels, spacing)
        for which, labels, hu in (("true", true_labels, true_hu), ("predicted", predicted_labels, predicted_hu)):
            measures = measure_pneumothorax(labels, hu, spacing)
            values |= {f"{which}_{key}": measures["total"][key] for key in ("lung_ml", "pneumothorax_ml")}
            values[f"{which}_occupancy"] = np.nanmax([measures[side]["occupancy"] for side in SIDES])
    figure = draw_case(radiographs.numpy(), predicted_hu, true_hu, predicted_labels, true_labels)
    case = EvaluatedCase(name, values, figure_uri(figure))
    if pages is not None:
        maps = {TRUE: true_labels, RECONSTRUCTED: predicted_labels}
        pages.offer(
            name,
            values["psnr"],
            lambda: comparison_page(name, true_hu, predicted_hu, maps, radiographs, projected, _shown_values(case)),
        )
    return case


def write_evaluation(
    folder: str | Path,
    cases: Sequence[EvaluatedCase],
    title: str,
    introduction: Sequence[str],
    pages: CasePages | None = None,
) -> None:
    """Write ``metrics.csv`` (a row a case), ``metrics.json`` (mean, SD, agreement) and ``report.html``.

    Args:
        folder: of the three files.
        cases: what :func:`evaluate_case` returned.
        title: of the report.
        introduction: paragraphs under the title.
        pages: those of the cases; the report leads to them.
    """
    folder = Path(folder)
    names = list(dict.fromkeys(name for case in cases for name in case.values))
    with atomic_path(folder / "metrics.csv") as temporary, open(temporary, "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["case", *names])
        rows.writerows([case.name, *(case.values.get(name, "") for name in names)] for case in cases)
    summary: dict[str, Any] = {
        "cases": len(cases),
        "mean": {name: _mean(cases, name)[0] for name in names},
        "standard_deviation": {name: _mean(cases, name)[1] for name in names},
        "agreement": _agreement(cases),
    }
    write_json(folder / "metrics.json", summary)
    tables = [_image_table(cases)]
    plots: list[tuple[str, str]] = []
    if "true_pneumothorax_ml" in names:
        tables += [_region_table(cases), _agreement_table(summary["agreement"])]
        plots = _agreement_plots(cases)
    worst_first = sorted(cases, key=lambda case: (case.values["psnr"], case.name))
    links = {} if pages is None else pages.finish([case.name for case in worst_first])
    panels = [CasePanel(case.name, case.picture, _shown_values(case), links.get(case.name, "")) for case in worst_first]
    write_report(folder / "report.html", title, introduction, tables, panels, plots)


def _radiograph_consistency(radiographs: torch.Tensor, projected: torch.Tensor) -> dict[str, float]:
    given = radiograph_to_unit(radiographs)
    pair = torch.stack([torch.as_tensor(projected).flatten(), torch.as_tensor(given).flatten()]).double()
    return {
        "radiograph_mae": (pair[0] - pair[1]).abs().mean().item(),
        "radiograph_correlation": torch.corrcoef(pair)[0, 1].item(),
    }


def _column(cases: Sequence[EvaluatedCase], name: str) -> np.ndarray:
    return np.array([case.values.get(name, np.nan) for case in cases], dtype=float)


def _mean(cases: Sequence[EvaluatedCase], name: str) -> tuple[float, float]:
    values = _column(cases, name)
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else np.nan


def _with_deviation(cases: Sequence[EvaluatedCase], name: str, form: str) -> str:
    mean, deviation = _mean(cases, name)
    if not np.isfinite(mean):
        return "-"
    return form.format(mean) + (f" ± {form.format(deviation)}" if np.isfinite(deviation) else "")


def _image_table(cases: Sequence[EvaluatedCase]) -> dict:
    rows = [
        [label, _with_deviation(cases, name, form), paper or "-", _with_deviation(cases, f"{name}_body", form)]
        for name, (label, form, paper) in IMAGE_ROWS.items()
    ]
    consistency = _with_deviation(cases, "radiograph_correlation", "{:.3f}")
    rows.append(["correlation of re-projected with given radiographs", consistency, "-", "-"])
    return {
        "caption": f"Image quality, {len(cases)} case{'s' if len(cases) != 1 else ''}",
        "header": ["", "mean ± SD", "paper", "inside the body"],
        "rows": rows,
        "note": BODY_NOTE,
    }


def _region_table(cases: Sequence[EvaluatedCase]) -> dict:
    rows = []
    for region in REGIONS:
        known = int(np.isfinite(_column(cases, f"dice_{region}")).sum())
        cells = [
            _with_deviation(cases, f"{measure}_{region}", form)
            for measure, form in (("dice", "{:.3f}"), ("hd95", "{:.1f}"), ("asd", "{:.1f}"))
        ]
        rows.append([region.replace("_", " "), str(known), *cells])
    return {
        "caption": "Regions: PTX-Seg of the reconstructed against the true CT",
        "header": ["", "cases", "Dice", "HD95 (mm)", "mean surface distance (mm)"],
        "rows": rows,
        "note": "A region absent from both CTs is not counted; one found in only one of them counts as Dice 0. "
        "Paper: Dice above 0.90 for both lungs and the air-accumulated region.",
    }


def _agreement(cases: Sequence[EvaluatedCase]) -> dict[str, dict]:
    if not any("true_occupancy" in case.values for case in cases):
        return {}
    return {
        measure: agreement(_column(cases, f"true_{measure}"), _column(cases, f"predicted_{measure}"))
        for measure in ("pneumothorax_ml", "occupancy")
    }


def _agreement_table(values: dict[str, dict]) -> dict:
    rows = []
    names = {
        "pneumothorax_ml": ("pneumothorax volume (mL)", 1.0, "0.82"),
        "occupancy": ("pleural occupancy (points of 100)", 100.0, "0.77"),
    }
    for measure, (label, scale, paper) in names.items():
        result = values[measure]
        rows.append(
            [
                label,
                _interval(result["pearson"], "{:.2f}"),
                paper,
                _interval(result["icc_2_1"], "{:.2f}"),
                _interval(result["bias"], "{:.1f}", scale),
                f"{_number(result['lower']['value'] * scale)} to {_number(result['upper']['value'] * scale)}",
            ]
        )
    return {
        "caption": "Pneumothorax: agreement of the reconstructed with the true CT",
        "header": ["", "Pearson r (95 % CI)", "paper", "ICC(2,1)", "bias (95 % CI)", "limits of agreement"],
        "rows": rows,
        "note": "Reconstructed minus true. Definitions: docs/metrics.md.",
    }


def _number(value: float, form: str = "{:.1f}") -> str:
    return form.format(value) if np.isfinite(value) else "-"


def _interval(estimate: dict[str, float], form: str, scale: float = 1.0) -> str:
    value, low, high = (_number(estimate[key] * scale, form) for key in ("value", "low", "high"))
    return value if low == "-" else f"{value} ({low} to {high})"


def _agreement_plots(cases: Sequence[EvaluatedCase]) -> list[tuple[str, str]]:
    true, predicted = 100 * _column(cases, "true_occupancy"), 100 * _column(cases, "predicted_occupancy")
    scatter = Figure(figsize=(4.6, 4.0), layout="constrained")
    axis = scatter.subplots()
    top = max(5.0, float(np.nanmax([true, predicted])) * 1.08)
    axis.plot([0, top], [0, top], color="#9aa7b5", linewidth=1)
    axis.scatter(true, predicted, color="#1f6feb", s=28, alpha=0.8)
    axis.set(
        xlabel="occupancy in the true CT (%)", ylabel="in the reconstructed CT (%)", xlim=(-1, top), ylim=(-1, top)
    )
    bland = Figure(figsize=(4.6, 4.0), layout="constrained")
    axis = bland.subplots()
    axis.scatter((true + predicted) / 2, predicted - true, color="#1f6feb", s=28, alpha=0.8)
    limits = agreement(true, predicted)
    for key, style in (("bias", "-"), ("lower", "--"), ("upper", "--")):
        value = limits[key]["value"]
        if np.isfinite(value):
            axis.axhline(value, color="#d1495b", linestyle=style, linewidth=1)
    axis.set(xlabel="mean of both (%)", ylabel="reconstructed minus true (points)")
    return [
        ("Pleural occupancy, a point a case; the line is equality", figure_uri(scatter, dpi=110)),
        ("Bland-Altman plot of pleural occupancy: bias and 95 % limits of agreement", figure_uri(bland, dpi=110)),
    ]


def _shown_values(case: EvaluatedCase) -> dict[str, str]:
    values = case.values
    shown = {label: form.format(values[name]) for name, (label, form, _) in IMAGE_ROWS.items()}
    if "true_occupancy" in values:
        shown["pneumothorax, true (mL)"] = f"{values['true_pneumothorax_ml']:.0f}"
        shown["reconstructed (mL)"] = f"{values['predicted_pneumothorax_ml']:.0f}"
        shown["occupancy, true"] = f"{100 * values['true_occupancy']:.1f} %"
        shown["occupancy, reconstructed"] = f"{100 * values['predicted_occupancy']:.1f} %"
    return shown

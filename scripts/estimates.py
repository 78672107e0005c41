"""Volumes of lung and free air by the fine network's labels: how right, and in which interval; and its deviation.

python scripts/weights.py store --people FOLDER --folder STORE --spatial_size 112 --cases 600
python scripts/weights.py store --people OTHERS --folder JUDGED --spatial_size 112 --cases 60 --judged True
python scripts/estimates.py --store STORE --judged JUDGED   # prints docs/results/estimates.md

python scripts/weights.py store --people FOLDER --folder FINE
python scripts/weights.py store --people OTHERS --folder JUDGED_FINE --cases 4 --judged True
python scripts/estimates.py deviation --store FINE --judged JUDGED_FINE   # its last part
"""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import torch
from thickness_weights import HELD_OUT, STORE
from tqdm import tqdm

from xrecon_bundle import frame
from xrecon_bundle.cli import MODEL, start
from xrecon_bundle.datasets.blocks import draw_film, film_and_placement, line_integrals
from xrecon_bundle.datasets.training_store import SIZE, list_store
from xrecon_bundle.files import InputError
from xrecon_bundle.metrics import bland_altman, body_mask, dice_score, pearson
from xrecon_bundle.networks.fine import FineGenerator
from xrecon_bundle.networks.weights import load_generator, save_weights
from xrecon_bundle.projection.film import extend_scan
from xrecon_bundle.workflows.estimates import COVERAGE, estimate_labels
from xrecon_bundle.workflows.predictor import deviation_hu

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
MEASURES = ("lung_ml", "pneumothorax_ml", "occupancy")
FINE_STORE = str(Path.home() / ".cache" / "xrecon" / "store")
WITHIN_TWO = 0.95  # of the voxels: as a normal distribution has them, though errors have longer tails
FOUND = 0.03  # occupancy from which on a pneumothorax is said to be found
SPECIFIC = 0.95  # of the healthy chests stay below the threshold
SIZES = (0.03, 0.1, 0.2, 0.4, 1.0)  # classes of the true occupancy


def scores(
    weights: str = MODEL,
    store: str = STORE,
    judged: str = "",
    intervals: bool = False,
    picture: str = "docs/images/estimates.png",
) -> None:
    """Say how well the estimates hold, of people held out and of others yet.

    Args:
        weights: of a fine network.
        store: its cases of the people held out set the intervals.
        judged: a store of other people yet, to judge by; the picture shows them.
        intervals: write the intervals into the weights: the 90th percentile of the errors with films of the people
            held out.
        picture: scatter of occupancy, and Bland-Altman plot of the free air.
    """
    network = fine_network(weights)
    own = estimates(network, list_store(store, people=HELD_OUT))
    if intervals:
        errors = np.abs(own["films"][0] - own["films"][1])[:, : len(MEASURES)]
        n = len(errors)
        rank = min(n - 1, math.ceil(COVERAGE * (n + 1)) - 1)
        network.interval.copy_(torch.from_numpy(np.sort(errors, axis=0)[rank]))
        save_weights(network.state_dict(), weights, half=True)
        print(f"intervals: +-{network.interval.tolist()} (lung mL, free air mL, occupancy) from {n} cases")
    groups = {"held out": own} | ({"judged": estimates(network, list_store(judged))} if judged else {})
    for group, seen in groups.items():
        for look, (found, truth) in seen.items():
            print_row(f"{group}, {look}", found, truth, network.interval.numpy())
    threshold = float(np.quantile(own["films"][0][own["films"][1][:, 2] == 0, 2], SPECIFIC))
    print(
        f"\nof {SPECIFIC:.0%} of the healthy chests held out (films) less than {threshold:.1%} is estimated; more of\n"
    )
    print(f"| cases | healthy | {' | '.join(f'{low:.0%} to {high:.0%}' for low, high in pairwise(SIZES))} |")
    print(f"|{' --- |' * (1 + len(SIZES))}")
    for group, seen in groups.items():
        for look, (found, truth) in seen.items():
            print(f"| {group}, {look} | {' | '.join(shares_above(threshold, found[:, 2], truth[:, 2]))} |")
    draw(*groups[list(groups)[-1]]["films"], ROOT / picture)


def deviation(
    weights: str = MODEL, store: str = FINE_STORE, judged: str = "", cases: int = 6, calibrate: bool = False
) -> None:
    """Say how well the deviation tells the error of a voxel, of people held out and of others yet.

    Args:
        weights: of a fine network.
        store: its cases at 1.6 mm of the people held out calibrate.
        judged: a store of other people yet, to judge by.
        cases: of either, at most.
        calibrate: write the factor into the weights by which :data:`WITHIN_TWO` of the voxels of the body are within
            two deviations, with films of the people held out.
    """
    network = fine_network(weights)
    groups = {"held out": voxel_errors(network, list_store(store, people=HELD_OUT, limit=cases))}
    if judged:
        groups["judged"] = voxel_errors(network, list_store(judged, limit=cases))
    if calibrate:
        error, told = np.concatenate(groups["held out"]["films"], axis=1)
        network.deviation_factor.fill_(float(np.quantile(error / told, WITHIN_TWO)) / 2)
        save_weights(network.state_dict(), weights, half=True)
    factor = float(network.deviation_factor)
    print(f"factor: {factor:.2f}\n")
    print("| cases | n | within one deviation | within two | root mean square of error / deviation |")
    print("| --- | ---: | --- | --- | ---: |")
    for group, looks in groups.items():
        for look, seen in looks.items():
            shares = [[np.mean(error <= times * factor * told) for error, told in seen] for times in (1, 2)]
            square = np.mean([np.square(error / (factor * told)).mean() for error, told in seen])
            print(f"| {group}, {look} | {len(seen)} | {' | '.join(map(share_of, shares))} | {math.sqrt(square):.2f} |")
    error, told = np.concatenate(groups[list(groups)[-1]]["films"], axis=1)
    print("\n| tenth of the voxels, by deviation | mean deviation (HU) | error, root mean square (HU) |")
    print("| --- | ---: | ---: |")
    for tenth, part in enumerate(np.array_split(np.argsort(told), 10), start=1):
        print(f"| {tenth} | {factor * told[part].mean():.0f} | {math.sqrt(np.square(error[part]).mean()):.0f} |")


def voxel_errors(network: FineGenerator, cases: list[Path]) -> dict[str, list[np.ndarray]]:
    """Absolute error and deviation in HU, not calibrated, ``(2, n)`` of every case, by look.

    Of every third voxel along each axis that lies in the body; HU are clipped as the network's scale is.
    """
    film, place = film_and_placement(SIZE)
    part = (slice(None, None, 3),) * 3
    result: dict[str, list[np.ndarray]] = {"films": [], "line integrals": []}
    for number, case in enumerate(tqdm(cases)):
        if not (case / "ct.npy").exists():
            raise InputError(f"{case}: no case of 1.6 mm; make the store with scripts/weights.py store")
        ct = np.load(case / "ct.npy").astype(np.float32)
        film.set_random_state(number)
        place.set_random_state(number)
        for look, image in {"films": draw_film(case, film, place), "line integrals": line_integrals(case)}.items():
            truth = frame.hu_to_unit(torch.from_numpy(extend_scan(ct, 0.0) if look == "films" else ct))
            body = body_mask(truth)[part]
            with torch.inference_mode():
                rendering = network.render(image[None].float())
                error = (rendering.volume[0, 0].clamp(0, 1) - truth).abs() * frame.HU_SPAN
                told = deviation_hu(rendering, network)[0, 0] / network.deviation_factor
            told = told.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
            result[look].append(torch.stack([error[part][body], told[part][body]]).numpy())
    return result


def shares_above(threshold: float, found: np.ndarray, truth: np.ndarray) -> list[str]:
    """How many of the healthy and of each class of :data:`SIZES` have an estimated occupancy above a threshold."""
    classes = [truth == 0, *((truth >= low) & (truth < high) for low, high in pairwise(SIZES))]
    return [f"{np.count_nonzero(found[one] > threshold)} of {np.count_nonzero(one)}" for one in classes]


def share_of(shares: list[float]) -> str:
    """Mean of the cases, lowest and highest."""
    return f"{100 * np.mean(shares):.0f} % ({100 * min(shares):.0f} to {100 * max(shares):.0f})"


def fine_network(weights: str) -> FineGenerator:
    """The network of a weights file.

    Raises:
        InputError: it has no labels.
    """
    network = load_generator(weights)
    if not isinstance(network, FineGenerator):
        raise InputError(f"{weights}: these weights have no labels; give those of a fine network")
    return network


def print_row(name: str, found: np.ndarray, truth: np.ndarray, interval: np.ndarray) -> None:
    """A row of the table; ``found`` and ``truth`` as :func:`estimates` gives them."""
    inside = (np.abs(found - truth)[:, : len(MEASURES)] <= interval).mean(axis=0)
    ill, large = truth[:, 2] > 0, truth[:, 2] >= 0.1
    correlations = " | ".join(r_of(found[:, part], truth[:, part]) for part in range(3))
    print(
        f"| {name} | {len(found)} | {correlations} | {100 * found[~ill, 2].max(initial=0):.1f} % "
        f"| {np.count_nonzero(found[~ill, 2] > FOUND)} of {np.count_nonzero(~ill)} "
        f"| {np.count_nonzero(found[ill & ~large, 2] > FOUND)} of {np.count_nonzero(ill & ~large)} "
        f"| {np.count_nonzero(found[large, 2] > FOUND)} of {np.count_nonzero(large)} "
        f"| {np.median(found[:, 3]):.2f} | {', '.join(f'{100 * share:.0f} %' for share in inside)} |"
    )


def estimates(network: FineGenerator, cases: list[Path]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """:data:`MEASURES` and the Dice of the pleural cavities, ``(n, 4)`` found and true, by look."""
    film, place = film_and_placement(SIZE)
    result: dict[str, tuple[list, list]] = {"films": ([], []), "line integrals": ([], [])}
    for number, case in enumerate(tqdm(cases)):
        labels = np.load(case / "coarse_labels.npy")
        truth = np.where(labels <= 4, labels, 0)
        film.set_random_state(number)
        place.set_random_state(number)
        for look, image in {"films": draw_film(case, film, place), "line integrals": line_integrals(case)}.items():
            with torch.inference_mode():
                found = network.render_coarse(image[None].float()).coarse_labels[0].argmax(0).numpy()
            dice = dice_score(found > 0, truth > 0)
            for kept, labels in zip(result[look], (found, truth), strict=True):
                total = estimate_labels(labels, [np.nan] * 3)["total"]
                kept.append([*(total[measure] for measure in MEASURES), dice])
    return {look: (np.array(found), np.array(truth)) for look, (found, truth) in result.items()}


def draw(found: np.ndarray, truth: np.ndarray, path: Path) -> None:
    """Write scatter and Bland-Altman plot."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2))
    left.plot([0, 1], [0, 1], color="grey", linewidth=1)
    left.scatter(truth[:, 2], found[:, 2], s=14)
    left.set(xlabel="true occupancy", ylabel="estimated", title=f"{len(found)} simulated film pairs")
    mean, difference = (found[:, 1] + truth[:, 1]) / 2, found[:, 1] - truth[:, 1]
    right.scatter(mean, difference, s=14)
    agreement = bland_altman(truth[:, 1], found[:, 1])
    for at in (agreement.bias.value, agreement.lower.value, agreement.upper.value):
        right.axhline(at, color="grey", linewidth=1)
        right.annotate(f"{at:.0f}", (mean.max(), at), fontsize=8, va="bottom", ha="right")
    right.set(xlabel="mean of both, mL", ylabel="estimated - true free air, mL", title="Bland-Altman")
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def r_of(found: np.ndarray, truth: np.ndarray) -> str:
    """Pearson's r with its 95 % interval."""
    result = pearson(found, truth)
    return f"{result.value:.2f} ({result.low:.2f} to {result.high:.2f})"


if __name__ == "__main__":
    commands = {"scores": scores, "deviation": deviation}
    start(commands if sys.argv[1:2] and sys.argv[1] in commands else scores)

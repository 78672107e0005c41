"""The weights of xrecon_bundle/networks/thickness.pt: volumes of lung and free air from simulated films.

python scripts/weights.py store --people FOLDER --folder STORE --spatial_size 112 --cases 600
python scripts/thickness_weights.py train --store STORE
python scripts/weights.py store --people OTHERS --folder JUDGED --spatial_size 112 --cases 60 --judged True
python scripts/thickness_weights.py scores --store STORE --judged JUDGED   # intervals, docs/results/estimates.md
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import fire
import matplotlib
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from xrecon_bundle.datasets.blocks import draw_film, film_and_placement
from xrecon_bundle.datasets.training_store import list_store
from xrecon_bundle.files import atomic_path
from xrecon_bundle.frame import radiograph_to_unit
from xrecon_bundle.metrics import bland_altman, pearson
from xrecon_bundle.networks.thickness import (
    PIXELS,
    WEIGHTS,
    ThicknessNet,
    thickness_maps,
    thickness_net,
    volumes_of,
)
from xrecon_bundle.workflows.estimates import COVERAGE

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
HELD_OUT = ("LIDC-IDRI-0003",)
STORE = str(Path.home() / ".cache" / "xrecon" / "coarse")
STATE = Path.home() / ".cache" / "xrecon" / "thickness"
FILM_SHARE = 0.5
AIR_WEIGHT = 5.0


class Films(torch.utils.data.IterableDataset):
    """Endless: a random case, seen in a random way, and its maps."""

    def __init__(self, cases: list[Path], seed: int) -> None:
        self.cases, self.seed = cases, seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """Pairs of the input ``(2, P, P)`` and the maps of either view."""
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        film, place = film_and_placement(PIXELS)
        film.set_random_state(int(rng.integers(2**31)))
        place.set_random_state(int(rng.integers(2**31)))
        while True:
            case = self.cases[rng.integers(len(self.cases))]
            image = draw_film(case, film, place) if rng.random() < FILM_SHARE else plain(case)
            yield image.float(), *thickness_maps(torch.from_numpy(np.load(case / "coarse_labels.npy")))


def plain(case: Path) -> torch.Tensor:
    """The line integrals of a case, ``(2, P, P)`` in the network's scale."""
    radiographs = torch.from_numpy(np.load(case / "radiographs.npy"))
    small = nn.functional.interpolate(radiographs[None], size=(PIXELS, PIXELS), mode="area")[0]
    return radiograph_to_unit(small)


def loss_of(found: list[torch.Tensor], truth: list[torch.Tensor]) -> torch.Tensor:
    """Mean squared error of the maps, the air's times :data:`AIR_WEIGHT`.

    Not the absolute error: most pixels are without air, so its best answer is never any.
    """
    loss = torch.zeros(())
    for maps, wanted in zip(found, truth, strict=True):
        half = maps.shape[1] // 2
        weight = torch.tensor([1.0] * half + [AIR_WEIGHT] * half)
        loss = loss + (weight * (maps.float() - wanted).square().mean((0, 2, 3))).sum()
    return loss


def train(store: str = STORE, minutes: float = 45, batch: int = 3, learning_rate: float = 5e-4) -> None:
    """Train for so many minutes; a run that was stopped goes on.

    Args:
        store: cases of any size, see :mod:`xrecon_bundle.datasets.training_store`.
        minutes: of all runs together.
        batch: pairs of a step.
        learning_rate: at first; a half cosine to 0.
    """
    torch.manual_seed(0)
    network, average = ThicknessNet(), ThicknessNet()
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
    step, spent = 0, 0.0
    newest = STATE / "state.pt"
    if newest.exists():
        state = torch.load(newest, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    films = Films(list_store(store, without=HELD_OUT), seed=step)
    loader = iter(torch.utils.data.DataLoader(films, batch_size=batch))
    begun, losses = time.monotonic() - 60 * spent, []
    while (share := (time.monotonic() - begun) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * share))
        image, *truth = next(loader)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = network(image)
        loss = loss_of(found, truth)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        losses.append(loss.item())
        keep = min(0.998, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(weight, 1 - keep)
        if step % 200 == 0:
            print(f"{step} steps, {minutes * share:.1f} min, loss {np.mean(losses):.4f}", flush=True)
            losses = []
            content = {"network": network.state_dict(), "average": average.state_dict(), "step": step}
            content |= {"optimizer": optimizer.state_dict(), "spent": minutes * share}
            STATE.mkdir(parents=True, exist_ok=True)
            with atomic_path(newest) as temporary:
                torch.save(content, temporary)
    save(average, WEIGHTS)


def save(network: ThicknessNet, path: Path) -> None:
    """Write the weights in half precision, what is measured in full."""
    state = {name: value if name == "interval" else value.half() for name, value in network.state_dict().items()}
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def scores(store: str = STORE, judged: str = "", picture: str = "docs/images/estimates.png") -> None:
    """Set the intervals on people held out, and say how well they and the estimates hold.

    Args:
        store: its cases of the people held out set the intervals: the 90th percentile of the errors with films.
        judged: a store of other people yet, to judge by; the picture shows them.
        picture: scatter of occupancy, and Bland-Altman plot of the free air.
    """
    network = thickness_net()
    own = estimates(network, list_store(store, people=HELD_OUT))
    errors = np.abs(own["films"][0] - own["films"][1])
    n = len(errors)
    rank = min(n - 1, math.ceil(COVERAGE * (n + 1)) - 1)
    network.interval.copy_(torch.from_numpy(np.sort(errors, axis=0)[rank]))
    save(network, WEIGHTS)
    print(f"intervals: +-{network.interval.tolist()} (lung mL, free air mL, occupancy) from {n} cases")
    groups = {"held out": own} | ({"judged": estimates(network, list_store(judged))} if judged else {})
    for group, seen in groups.items():
        for look, (found, truth) in seen.items():
            inside = (np.abs(found - truth) <= network.interval.numpy()).mean(axis=0)
            ill = truth[:, 2] > 0
            correlations = " | ".join(r_of(found[:, part], truth[:, part]) for part in range(3))
            print(
                f"| {group}, {look} | {len(found)} | {correlations} | {100 * found[~ill, 2].max(initial=0):.1f} % "
                f"| {100 * np.mean(found[~ill, 2] > 0.03):.0f} % | {100 * np.mean(found[ill, 2] > 0.03):.0f} % "
                f"| {', '.join(f'{100 * share:.0f} %' for share in inside)} |"
            )
    found, truth = groups[list(groups)[-1]]["films"]
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
    figure.savefig(ROOT / picture, dpi=90)


def estimates(network: ThicknessNet, cases: list[Path]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Lung mL, free air mL and occupancy, ``(n, 3)`` found and true, with films and with line integrals."""
    film, place = film_and_placement(PIXELS)
    result: dict[str, tuple[list, list]] = {"films": ([], []), "line integrals": ([], [])}
    for number, case in enumerate(tqdm(cases)):
        truth = volumes_of(thickness_maps(torch.from_numpy(np.load(case / "coarse_labels.npy")))[0][None])
        film.set_random_state(number)
        place.set_random_state(number)
        for look, image in {"films": draw_film(case, film, place), "line integrals": plain(case)}.items():
            with torch.inference_mode():
                seen = volumes_of(network(image[None].float())[0])
            for kept, volumes in zip(result[look], (seen, truth), strict=True):
                lung, air = float(volumes.right_lung + volumes.left_lung), float(volumes.right_air + volumes.left_air)
                kept.append((lung, air, air / max(lung + air, 1e-6)))
    return {look: (np.array(found), np.array(truth)) for look, (found, truth) in result.items()}


def r_of(found: np.ndarray, truth: np.ndarray) -> str:
    """Pearson's r with its 95 % interval."""
    result = pearson(found, truth)
    return f"{result.value:.2f} ({result.low:.2f} to {result.high:.2f})"


if __name__ == "__main__":
    fire.Fire({"train": train, "scores": scores})

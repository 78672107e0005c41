"""The weights models/thickness.pt: maps of how thick lung and free air are, from simulated films.

python scripts/weights.py store --people FOLDER --folder STORE --spatial_size 112 --cases 600
python scripts/thickness_weights.py --store STORE
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from xrecon_bundle.cli import start
from xrecon_bundle.datasets.blocks import draw_film, film_and_placement, line_integrals
from xrecon_bundle.datasets.training_store import list_store
from xrecon_bundle.files import atomic_path
from xrecon_bundle.networks.thickness import (
    PIXELS,
    ThicknessNet,
    reduced,
    thickness_maps,
)
from xrecon_bundle.networks.weights import save_weights

WEIGHTS = Path(__file__).parents[1] / "models" / "thickness.pt"
HELD_OUT = ("LIDC-IDRI-0003",)
STORE = str(Path.home() / ".cache" / "xrecon" / "coarse")
STATE = Path.home() / ".cache" / "xrecon" / "thickness"
FILM_SHARE = 0.5
AIR_WEIGHT = 5.0  # of the free air's maps


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
    """The line integrals of a case, ``(2, P, P)``."""
    return reduced(line_integrals(case)[None])[0]


def thickness_loss(found: list[torch.Tensor], truth: list[torch.Tensor]) -> torch.Tensor:
    """Mean squared error of :class:`ThicknessNet`'s maps, air counting more.

    Not the absolute error: most pixels are without air, so its best answer is never any.
    """
    loss = torch.zeros((), device=found[0].device)
    for maps, wanted in zip(found, truth, strict=True):
        half = maps.shape[1] // 2
        weight = torch.tensor([1.0] * half + [AIR_WEIGHT] * half, device=maps.device)
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
        loss = thickness_loss(found, truth)
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
    save_weights(average.state_dict(), WEIGHTS, half=True)


if __name__ == "__main__":
    start(train)

"""The weights models/thickness.pt and models/bones.pt: maps of how thick lung, free air and bone are, from films.

python scripts/weights.py store --people FOLDER --folder STORE --spatial_size 112 --cases 600
python scripts/thickness_weights.py --store STORE
python scripts/thickness_weights.py --store STORE --what bone
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

from xrecon_bundle.cli import start
from xrecon_bundle.datasets.blocks import draw_film, film_and_placement, line_integrals
from xrecon_bundle.datasets.training_store import SIZE, list_store
from xrecon_bundle.engines import has_bfloat16
from xrecon_bundle.files import InputError, atomic_path
from xrecon_bundle.networks.thickness import (
    BONE_UNIT_MM,
    PIXELS,
    UNKNOWN,
    ThicknessNet,
    bone_net,
    reduced,
    thickness_maps,
)
from xrecon_bundle.networks.weights import load_thickness, save_weights

MODELS = Path(__file__).parents[1] / "models"
HELD_OUT = ("LIDC-IDRI-0003",)
STORE = str(Path.home() / ".cache" / "xrecon" / "coarse")
STATE = Path.home() / ".cache" / "xrecon" / "thickness"
AIR_WEIGHT = 5.0  # of the free air's maps
MOST_BONE_MM = 40.0  # contrast agent in the heart counts no more
DARK = 0.02  # line integrals end with the scan, bone does not
BENT = 0.0625  # root mean square of the displacement, of half the picture's width, at most
MIRRORED = 0.3  # of the pairs: their hearts lie on the other side, their pleural lines are new ones
Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Kind:
    """What the maps are of.

    Attributes:
        network: fresh.
        pixels: of its input.
        maps: of a case, ``(C, P/2, P/2)`` for either view.
        weights: of the maps' squared errors.
        film_share: how often films are seen, rather than line integrals.
        placement_error: of them, in multiples of the usual one. Bones are small: their maps lie where the film is.
        varied: every pair is bent, and some are mirrored (:func:`vary`). Bones are not: their maps
            in both views belong together.
        lungs_alone: they lie within the scan; bones go on where a film, or a scan, ends, and there do not count.
    """

    network: Callable[[], ThicknessNet]
    pixels: int
    maps: Callable[[Path], Pair]
    weights: tuple[tuple[float, ...], tuple[float, ...]]
    film_share: float
    placement_error: float
    varied: bool
    lungs_alone: bool

    def counts(self, image: torch.Tensor) -> torch.Tensor:
        """For an input ``(2, P, P)``, ``(2, P/2, P/2)``: where its maps count."""
        everywhere = avg_pool2d(torch.ones_like(image), 2)
        return everywhere if self.lungs_alone else avg_pool2d((image >= DARK).float(), 2)


def maps_of_labels(case: Path) -> Pair:
    """Of lung and free air, in units of 100 mm."""
    pa, lateral = thickness_maps(torch.from_numpy(np.load(case / "coarse_labels.npy")))
    return pa, lateral


def maps_of_bone(case: Path) -> Pair:
    """Of bone in front and behind, and right, middle and left, in units of 10 mm."""
    thickness = torch.from_numpy(np.load(case / "dense.npy").astype(np.float32)).clamp(max=MOST_BONE_MM) / BONE_UNIT_MM
    return thickness[:2], thickness[2:]


KINDS = {
    "lung": Kind(
        ThicknessNet, PIXELS, maps_of_labels, ((1, 1, AIR_WEIGHT, AIR_WEIGHT), (1, AIR_WEIGHT)), 0.5, 1.0, True, True
    ),
    "bone": Kind(bone_net, SIZE, maps_of_bone, ((1, 1), (1, 1, 1)), 0.65, 0.0, False, False),
}
WEIGHTS = {"lung": MODELS / "thickness.pt", "bone": MODELS / "bones.pt"}


class Films(torch.utils.data.IterableDataset):
    """Endless: a random case, seen in a random way, its maps, and where they count."""

    def __init__(self, cases: list[Path], seed: int, kind: Kind) -> None:
        self.cases, self.seed, self.kind = cases, seed, kind

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """The input ``(2, P, P)``, the maps of either view, and for each ``(2, P/2, P/2)`` how much they count."""
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        film, place = film_and_placement(self.kind.pixels, self.kind.placement_error)
        film.set_random_state(int(rng.integers(2**31)))
        place.set_random_state(int(rng.integers(2**31)))
        while True:
            case = self.cases[rng.integers(len(self.cases))]
            seen = rng.random() < self.kind.film_share
            image = (draw_film(case, film, place) if seen else plain(case, self.kind.pixels)).float()
            yield image, *self.kind.maps(case), self.kind.counts(image)


def plain(case: Path, pixels: int = PIXELS) -> torch.Tensor:
    """The line integrals of a case, ``(2, P, P)``."""
    return reduced(line_integrals(case)[None], pixels)[0]


def vary(image: torch.Tensor, maps: Pair, counts: torch.Tensor) -> tuple[torch.Tensor, Pair, torch.Tensor]:
    """Bend each view smoothly, and mirror some of the PAs: more chests than there are people.

    Args:
        image: ``(B, 2, P, P)``, :data:`UNKNOWN` where a film shows nothing.
        maps: ``(B, 4, P/2, P/2)`` and ``(B, 2, P/2, P/2)`` of :data:`~xrecon_bundle.networks.thickness.PARTS`.
        counts: ``(B, 2, P/2, P/2)``.
    """
    pa, lateral = (bend(image[:, [view]], maps[view], counts[:, [view]]) for view in range(2))
    chosen = torch.rand(len(image))[:, None, None, None] < MIRRORED
    other_side = [pa[0].flip(2), pa[1][:, [1, 0, 3, 2]].flip(2), pa[2].flip(2)]
    pa = [torch.where(chosen, new, old) for new, old in zip(other_side, pa, strict=True)]
    return torch.cat([pa[0], lateral[0]], 1), (pa[1], lateral[1]), torch.cat([pa[2], lateral[2]], 1)


def bend(view: torch.Tensor, maps: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """A view ``(B, 1, P, P)``, its maps and what counts, each ``(B, C, P/2, P/2)``, by the same smooth displacement."""
    batch, pixels = len(view), view.shape[-1]
    noise = interpolate(torch.randn(batch, 2, 5, 5), size=(pixels, pixels), mode="bicubic", align_corners=True)
    size = BENT * torch.rand(batch, 1, 1, 1) / noise.square().mean((1, 2, 3), keepdim=True).sqrt()
    along = (torch.arange(pixels) + 0.5) * 2 / pixels - 1
    grid = torch.stack(torch.meshgrid(along, along, indexing="xy")) + size * noise
    full, half = (where.movedim(1, -1) for where in (grid, avg_pool2d(grid, 2)))
    known = (view >= 0).to(view.dtype)
    grey, shown = (
        grid_sample(part, full, padding_mode="border", align_corners=False) for part in (view * known, known)
    )
    return (
        torch.where(shown > 0.99, grey / shown.clamp(min=0.5), UNKNOWN),
        grid_sample(maps, half, align_corners=False),
        grid_sample(counts, half, padding_mode="border", align_corners=False),
    )


def thickness_loss(found: list[torch.Tensor], truth: Pair, counts: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Mean squared error of :class:`ThicknessNet`'s maps, air counting more.

    Not the absolute error: most pixels are without air, so its best answer is never any.
    """
    loss = torch.zeros((), device=found[0].device)
    for view, (maps, wanted) in enumerate(zip(found, truth, strict=True)):
        weight = torch.tensor(kind.weights[view], device=maps.device)
        squared = counts[:, view, None] * (maps.float() - wanted).square()
        loss = loss + (weight * squared.mean((0, 2, 3))).sum()
    return loss


def train(
    store: str = STORE,
    what: str = "lung",
    minutes: float = 45,
    batch: int = 3,
    learning_rate: float = 5e-4,
    initial_weights: str = "",
) -> None:
    """Train for so many minutes; a run that was stopped goes on.

    Args:
        store: cases of any size, see :mod:`xrecon_bundle.datasets.training_store`.
        what: lung (and free air) or bone.
        minutes: of all runs together.
        batch: pairs of a step.
        learning_rate: at first; a half cosine to 0.
        initial_weights: to begin with, as it leaves them; else fresh ones.
    """
    if what not in KINDS:
        raise InputError(f"--what {what}: choose of {', '.join(KINDS)}")
    torch.manual_seed(0)
    kind = KINDS[what]
    network, average = kind.network(), kind.network()
    if initial_weights:
        load_thickness(initial_weights, network)
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
    step, spent = 0, 0.0
    newest = STATE / f"{what}.pt"
    if newest.exists():
        state = torch.load(newest, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    films = Films(list_store(store, without=HELD_OUT), step, kind)
    loader = iter(torch.utils.data.DataLoader(films, batch_size=batch))
    begun, losses = time.monotonic() - 60 * spent, []
    while (share := (time.monotonic() - begun) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * share))
        image, pa, lateral, counts = next(loader)
        if kind.varied:
            image, (pa, lateral), counts = vary(image, (pa, lateral), counts)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_bfloat16("cpu")):
            found = network(image)
        loss = thickness_loss(found, (pa, lateral), counts, kind)
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
    save_weights(average.state_dict(), WEIGHTS[what], half=True)


if __name__ == "__main__":
    start(train)

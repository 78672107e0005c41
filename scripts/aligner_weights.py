"""The network that compares the views of a pair: xrecon_bundle/placement/aligner.pt, from a store's cases, in minutes.

    python scripts/aligner_weights.py           # learn, then judge
    python scripts/aligner_weights.py judge     # on people held out, as docs/results/placement.md has it

Its cases are those of configs/coarse.yaml (docs/training.md).

Films are made once, rightly placed; every step moves them anew, as far as the boxes of two pictures may be wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from placement_weights import HELD_OUT, save
from thickness_weights import STORE
from torch import Tensor, nn
from tqdm import tqdm

from xrecon_bundle import frame
from xrecon_bundle.cli import start
from xrecon_bundle.datasets.blocks import draw_film, film_and_placement, line_integrals
from xrecon_bundle.datasets.training_store import list_store
from xrecon_bundle.engines import has_bfloat16
from xrecon_bundle.io.radiograph_tags import magnification
from xrecon_bundle.networks.data_consistency import BODY
from xrecon_bundle.networks.thickness import reduced
from xrecon_bundle.placement.aligner import DIAPHRAGM_MM, OFFSET_MM, OFFSET_SCALE, PIXELS, UNKNOWN, WEIGHTS, ViewAligner

BATCH, SEED, RATE = 24, 0, 2e-3
# Standard deviations: what moves both views alike, and one against the other; every third pair is wider apart.
SHIFT_MM, SCALE, DEGREES = 8.0, 0.06, 2.0
APART_MM, APART_SCALE, WIDER = 10.0, 0.07, 1.7
PLAIN_EVERY = 8
# The scan's end is no row of the detector: rays are oblique. Beyond that, up to so much more is hidden.
BLURRED_MM, CUT_MM = 12.0, 40.0
UNITS = torch.tensor([OFFSET_MM, OFFSET_SCALE])


def train(store: str = STORE, films: int = 7000, steps: int = 4500) -> None:
    """Learn from films of the store's people, and judge on those held out.

    Args:
        store: see scripts/weights.py.
        films: pairs of films that are made first.
        steps: of a batch each.
    """
    torch.manual_seed(SEED)
    bank, rng = make_films(list_store(store, without=HELD_OUT), films, SEED), np.random.default_rng(SEED)
    aligner = ViewAligner().train()
    optimiser = torch.optim.AdamW(aligner.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps, pct_start=0.1)
    half = has_bfloat16(torch.device("cpu"))
    for step in (bar := tqdm(range(steps), desc="learn", mininterval=10)):
        image, truth = move(bank[torch.from_numpy(rng.integers(len(bank), size=BATCH))].float(), rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            found, log_error = aligner(image)
        error = (found - truth / UNITS).abs()
        loss = (error * torch.exp(-log_error) + log_error).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(aligner.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            bar.set_postfix_str(f"error {float(error.detach().mean()):.2f}")
    save(aligner, WEIGHTS)
    judge(store)


def judge(store: str = STORE, films: int = 600) -> None:
    """Print how far the views are apart before and after, of people held out."""
    cases = [case for case in list_store(store) if {*case.name[:-6].split("+")} <= {*HELD_OUT}]
    bank, rng = make_films(cases, films, SEED + 1), np.random.default_rng(SEED + 1)
    aligner = ViewAligner()
    aligner.load_state_dict(torch.load(WEIGHTS, map_location="cpu", weights_only=True))
    aligner.eval()
    errors: dict[str, list[Tensor]] = {"as placed": [], "aligned": []}
    with torch.inference_mode():
        for some in bank.split(BATCH):
            image, truth = move(some.float(), rng)
            for name, found in (("as placed", torch.zeros_like(truth)), ("aligned", aligner(image)[0] * UNITS)):
                errors[name].append(torch.stack([_apart(truth, found), (found - truth)[:, 1].abs()]))
    print("| | diaphragms apart, mm on the detector | scale, % |\n| --- | ---: | ---: |")
    for name, parts in errors.items():
        apart, larger = torch.cat(parts, dim=1).quantile(torch.tensor([0.5, 0.9]), dim=1).T.tolist()
        cells = (f"{middle:.1f} ({most:.1f})" for middle, most in (apart, [100 * value for value in larger]))
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"medians (90 % are below); {len(bank)} pairs of films of {' '.join(HELD_OUT)}")


def make_films(cases: list[Path], count: int, seed: int) -> Tensor:
    """``(count, 2, 128, 128)`` half precision: films of any look and crop, rightly placed, -1 where unknown.

    Every eighth pair is as the projector makes it.
    """
    rng = np.random.default_rng(seed)
    film, place = film_and_placement(PIXELS, error=0)
    films = torch.empty(count, 2, PIXELS, PIXELS, dtype=torch.float16)
    for number in tqdm(range(count), desc="films", mininterval=10):
        film.set_random_state(int(rng.integers(2**31)))
        case = cases[rng.integers(len(cases))]
        plain = number % PLAIN_EVERY == 0
        pair = reduced(line_integrals(case)[None], PIXELS)[0] if plain else draw_film(case, film, place)
        hide_ends(pair, np.load(case / "coarse.npy"), rng)
        films[number] = pair
    return films


def hide_ends(pair: Tensor, coarse: np.ndarray, rng: np.random.Generator) -> None:
    """Let no pair ``(2, P, P)`` show an end of the scan in both views.

    Where a scan ends a film shows the same section on and on. No patient's does, and it would tell the height best.
    """
    sections = np.flatnonzero((coarse > BODY).any(axis=(0, 1)))
    ends_mm = (np.array([sections[0], sections[-1] + 1]) - coarse.shape[-1] / 2) * frame.voxel_size(coarse.shape[-1])
    for end, inwards in zip(ends_mm * magnification(frame.SOURCE_TO_DETECTOR_MM), (1, -1), strict=True):
        views = ((0,), (1,), (0, 1))[rng.integers(3)]
        for view in views:
            last_mm = end + inwards * (BLURRED_MM + rng.uniform(0, CUT_MM))
            row = max(0, round(last_mm * PIXELS / frame.detector_size_mm() + PIXELS / 2))
            pair[view, :, slice(row) if inwards > 0 else slice(row, None)] = UNKNOWN


def move(films: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Place films anew, as a program may.

    Args:
        films: ``(B, 2, P, P)``, rightly placed.
        rng: of the errors.

    Returns:
        The films, and by how many mm the lateral is lower and how much larger it is (logarithm), ``(B, 2)``.
    """
    count = len(films)

    def normal(deviation: float, *shape: int) -> Tensor:
        return deviation * torch.from_numpy(rng.normal(size=(count, *shape))).float()

    across, height, larger_both = normal(SHIFT_MM, 2), normal(SHIFT_MM), normal(SCALE)
    wider = 1 + (WIDER - 1) * torch.from_numpy(rng.random(count) < 1 / 3).float()
    lower, larger = wider * normal(APART_MM), wider * normal(APART_SCALE)
    turns = torch.deg2rad(normal(DEGREES, 2))
    moved, heights, scales = [], [], []
    for view, half in enumerate((-0.5, 0.5)):
        heights.append(height + half * lower)
        scales.append(torch.exp(larger_both + half * larger))
        cos, sin = torch.cos(turns[:, view]) / scales[view], torch.sin(turns[:, view]) / scales[view]
        u, v = (shift * 2 / frame.detector_size_mm() for shift in (across[:, view], heights[view]))
        rows = [torch.stack([cos, sin, -cos * v - sin * u], dim=1), torch.stack([-sin, cos, sin * v - cos * u], dim=1)]
        grid = F.affine_grid(torch.stack(rows, dim=1), [count, 1, PIXELS, PIXELS], align_corners=False)
        known = (films[:, view] >= 0).float()
        seen = F.grid_sample(torch.stack([films[:, view] * known, known], dim=1), grid, align_corners=False)
        moved.append(torch.where(seen[:, 1] > 0.99, seen[:, 0] / seen[:, 1].clamp(min=0.5), UNKNOWN))
    # A place z is in row scale * z + height of either view.
    scale = scales[1] / scales[0]
    return torch.stack(moved, dim=1), torch.stack([heights[1] - scale * heights[0], torch.log(scale)], dim=1)


def _apart(truth: Tensor, found: Tensor) -> Tensor:
    """Distance of the diaphragms in the two views, ``(B,)`` mm."""
    rows = [torch.expm1(offset[:, 1]) * DIAPHRAGM_MM + offset[:, 0] for offset in (truth, found)]
    return (rows[0] - rows[1]).abs()


if __name__ == "__main__":
    commands = {"train": train, "judge": judge}
    start(commands if sys.argv[1:2] and sys.argv[1] in commands else train)

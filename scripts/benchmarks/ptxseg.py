"""The study of PTX-Seg: tables of what it finds in CTs whose truth is known. `python scripts/benchmark.py ptxseg`."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable

import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from xrecon_bundle.anatomy.pneumothorax import Pneumothorax, insert_pneumothorax
from xrecon_bundle.anatomy.pseudo_patients import make_pseudo_patient
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.datasets.lidc import LOBES, fetch_lidc
from xrecon_bundle.datasets.open_cts import OPEN_CTS, fetch_open_ct
from xrecon_bundle.frame import AIR_HU, AXCODES, voxel_size
from xrecon_bundle.io.readers import read_ct
from xrecon_bundle.metrics import dice_score, pearson
from xrecon_bundle.segmentation import PTXSeg
from xrecon_bundle.segmentation.labels import SIDES, pleural_cavity_labels
from xrecon_bundle.workflows.segment import in_chest_axes

OCCUPANCIES = (0.05, 0.1, 0.2, 0.4, 0.7)
OTHERS = ("angiography", "lung1", "lung2")
# The method was tuned on other seeds and pseudo-patients (see docs/ptx-seg.md); these are judged.
JUDGED_SEED = 15
PSEUDO_PATIENTS = (110, 111)
NOISE_HU = 60.0


def run(study: str = "all", cohort: int = 40, cohort_size: int = 128) -> None:
    """Print the tables.

    Args:
        study: lidc (lungs, false pneumothorax, time, memory), inserted (pneumothorax put into the LIDC CT), pseudo
            (into pseudo-patients made of it, in-plane voxels doubled), others (into three other people's CTs), cohort
            (synthetic), mimics (bullae and emphysema), or all.
        cohort: number of synthetic cases.
        cohort_size: their voxels along each edge.
    """
    studies = {
        "lidc": _lidc,
        "inserted": _inserted,
        "pseudo": _pseudo,
        "others": _others,
        "cohort": lambda: _cohort(cohort, cohort_size),
        "mimics": _mimics,
    }
    for name in studies if study == "all" else [study]:
        studies[name]()


def load_lidc() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The LIDC CT in HU and TotalSegmentator's lungs (1 right, 2 left), LPI, and the voxel size in mm."""
    chest = nibabel.orientations.axcodes2ornt(AXCODES)
    images = []
    for path in fetch_lidc(".cache"):
        image = nibabel.load(path)
        stored = nibabel.io_orientation(image.affine)
        images.append(image.as_reoriented(nibabel.orientations.ornt_transform(stored, chest)))
    hu, labels = (np.asarray(image.dataobj) for image in images)
    lungs = np.select([np.isin(labels, lobes) for lobes in LOBES.values()], list(LOBES)).astype(np.uint8)
    return np.clip(hu, -1024, 3071).astype(np.float32), lungs, np.array(images[0].header.get_zooms()[:3], dtype=float)


def _lidc() -> None:
    hu, lungs, spacing = load_lidc()
    print(f"\nLIDC CT, {hu.shape}, {spacing} mm\n")
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        labels = PTXSeg()(hu, spacing)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"Time {min(seconds):.1f} s (best of 2), peak memory of the process {peak:.2f} GiB.\n")
    print("| side | Dice of the lung | false pneumothorax | cavity, mL |\n| --- | ---: | ---: | ---: |")
    for side, (lung, air) in SIDES.items():
        cavity = (labels == lung) | (labels == air)
        dice, volume = dice_score(labels == lung, lungs == lung), cavity.sum() * np.prod(spacing) / 1000
        print(f"| {side} | {dice:.3f} | {share_of_air(labels, side):.2%} | {volume:.0f} |")


def _inserted() -> None:
    print("\nPneumothorax inserted into the LIDC CT")
    _insert_and_find(*load_lidc(), JUDGED_SEED)


def _pseudo() -> None:
    hu, lungs, spacing = load_lidc()
    hu = hu.reshape(256, 2, 256, 2, -1).mean(axis=(1, 3))
    for seed in PSEUDO_PATIENTS:
        print(f"\nPneumothorax inserted into pseudo-patient {seed}")
        patient, labels = make_pseudo_patient(hu, lungs[::2, ::2], spacing * [2, 2, 1], seed)
        _insert_and_find(patient.astype(np.float32), labels, spacing * [2, 2, 1], seed)


def _others() -> None:
    """No one has drawn their lungs: what PTX-Seg finds in the CT as it is counts as the lungs before insertion."""
    for name in OTHERS:
        hu, spacing = in_chest_axes(read_ct(fetch_open_ct(name, ".cache")))
        hu = np.maximum(hu, AIR_HU)
        labels = PTXSeg()(hu, spacing)
        print(f"\n{name}: {OPEN_CTS[name].shows}")
        print("false pneumothorax " + ", ".join(f"{side} {share_of_air(labels, side):.2%}" for side in SIDES))
        lungs = pleural_cavity_labels(labels)
        _insert_and_find(hu, lungs, spacing, JUDGED_SEED)
        for bullae, ct_with in _mimic_cases(hu, lungs > 0, spacing):
            labels = PTXSeg()(ct_with, spacing)
            print(f"{bullae}: " + ", ".join(f"{side} {share_of_air(labels, side):.2%}" for side in SIDES), flush=True)


def _insert_and_find(hu: np.ndarray, lungs: np.ndarray, spacing: np.ndarray, seed: int) -> None:
    names = [*_GRIDS, f"noise {NOISE_HU:.0f} HU", "5 mm slices"]
    scores: dict[tuple[str, float], list[tuple[float, float]]] = {}
    print("Dice of the free air, and occupancy found minus true in points\n")
    print(f"| side, true occupancy | {' | '.join(names)} |\n| --- " + "| ---: " * len(names) + "|")
    for side in SIDES:
        for occupancy in OCCUPANCIES:
            ct, truth = insert_pneumothorax(hu, lungs, spacing, side, occupancy, seed=seed + int(100 * occupancy))
            noise = np.random.default_rng(seed).normal(0, NOISE_HU, ct.shape).astype(np.float32)
            cases = [regrid(ct, truth, spacing, *grid) for grid in _GRIDS.values()]
            cases += [(ct + noise, truth, spacing), _thick_slices(ct, truth, spacing)]
            cells = []
            for name, (volume, labels, size) in zip(names, cases, strict=True):
                found = PTXSeg()(volume, size)
                air = SIDES[side][1]
                error = 100 * (share_of_air(found, side) - share_of_air(labels, side))
                dice = dice_score(found == air, labels == air)
                scores.setdefault((name, occupancy), []).append((dice, error))
                cells.append(f"{dice:.2f} {error:+.1f}")
            print(f"| {side} {occupancy:.0%} | {' | '.join(cells)} |", flush=True)
    _print_in_short(names, scores)


def _print_in_short(names: list[str], scores: dict[tuple[str, float], list[tuple[float, float]]]) -> None:
    """How many are found, and of these the smallest and largest Dice and error."""
    print(f"\nFound / Dice / error\n\n| true occupancy | {' | '.join(names)} |\n| --- " + "| ---: " * len(names) + "|")
    for occupancy in OCCUPANCIES:
        cells = []
        for name in names:
            found = [score for score in scores[name, occupancy] if score[0] > 0]
            cell = f"{len(found)} of {len(scores[name, occupancy])}"
            if found:
                dice, error = (sorted(values) for values in zip(*found, strict=True))
                cell += f" / {dice[0]:.2f} to {dice[-1]:.2f} / {error[0]:+.1f} to {error[-1]:+.1f}"
            cells.append(cell)
        print(f"| {occupancy:.0%} | {' | '.join(cells)} |")


def _thick_slices(hu: np.ndarray, labels: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every two slices averaged; labels by the larger share, lung where equal."""
    pairs = hu.shape[2] // 2
    shares = [(labels[..., : 2 * pairs] == k).reshape(*hu.shape[:2], pairs, 2).mean(axis=-1) for k in range(5)]
    thick = hu[..., : 2 * pairs].reshape(*hu.shape[:2], pairs, 2).mean(axis=-1)
    return thick, np.argmax(shares, axis=0).astype(np.uint8), spacing * [1, 1, 2]


# name: voxel edge in mm (None: as it is), Gaussian blur sigma in mm
_GRIDS = {
    "native": (None, 0.0),
    "native blurred": (None, 2.0),
    "128": (voxel_size(128), 0.0),
    "128 blurred": (voxel_size(128), 4.0),
    "64": (voxel_size(64), 0.0),
}


def _cohort(cases: int, size: int) -> None:
    print(f"\nSynthetic cohort of {cases} at {size}^3, every fourth healthy\n")
    print("| case | mL | found | occupancy | found | Dice |\n| --- " + "| ---: " * 5 + "|")
    spacing, rows = (voxel_size(size),) * 3, []
    for seed in range(cases):
        rng = np.random.default_rng([seed, 7])
        side = ("right", "left")[seed % 2]
        inserted = None if seed % 4 == 3 else Pneumothorax(side, float(rng.uniform(0.03, 0.75)))
        case = synthesize_thorax(seed, size, inserted)
        found, truth = PTXSeg()(case.ct.astype(np.float32), spacing), case.segmentation
        air = [np.count_nonzero(labels > 2) * np.prod(spacing) / 1000 for labels in (truth, found)]
        occupancy = [share_of_air(labels, side) for labels in (truth, found)]
        rows.append([*air, *occupancy, dice_score(found > 2, truth > 2)])
        figures = f"{air[0]:.0f} | {air[1]:.0f} | {occupancy[0]:.3f} | {occupancy[1]:.3f} | {rows[-1][-1]:.3f}"
        print(f"| {seed} {side} | {figures} |", flush=True)
    print()
    table = np.array(rows)
    for name, first in (("volume", 0), ("occupancy", 2)):
        r = pearson(table[:, first], table[:, first + 1])
        print(f"{name}: r = {r.value:.4f} (95 % CI {r.low:.4f} to {r.high:.4f})")


def _mimics() -> None:
    hu, lungs, spacing = load_lidc()
    print("\nLIDC CT with what is not a pneumothorax: occupancy found\n")
    print("| drawn | CT | right | left |\n| --- | --- | ---: | ---: |")
    for name, ct in _mimic_cases(hu, lungs > 0, spacing):
        for grid in ("native", "128", "64"):
            volume, _, size = regrid(ct, lungs, spacing, *_GRIDS[grid])
            labels = PTXSeg()(volume, size)
            shares = " | ".join(f"{share_of_air(labels, side):.2%}" for side in SIDES)
            print(f"| {name} | {grid} | {shares} |", flush=True)


def _mimic_cases(hu: np.ndarray, lungs: np.ndarray, spacing: np.ndarray) -> Iterable[tuple[str, np.ndarray]]:
    for number, radius in ((14, 30.0), (6, 50.0)):
        yield f"{number} bullae to {radius:.0f} mm radius", add_bullae(hu, lungs, spacing, number, radius)
    for severity in (0.3, 0.6, 0.9):
        yield f"emphysema {severity}", add_emphysema(hu, lungs, spacing, severity)


def add_bullae(hu: np.ndarray, lungs: np.ndarray, spacing: np.ndarray, number: int, radius: float) -> np.ndarray:
    """Thin-walled balls of air in the lung, many of them on the pleura."""
    rng = np.random.default_rng(number)
    depth = ndimage.distance_transform_edt(lungs, sampling=spacing)
    result, inside = hu.copy(), np.zeros(hu.shape, bool)
    grid = np.ogrid[tuple(map(slice, hu.shape))]
    for _ in range(number):
        size = rng.uniform(6.0, radius)
        voxels = np.argwhere(np.abs(depth - min(size * rng.choice([0.3, 0.7, 1.2]), 35.0)) < 3.0)
        centre = voxels[rng.integers(len(voxels))]
        distance = np.sqrt(sum(((axis - at) * step) ** 2 for axis, at, step in zip(grid, centre, spacing, strict=True)))
        result[(distance < size + 0.8) & lungs & ~inside] = -700.0
        inside |= (distance < size) & lungs
    result[inside] = -995.0 + rng.normal(0, 25, np.count_nonzero(inside))
    rim = ndimage.binary_dilation(inside, iterations=2)
    return np.where(rim, ndimage.gaussian_filter(result, 0.6 / spacing), result)


def add_emphysema(hu: np.ndarray, lungs: np.ndarray, spacing: np.ndarray, severity: float) -> np.ndarray:
    """Patches without parenchyma, most in the upper lobes, vessels kept; ``severity`` 0 to 1."""
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(size=hu.shape).astype(np.float32), 4.0 / spacing)
    height = np.linspace(1, -1, hu.shape[2], dtype=np.float32)
    patches = (noise / noise.std() + 0.8 * height > 1.5 - 2 * severity) & lungs
    share = ndimage.gaussian_filter(patches.astype(np.float32), 1.0 / spacing) * lungs
    empty = np.where(hu > -750, hu, 0.15 * hu - 0.85 * 985)
    return hu * (1 - share) + empty * share


def share_of_air(labels: np.ndarray, side: str) -> float:
    """Occupancy: air / (air + lung) of a side's cavity, 0 to 1."""
    lung, air = (np.count_nonzero(labels == label) for label in SIDES[side])
    return air / max(1, air + lung)


def regrid(
    hu: np.ndarray, labels: np.ndarray, spacing: np.ndarray, step: float | None, blur: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CT, labels and voxel size after a blur and resampling to voxels of ``step`` mm."""
    sigma = blur if step is None else np.hypot(blur, np.where(spacing < step, 0.5 * step, 0.0))
    smooth = ndimage.gaussian_filter(hu, sigma / spacing)
    if step is None:
        return smooth, labels, spacing
    size = [round(length * edge / step) for length, edge in zip(hu.shape, spacing, strict=True)]

    def resample(volume: np.ndarray) -> np.ndarray:
        return F.interpolate(torch.from_numpy(volume.astype(np.float32))[None, None], size, mode="trilinear")[
            0, 0
        ].numpy()

    shares = np.stack(
        [resample(ndimage.gaussian_filter((labels == k).astype(np.float32), 0.3 * step / spacing)) for k in range(5)]
    )
    return resample(smooth), shares.argmax(axis=0).astype(np.uint8), spacing * hu.shape / size

"""A dataset folder of synthetic chests: training data with ground truth, where there is no CT at all."""

from __future__ import annotations

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from .. import __version__, frame
from ..files import InputError, write_json
from ..transforms.pneumothorax import Pneumothorax
from .cases import FRACTIONS, MANIFEST, SOURCE, file_sha256, split_cases, write_case
from .thorax import SyntheticThorax, synthesize_thorax

RECIPE = 1  # raise it when the same seed would give other files; finished cases are then made again
OCCUPANCY = (0.03, 0.9)


def write_synthetic_cohort(
    output_dir: str | os.PathLike,
    cases: int,
    spatial_size: int = 64,
    seed: int = 0,
    pneumothorax_fraction: float = 0.5,
    workers: int = 2,
    fractions: tuple[float, float, float] = FRACTIONS,
) -> Path:
    """Write ``cases`` synthetic patients with radiographs, segmentation and ``manifest.json``.

    Patient ``n`` of a seed is the same patient, with the same pneumothorax, whatever the size, the number of cases and
    of workers. Run again after an interruption, finished cases are kept.

    Args:
        output_dir: the dataset folder, see :mod:`xrecon_bundle.data.cases`.
        cases: how many patients.
        spatial_size: edge of the volumes in voxels and of the radiographs in pixels.
        seed: of the cohort and of its split.
        pneumothorax_fraction: chance that a patient has a pneumothorax, of an occupancy drawn from
            :data:`OCCUPANCY`, on a side drawn evenly.
        workers: processes. 1: in this process.
        fractions: of train, validation and test, see :func:`xrecon_bundle.data.cases.split_cases`.

    Returns:
        the path of the manifest. It holds for every case its parameters, side and occupancy.

    Raises:
        InputError: no cases asked for, a size below 16 or above 512, or a fraction outside [0, 1].
    """
    if cases < 1:
        raise InputError(f"cases is how many patients to make, at least 1, not {cases}")
    if not 16 <= spatial_size <= 512:
        raise InputError(f"spatial_size is the edge in voxels, from 16 to 512, not {spatial_size}")
    if not 0 <= pneumothorax_fraction <= 1:
        raise InputError(f"pneumothorax_fraction is a chance between 0 and 1, not {pneumothorax_fraction}")
    output = Path(output_dir)
    make = partial(_make_or_reuse, output, spatial_size, seed, pneumothorax_fraction)
    progress = partial(tqdm, total=cases, desc="synthetic cohort", unit="case")
    if workers == 1:
        records = list(progress(map(make, range(cases))))
    else:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        with ProcessPoolExecutor(workers, context) as pool:
            records = list(progress(pool.map(make, range(cases))))
    splits = split_cases((record["patient"] for record in records), seed, fractions)
    content = {
        "made_by": f"xrecon_bundle write_synthetic_cohort {__version__}",
        "settings": {**_settings(spatial_size), "seed": seed, "fractions": list(fractions)},
        "cases": [{"case": record["patient"], "split": splits[record["patient"]], **record} for record in records],
        "exclusions": [],
    }
    write_json(output / MANIFEST, content)
    return output / MANIFEST


def draw_patient(seed: int, number: int, pneumothorax_fraction: float) -> tuple[SyntheticThorax, Pneumothorax | None]:
    """Patient ``number`` of the cohort ``seed``, and the pneumothorax if there is one."""
    rng = np.random.default_rng([seed, number])
    patient = SyntheticThorax.sample(int(rng.integers(2**31)))
    chance, side, share = rng.random(3)
    if chance >= pneumothorax_fraction:
        return patient, None
    low, high = OCCUPANCY
    return patient, Pneumothorax("right" if side < 0.5 else "left", round(low + (high - low) * share, 4))


def _make_or_reuse(output: Path, spatial_size: int, seed: int, fraction: float, number: int) -> dict[str, Any]:
    patient, pneumothorax = draw_patient(seed, number, fraction)
    name = f"synthetic-{seed}-{number:05d}"
    key = {
        "patient": name,
        "settings": _settings(spatial_size),
        "parameters": asdict(patient),
        "pneumothorax": None if pneumothorax is None else asdict(pneumothorax),
    }
    key = json.loads(json.dumps(key))  # as it reads when it comes back from a file
    finished = _finished(output / name, key)
    if finished is not None:
        return finished
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        case = synthesize_thorax(patient, spatial_size, pneumothorax)
        write_case(output / name, case.ct, frame.cube_affine(spatial_size), case.segmentation, source=key)
    finally:
        torch.set_num_threads(threads)
    return json.loads((output / name / SOURCE).read_text())


def _finished(folder: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a case that is this patient, with these settings, and whose files are whole."""
    try:
        record = json.loads((folder / SOURCE).read_text())
        same = all(record[name] == value for name, value in key.items())
        whole = same and all(file_sha256(folder / name) == digest for name, digest in record["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    return record if whole else None


def _settings(spatial_size: int) -> dict[str, Any]:
    return {"recipe": RECIPE, "spatial_size": spatial_size, "edge_mm": frame.EDGE_MM}

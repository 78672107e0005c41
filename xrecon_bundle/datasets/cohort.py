"""Dataset folders made from seeds: synthetic chests, where there is no CT at all, and pseudo-patients of one CT."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from .. import __version__, frame
from ..anatomy.patient import SyntheticThorax
from ..anatomy.pneumothorax import Pneumothorax, insert_pneumothorax
from ..anatomy.pseudo_patients import make_pseudo_patient
from ..anatomy.thorax import synthesize_thorax
from ..files import InputError, write_json
from ..fingerprint import code_fingerprint
from ..placement.standardize import resize_cube
from .cases import FRACTIONS, MANIFEST, SOURCE, split_cases, write_case
from .prepare import ROOMS
from .store import Outcome, make_or_reuse, run_cases

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
        output_dir: the dataset folder, see :mod:`xrecon_bundle.datasets.cases`.
        cases: how many patients.
        spatial_size: edge of the volumes in voxels and of the radiographs in pixels.
        seed: of the cohort and of its split.
        pneumothorax_fraction: chance that a patient has a pneumothorax, of an occupancy drawn from
            :data:`OCCUPANCY`, on a side drawn evenly.
        workers: processes. 1: in this process.
        fractions: of train, validation and test, see :func:`xrecon_bundle.datasets.cases.split_cases`.

    Returns:
        the path of the manifest. It holds for every case its parameters, side and occupancy.

    Raises:
        InputError: no cases asked for, a size below 16 or above 512, or a fraction outside [0, 1].
    """
    recipe = _SyntheticPatients(spatial_size, seed, pneumothorax_fraction)
    return _write_cohort(Path(output_dir), recipe, cases, workers, fractions)


def write_pseudo_cohort(
    ct: np.ndarray,
    labels: np.ndarray,
    output_dir: str | os.PathLike,
    cases: int,
    spatial_size: int = 64,
    seed: int = 0,
    pneumothorax_fraction: float = 0.5,
    workers: int = 2,
    fractions: tuple[float, float, float] = FRACTIONS,
) -> Path:
    """Write ``cases`` pseudo-patients of one CT, see :func:`xrecon_bundle.anatomy.pseudo_patients.make_pseudo_patient`.

    All are the anatomy of one person: a split among them shows how well a model has learned this person, not how well
    it does on others.

    Args:
        ct: the CT in the chest frame, ``(S, S, S)`` int16 HU, as
            :func:`xrecon_bundle.placement.standardize.standardize_ct` gives it. Best at twice ``spatial_size``: it is
            deformed there and resized after.
        labels: label map ``(S, S, S)``: 1 right lung, 2 left lung, above 4 the organs whose sizes vary.
        output_dir: the dataset folder, and so on as in :func:`write_synthetic_cohort`.

    Raises:
        InputError: as :func:`write_synthetic_cohort`.
    """
    recipe = _PseudoPatients(spatial_size, seed, pneumothorax_fraction, ct, labels)
    return _write_cohort(Path(output_dir), recipe, cases, workers, fractions)


def resize_labelled(ct: np.ndarray, labels: np.ndarray, spatial_size: int) -> tuple[np.ndarray, np.ndarray]:
    """A CT of the chest frame and its labels 1 to 4 at another size, the labels at the nearest voxel."""
    size = ct.shape[0]
    nearest = np.floor((np.arange(spatial_size) + 0.5) * size / spatial_size).astype(int)
    labels = labels[np.ix_(nearest, nearest, nearest)]
    return resize_cube(ct, frame.cube_affine(size), spatial_size).ct, np.where(labels <= 4, labels, 0)


def draw_patient(seed: int, number: int, pneumothorax_fraction: float) -> tuple[SyntheticThorax, Pneumothorax | None]:
    """Patient ``number`` of the synthetic cohort ``seed``, and the pneumothorax if there is one."""
    rng = np.random.default_rng([seed, number])
    patient = SyntheticThorax.sample(int(rng.integers(2**31)))
    return patient, _draw_pneumothorax(rng, pneumothorax_fraction)


def _draw_pneumothorax(rng: np.random.Generator, fraction: float) -> Pneumothorax | None:
    chance, side, share = rng.random(3)
    if chance >= fraction:
        return None
    low, high = OCCUPANCY
    return Pneumothorax("right" if side < 0.5 else "left", round(low + (high - low) * share, 4))


class _Recipe(Protocol):
    """How patient ``number`` is made. ``key`` identifies the result, ``make`` gives CT and segmentation."""

    made_by: ClassVar[str]

    @property
    def spatial_size(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def pneumothorax_fraction(self) -> float: ...

    def key(self, number: int) -> dict[str, Any]: ...

    def make(self, number: int) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class _SyntheticPatients:
    spatial_size: int
    seed: int
    pneumothorax_fraction: float
    made_by: ClassVar[str] = "write_synthetic_cohort"

    def key(self, number: int) -> dict[str, Any]:
        patient, pneumothorax = draw_patient(self.seed, number, self.pneumothorax_fraction)
        return {
            "patient": f"synthetic-{self.seed}-{number:05d}",
            "settings": _settings(self),
            "parameters": asdict(patient),
            "pneumothorax": None if pneumothorax is None else asdict(pneumothorax),
        }

    def make(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        patient, pneumothorax = draw_patient(self.seed, number, self.pneumothorax_fraction)
        case = synthesize_thorax(patient, self.spatial_size, pneumothorax)
        return case.ct, case.segmentation


@dataclass(frozen=True)
class _PseudoPatients:
    spatial_size: int
    seed: int
    pneumothorax_fraction: float
    ct: np.ndarray
    labels: np.ndarray
    made_by: ClassVar[str] = "write_pseudo_cohort"

    def key(self, number: int) -> dict[str, Any]:
        deformation, pneumothorax = self._draw(number)
        return {
            "patient": f"pseudo-{self.seed}-{number:05d}",
            "settings": _settings(self),
            "source": hashlib.sha256(self.ct.tobytes() + self.labels.tobytes()).hexdigest(),
            "deformation": deformation,
            "pneumothorax": None if pneumothorax is None else asdict(pneumothorax),
        }

    def make(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        deformation, pneumothorax = self._draw(number)
        size = self.ct.shape[0]
        spacing = (frame.voxel_size(size),) * 3
        ct, labels = make_pseudo_patient(self.ct, self.labels, spacing, deformation)
        if pneumothorax is not None:
            ct, labels = insert_pneumothorax(
                ct, labels, spacing, pneumothorax.side, pneumothorax.occupancy, deformation
            )
        return resize_labelled(ct, labels, self.spatial_size)

    def _draw(self, number: int) -> tuple[int, Pneumothorax | None]:
        rng = np.random.default_rng([self.seed, number])
        return int(rng.integers(2**31)), _draw_pneumothorax(rng, self.pneumothorax_fraction)


def _write_cohort(
    output: Path, recipe: _Recipe, cases: int, workers: int, fractions: tuple[float, float, float]
) -> Path:
    if cases < 1:
        raise InputError(f"cases is how many patients to make, at least 1, not {cases}")
    if not 16 <= recipe.spatial_size <= 512:
        raise InputError(f"spatial_size is the edge in voxels, from 16 to 512, not {recipe.spatial_size}")
    if not 0 <= recipe.pneumothorax_fraction <= 1:
        raise InputError(f"pneumothorax_fraction is a chance between 0 and 1, not {recipe.pneumothorax_fraction}")
    made = run_cases(partial(_make_patient, output, recipe), range(cases), recipe.made_by, workers)
    if failed := next((outcome.reason for outcome in made if outcome.reason), None):
        raise InputError(f"{output}: a patient could not be made: {failed}")
    records = [outcome.finished for outcome in made]
    splits = split_cases((record["patient"] for record in records), recipe.seed, fractions)
    content = {
        "made_by": f"xrecon_bundle {recipe.made_by} {__version__}",
        "settings": {**_settings(recipe), "seed": recipe.seed, "fractions": list(fractions)},
        "cases": [{"case": record["patient"], "split": splits[record["patient"]], **record} for record in records],
        "exclusions": [],
    }
    write_json(output / MANIFEST, content)
    return output / MANIFEST


def _make_patient(output: Path, recipe: _Recipe, number: int) -> Outcome:
    key = recipe.key(number)
    folder = output / key["patient"]

    def make() -> None:
        ct, segmentation = recipe.make(number)
        write_case(folder, ct, frame.cube_affine(recipe.spatial_size), segmentation, source=key)

    return make_or_reuse(folder / SOURCE, key, make)


def _settings(recipe: _Recipe) -> dict[str, Any]:
    code = code_fingerprint("anatomy", "segmentation", *ROOMS)
    return {"code": code, "spatial_size": recipe.spatial_size, "edge_mm": frame.EDGE_MM}

"""The store that the weights learn from: pseudo-patients of real people, memory-mapped.

A step of :mod:`xrecon_bundle.engines.blocks` reads a block of a CT, not the CT: so a case is a folder of plain arrays
(``.npy``) that are mapped, not loaded. At 1.6 mm a case takes half a minute to make and 37 MB. What the coarse volume
learns from is also made of a CT of 3.2 mm, in three seconds and 7 MB: many more patients.

=====================  =======================================================================================
file                   content
=====================  =======================================================================================
``ct.npy``             int16 HU ``(S, S, S)``, chest frame, S of 224 (1.6 mm) or less
``labels.npy``         uint8 of the same shape, :mod:`xrecon_bundle.segmentation.labels`
``coarse.npy``         float16 network units ``(64, 64, 64)``, the CT averaged
``coarse_labels.npy``  uint8 ``(64, 64, 64)``, the nearest voxels
``radiographs.npy``    float32 nepers ``(2, 224, 224)``: what ``xrecon simulate`` makes of the CT
``materials.npy``      float16 mm ``(2, 2, 288, 288)``: :func:`xrecon_bundle.projection.film.simulate_materials` of
                       the CT, its ends continued
``dense.npy``          float16 mm ``(5, 112, 112)``: :func:`xrecon_bundle.projection.film.simulate_dense`, likewise
``case.json``          person, seed, pneumothorax, whether the patient stands, SHA-256 of the files
=====================  =======================================================================================
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import frame
from ..files import InputError, atomic_path, file_sha256, write_json
from ..segmentation.labels import pleural_cavity_labels
from .cohort import OCCUPANCY, resize_labelled
from .store import FILES, Outcome, finished_record, run_cases

if TYPE_CHECKING:
    from torch import Tensor

SIZE, COARSE, PIXELS = 224, 64, 288
RECORD = "case.json"
MAKING = ".making-"
ARRAYS = 3  # 1: without dense.npy; 2: ct.npy of 1.6 mm only; a case with other arrays is made anew
SYNTHETIC = "synthetic"
AND = "+"  # between the names of two people, the first of whom is shaped as the second in part
SHARES = (0.2, 0.8)  # of the way from one to the other


def people_of(folder: str | Path, cache: str | Path) -> dict[str, Path]:
    """The CTs to learn from by name: the files ``*.nii.gz`` of a folder, and three that are downloaded to ``cache``.

    Raises:
        InputError: there is no CT in ``folder``; ``docs/data_license.txt`` names the series.
    """
    from .lidc import fetch_lidc
    from .open_cts import fetch_open_ct

    found = {path.name.removesuffix(".nii.gz"): path for path in sorted(Path(folder).glob("*.nii.gz"))}
    if not found:
        raise InputError(f"{folder}: no CT (*.nii.gz) here; docs/data_license.txt names the series and where they are")
    found["LIDC-IDRI-0001"] = fetch_lidc(cache)[0]
    return found | {name: fetch_open_ct(name, cache) for name in ("lung1", "lung2")}


def write_store(
    folder: str | Path,
    people: dict[str, Path],
    cases: int,
    synthetic_every: int = 10,
    workers: int = 1,
    spatial_size: int = SIZE,
    spread: float = 1.0,
    between: float = 0.0,
) -> list[str]:
    """Make ``cases`` cases, of all people in turn; what is finished is kept.

    Args:
        folder: the store.
        people: CT files by name, see :func:`people_of`.
        cases: how many.
        synthetic_every: each so many-th is a synthetic chest; 0: none.
        workers: processes.
        spatial_size: of the CTs that the cases are made of. Smaller than :data:`SIZE`: for the coarse volume only.
        spread: how much more than usual a pseudo-patient may differ from the real one, at most; drawn from 1 to this.
        between: share of the pseudo-patients who go part of the way to another person's shape.

    Returns:
        the names of the cases.

    Raises:
        InputError: a case could not be made, nobody is there to go ``between``, or the store has cases of others.
    """
    folder, names = Path(folder), sorted(people)
    if between and len(names) < 2:
        raise InputError(f"between={between:g} needs the CTs of two people or more, not of {len(names)}")
    jobs: list[tuple[str, int]] = []
    for number in range(cases):
        synthetic = synthetic_every and number % synthetic_every == synthetic_every - 1
        of_people = number - (number // synthetic_every if synthetic_every else 0)
        name = SYNTHETIC if synthetic else names[of_people % len(names)]
        rng = np.random.default_rng([8, number])
        if not synthetic and rng.random() < between:
            name += AND + str(rng.choice([other for other in names if other != name]))
        jobs.append((name, number))
    for leftover in folder.glob(f"{MAKING}*"):  # of a run that was killed
        shutil.rmtree(leftover)
    known = {*names, SYNTHETIC}
    if others := [case.name for case in (folder / "cases").glob("*") if not _people(case) <= known]:
        raise InputError(
            f"{folder}: holds {len(others)} cases of people who are not to be learnt from ({others[0]}, ...); delete "
            "these, or give another --folder"
        )
    # Another file under the same name is another CT.
    digests = {name: file_sha256(path)[:8] for name, path in people.items()}
    outcomes = run_cases(partial(_make_case, folder, people, digests, spatial_size, spread), jobs, "store", workers)
    if failed := next((outcome.reason for outcome in outcomes if outcome.reason), None):
        raise InputError(f"{folder}: {failed}")
    return [_name(*job) for job in jobs]


def list_store(
    folder: str | Path, people: Sequence[str] = (), without: Sequence[str] = (), limit: int | None = None
) -> list[Path]:
    """Folders of the finished cases.

    Args:
        folder: the store.
        people: only of these; empty: of all.
        without: none of these, nor one who is shaped as one of them in part.
        limit: at most so many, as evenly of all people as they come.

    Raises:
        InputError: there is none.
    """
    found = [path.parent for path in sorted(Path(folder).glob(f"cases/*/{RECORD}"))]
    found = [path for path in found if (not people or _people(path) <= {*people}) and not _people(path) & {*without}]
    if not found:
        raise InputError(f"{folder}: no finished case; make the store with scripts/weights.py store")
    return sorted(found, key=lambda path: path.name[-5:])[:limit]


def standard_person(name: str, path: Path, cache: Path, digest: str) -> tuple[np.ndarray, np.ndarray]:
    """A CT in the chest frame at 1.6 mm, int16 HU, and its labels, kept in ``cache`` by ``digest``."""
    from ..io.readers import read_ct
    from ..placement.standardize import standardize_ct
    from ..segmentation import PTXSeg

    kept = cache / f"{name}-{digest}.npz"
    if not kept.exists():
        if name == "LIDC-IDRI-0001":
            from .lidc import standard_lidc

            ct, _, labels = standard_lidc(path.parents[1], SIZE)
            assert labels is not None
        else:
            stored = read_ct(path)
            ct = standardize_ct(stored.hu, stored.affine, SIZE).ct
            labels = pleural_cavity_labels(PTXSeg()(ct, (frame.voxel_size(SIZE),) * 3))
        with atomic_path(kept) as temporary:
            np.savez_compressed(temporary, ct=ct, labels=labels)
    with np.load(kept) as content:
        return content["ct"], content["labels"]


@lru_cache(maxsize=16)  # of a worker: unpacking a person takes as long as half a case
def _sized_person(name: str, path: Path, cache: Path, spatial_size: int, digest: str) -> tuple[np.ndarray, np.ndarray]:
    ct, labels = standard_person(name, path, cache, digest)
    return (ct, labels) if spatial_size == SIZE else resize_labelled(ct, labels, spatial_size)


def _velocity_between(
    person: str, other: str, people: dict[str, Path], digests: dict[str, str], cache: Path, spatial_size: int
) -> np.ndarray:
    from ..anatomy.likeness import velocity_between
    from ..projection.film import extend_scan

    of_both = AND.join(f"{name}-{digests[name]}" for name in (person, other))
    kept = cache / f"{of_both}-{spatial_size}.npy"
    if not kept.exists():
        both = [_sized_person(name, people[name], cache, spatial_size, digests[name]) for name in (person, other)]
        (ct, labels), (other_ct, other_labels) = ((extend_scan(ct, 0.0), labels) for ct, labels in both)
        spacing = (frame.voxel_size(spatial_size),) * 3
        velocity = velocity_between(ct, labels, other_ct, other_labels, spacing)
        with atomic_path(kept) as temporary:
            np.save(temporary, velocity)
    return np.load(kept)


class Chest:
    """What the store keeps of a CT ``(S, S, S)`` in HU and its labels; each array is made when it is asked for."""

    arrays = ("ct", "labels", "coarse", "coarse_labels", "radiographs", "materials", "dense")

    def __init__(self, ct: np.ndarray, labels: np.ndarray) -> None:
        self.hu, self.segmentation = ct, labels

    def array(self, name: str) -> np.ndarray:
        """One of :attr:`arrays`, as the head of this module says."""
        return getattr(self, f"_{name}")()

    def _ct(self) -> np.ndarray:
        return np.rint(self.hu).astype(np.int16)

    def _labels(self) -> np.ndarray:
        return self.segmentation.astype(np.uint8)

    def _coarse(self) -> np.ndarray:
        import torch.nn.functional as F

        unit = frame.hu_to_unit(self._tensor())[None, None]
        return F.interpolate(unit, size=(COARSE,) * 3, mode="area")[0, 0].half().numpy()

    def _coarse_labels(self) -> np.ndarray:
        nearest = np.floor((np.arange(COARSE) + 0.5) * len(self.hu) / COARSE).astype(int)
        return self._labels()[np.ix_(nearest, nearest, nearest)]

    def _radiographs(self) -> np.ndarray:
        from ..projection.radiographs import simulate_radiographs

        return simulate_radiographs(self._tensor(), SIZE).numpy()

    def _materials(self) -> np.ndarray:
        from ..projection.film import simulate_materials

        return simulate_materials(self._extended, PIXELS).astype(np.float16)

    def _dense(self) -> np.ndarray:
        from ..projection.film import simulate_dense

        x, y = (np.flatnonzero((self.segmentation > 0).any(axis=others)) for others in ((1, 2), (0, 2)))
        middle = float(x[0] + x[-1]) / 2, float(y[0] + y[-1]) / 2
        return simulate_dense(self._extended, middle, SIZE // 2).astype(np.float16)

    def _tensor(self) -> Tensor:
        import torch

        return torch.as_tensor(np.ascontiguousarray(self.hu, dtype=np.float32))

    @cached_property
    def _extended(self) -> np.ndarray:
        from ..projection.film import extend_scan

        return extend_scan(np.asarray(self.hu))


def arrays_of(ct: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """What the store keeps of a CT ``(S, S, S)`` in HU and its labels, by file name."""
    chest = Chest(ct, labels)
    return {f"{name}.npy": chest.array(name) for name in Chest.arrays}


def draw_case(name: str, number: int, spread: float = 1.0) -> dict[str, Any]:
    """What case ``number`` is: person, seed, pneumothorax (side, occupancy, posture) or None, whether made to
    stand, whether with other diseases of the lung, how much it differs, from 1 to ``spread``, and which share of the
    way it goes to whose shape."""
    rng = np.random.default_rng([7, number])
    seed = int(rng.integers(2**31))
    chance, side, share, posture = rng.random(4)
    standing, diseased = (bool(chance < 0.5) for chance in rng.random(2))
    pneumothorax = None
    if chance < 0.5:
        # More small ones than large: they are the hard ones.
        occupancy = OCCUPANCY[0] + (OCCUPANCY[1] - OCCUPANCY[0]) * share**1.5
        pneumothorax = {
            "side": "right" if side < 0.5 else "left",
            "occupancy": round(float(occupancy), 4),
            "posture": "erect" if posture < 0.6 else "supine",
        }
    differs = round(1 + (spread - 1) * float(rng.random()), 4)
    person, _, towards = name.partition(AND)
    share = round(float(rng.uniform(*SHARES)), 4) if towards else 0.0
    drawn = {"person": person, "number": number, "seed": seed, "pneumothorax": pneumothorax, "standing": standing}
    return drawn | {"diseased": diseased, "spread": differs, "towards": towards, "share": share}


def _make_case(
    folder: Path,
    people: dict[str, Path],
    digests: dict[str, str],
    spatial_size: int,
    spread: float,
    job: tuple[str, int],
) -> Outcome:
    target = folder / "cases" / _name(*job)
    key = draw_case(*job, spread) | {"spatial_size": spatial_size, "arrays": ARRAYS}
    key["sources"] = {name: digests[name] for name in _people(target) if name in digests}
    record = finished_record(target / RECORD, key)
    if record is not None:
        return Outcome(record, reused=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder / f"{MAKING}{target.name}"
    scratch.mkdir()
    try:
        for name, array in arrays_of(*_make_volumes(folder, people, key)).items():
            np.save(scratch / name, array)
        files = {path.name: file_sha256(path) for path in sorted(scratch.glob("*.npy"))}
        write_json(scratch / RECORD, {**key, FILES: files})
        shutil.rmtree(target, ignore_errors=True)
        scratch.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Outcome(json.loads((target / RECORD).read_text()))


def _make_volumes(folder: Path, people: dict[str, Path], key: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    from ..anatomy.pneumothorax import Pneumothorax, insert_pneumothorax
    from ..anatomy.pseudo_patients import make_pseudo_patient
    from ..anatomy.thorax import synthesize_thorax

    drawn = key["pneumothorax"]
    if key["person"] == SYNTHETIC:
        air = drawn and Pneumothorax(drawn["side"], drawn["occupancy"])
        case = synthesize_thorax(key["seed"], key["spatial_size"], air)
        return case.ct, case.segmentation
    size = key["spatial_size"]
    person = people[key["person"]]
    ct, labels = _sized_person(key["person"], person, folder / "people", size, key["sources"][key["person"]])
    spacing = (frame.voxel_size(size),) * 3
    towards = None
    if key["towards"]:
        towards = key["share"] * _velocity_between(
            key["person"], key["towards"], people, key["sources"], folder / "people", size
        )
    ct, labels = make_pseudo_patient(
        ct, labels, spacing, key["seed"], key["standing"], key["diseased"], key["spread"], towards
    )
    if drawn:
        ct, labels = insert_pneumothorax(ct, labels, spacing, seed=key["seed"], **drawn)
    return ct, np.where(labels <= 4, labels, 0)


def _name(person: str, number: int) -> str:
    return f"{person}-{number:05d}"


def _people(case: Path) -> set[str]:
    return set(case.name[:-6].split(AND))

"""What a fifth more or less of each number of PTX-Seg does, and what each rule for pockets of air is good for.

`python scripts/benchmark.py ptxseg_numbers`; the table goes to docs/results/ptx-seg-numbers.csv.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from xrecon_bundle.anatomy.pneumothorax import Side, insert_pneumothorax
from xrecon_bundle.datasets.open_cts import fetch_open_ct
from xrecon_bundle.files import InputError, atomic_path
from xrecon_bundle.frame import AIR_HU
from xrecon_bundle.io.readers import read_ct
from xrecon_bundle.metrics import dice_score
from xrecon_bundle.segmentation import PTXSeg, judge
from xrecon_bundle.segmentation.classical import CT_HU, ClassicalSegmenter, label_free_air
from xrecon_bundle.segmentation.labels import SIDES, pleural_cavity_labels
from xrecon_bundle.segmentation.parameters import PARAMETERS, Parameters
from xrecon_bundle.segmentation.pockets import Pocket
from xrecon_bundle.workflows.segment import in_chest_axes

from . import ptxseg

STEP_MM = 2.4  # voxels of the CTs: the coarsest that are not interpolated
MARGIN_MM = 15.0  # of the body around the lungs that is kept
SEED = 1  # numbers were chosen on it: what is printed is how much hangs on them, not how good they are
COLUMNS = ("group", "number", "value", "-20 %", "+20 %", "off")
CHANGE = {"air": 0.005, "cavity": 0.005, "false": 0.1}  # smaller changes count as none: Dice, Dice, points
# What judge() never acts on: with this value a rule is off.
OFF = {
    "least_ml": 0.0,
    "least_thick_mm": 0.0,
    "least_thick_sigmas": 0.0,
    "least_wall_thick": -1.0,
    "most_bulge": (2.0, 2.0),
    "thick_mm": (math.inf, math.inf),
    "least_wall_round": math.inf,
    "least_wall": None,  # as least_wall_round: no crescent needs less wall
    "most_deep": math.inf,
    "most_reach": math.inf,
    "least_step": -math.inf,
}


class Case(NamedTuple):
    """A CT with its true labels."""

    name: str
    hu: np.ndarray
    truth: np.ndarray
    spacing: np.ndarray


class Score(NamedTuple):
    """How a label map compares with the truth: Dice of the free air (NaN: there is none), of the cavities, false air
    in points of the side's cavity."""

    air: float
    cavity: float
    false: float


def run(output: str = "docs/results/ptx-seg-numbers.csv", groups: str | Sequence[str] = (), cts: int = 2) -> None:
    """Vary every number, print what changes, and write it as a table.

    Args:
        output: CSV file.
        groups: of tissue, optics, air, pockets, cavities; default all. Of the others the file keeps what it has.
        cts: how many of the two CTs, from the first on.
    """
    known = [field.name for field in dataclasses.fields(Parameters)]
    chosen = [groups] if isinstance(groups, str) else list(groups)
    if not set(chosen) <= set(known):
        raise InputError(f"--groups {','.join(chosen)}: not all are known; give some of {','.join(known)}")
    cases = [_cropped(case) for case in islice(make_cases(), cts)]
    whole = dataclasses.replace(PARAMETERS, pockets=dataclasses.replace(PARAMETERS.pockets, least_ml=0.5))
    base = {case.name: _score(case, PARAMETERS) for case in cases}
    pockets, cavities = {}, {}
    for case in cases:
        labels, judged = ClassicalSegmenter(whole).explain(case.hu.astype(np.float32), case.spacing)
        pockets[case.name] = [one.pocket for side in judged.values() for one in side]
        cavities[case.name] = pleural_cavity_labels(labels)
    for name, score in base.items():
        print(
            f"{name}: Dice of air {score.air:.3f}, of cavity {score.cavity:.3f}, false air {score.false:.2f} %",
            flush=True,
        )
    rows = _rows_of(Path(output), [group for group in known if group not in (chosen or known)])
    for part in chosen or known:
        numbers = getattr(PARAMETERS, part)
        for field in dataclasses.fields(numbers):
            value = getattr(numbers, field.name)
            for name, fewer, more in _variants(field.name, value):
                others = [fewer, more]
                if part == "pockets" and field.name in OFF:
                    others.append(numbers.least_wall_round if OFF[field.name] is None else OFF[field.name])
                cells = [_effect(cases, base, pockets, cavities, part, field.name, other) for other in others]
                shown = _text(value if name == field.name else value[int(name[-2])])
                rows.append(dict(zip(COLUMNS, (part, name, shown, *cells, ""), strict=False)))
                print(*rows[-1].values(), sep=" | ", flush=True)
    rows.sort(key=lambda row: known.index(row["group"]))
    with atomic_path(output) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _rows_of(path: Path, groups: Sequence[str]) -> list[dict[str, str]]:
    """The rows that a table which is there has of these groups."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["group"] in groups]


def make_cases() -> Iterator[Case]:
    """Two CTs at :data:`STEP_MM`, each with free air on one side and what is none on the other."""
    lidc = ptxseg.load_lidc()
    hu, lungs, spacing = ptxseg.regrid(*lidc, STEP_MM, 0.0)
    yield _both("LIDC CT: right 10 %, left bullae to 30 mm", hu, lungs, spacing, "right", 0.1, (14, 30.0))
    angiography = in_chest_axes(read_ct(fetch_open_ct("angiography", ".cache")))
    hu, spacing = np.maximum(angiography[0], AIR_HU), angiography[1]
    hu, _, spacing = ptxseg.regrid(hu, np.zeros(hu.shape, np.uint8), spacing, STEP_MM, 0.0)
    lungs = pleural_cavity_labels(PTXSeg()(hu, spacing))  # no one has drawn them
    yield _both("CT angiography: left 20 %, right bullae to 50 mm", hu, lungs, spacing, "left", 0.2, (6, 50.0))


def _both(
    name: str,
    hu: np.ndarray,
    lungs: np.ndarray,
    spacing: np.ndarray,
    side: Side,
    occupancy: float,
    bullae: tuple[int, float],
) -> Case:
    """Free air on one side, bullae in the other lung."""
    ct, truth = insert_pneumothorax(hu, lungs, spacing, side, occupancy, seed=SEED)
    other = 3 - SIDES[side][0]
    return Case(name, ptxseg.add_bullae(ct, truth == other, spacing, *bullae), truth, spacing)


def _cropped(case: Case) -> Case:
    """The part of the CT that holds the whole body at the lungs' height."""
    body = (case.hu > PARAMETERS.tissue.lung_edge).astype(np.uint8)
    tall = ndimage.find_objects((case.truth > 0).astype(np.uint8))[0][2]
    margin = int(np.ceil(MARGIN_MM / case.spacing[2]))
    z = slice(max(0, tall.start - margin), tall.stop + margin)
    box = (*ndimage.find_objects(body[..., z])[0][:2], z)
    return Case(case.name, case.hu[box], case.truth[box], case.spacing)


def _score(case: Case, numbers: Parameters, cavities: np.ndarray | None = None) -> Score:
    """What is found with these numbers; where they change nothing of the cavities (1, 2), in those given."""
    hu = case.hu.astype(np.float32)
    if cavities is None:
        found = ClassicalSegmenter(numbers)(hu, case.spacing)
    else:
        found = label_free_air(np.clip(hu, *CT_HU), cavities, case.spacing, numbers)[0]
    both = pleural_cavity_labels(found), pleural_cavity_labels(case.truth)
    airs, falses = [], [0.0]
    for side, (_, air) in SIDES.items():
        true = case.truth == air
        if true.any():
            airs.append(dice_score(found == air, true))
        else:
            falses.append(100.0 * ptxseg.share_of_air(found, side))
    return Score(
        airs[0] if airs else math.nan,
        min(dice_score(both[0] == side, both[1] == side) for side in (1, 2)),
        max(falses),
    )


def _variants(name: str, value: Any) -> Iterable[tuple[str, Any, Any]]:
    """Name, and the value with a fifth less and more of it; each part of a pair by itself, thresholds together."""
    if not isinstance(value, tuple):
        yield name, _scaled(value, 0.8), _scaled(value, 1.2)
    elif len(value) > 2:
        yield name, *(tuple(_scaled(part, factor) for part in value) for factor in (0.8, 1.2))
    else:
        for index in range(2):
            changed = [list(value), list(value)]
            changed[0][index], changed[1][index] = _scaled(value[index], 0.8), _scaled(value[index], 1.2)
            yield f"{name}[{index}]", *map(tuple, changed)


def _scaled(value: float, factor: float) -> float:
    return round(value * factor) if isinstance(value, int) else value * factor


def _effect(
    cases: list[Case],
    base: dict[str, Score],
    pockets: dict[str, list[Pocket]],
    cavities: dict[str, np.ndarray],
    group: str,
    name: str,
    value: Any,
) -> str:
    """What changes with this value, in words; the worst case of each kind."""
    numbers = getattr(PARAMETERS, group)
    changed = dataclasses.replace(PARAMETERS, **{group: dataclasses.replace(numbers, **{name: value})})
    worst = {"air": 0.0, "cavity": 0.0, "false": 0.0}
    for case in tqdm(cases, desc=f"{group} {name}", leave=False):
        # A rule that judges no pocket otherwise changes nothing.
        if (
            group == "pockets"
            and name in OFF
            and not any(judge(pocket, changed.pockets).kept != judge(pocket).kept for pocket in pockets[case.name])
        ):
            continue
        try:
            score = _score(case, changed, cavities[case.name] if group in ("air", "pockets") else None)
        except (ValueError, IndexError, ZeroDivisionError) as error:
            return f"fails ({type(error).__name__})"
        for kind, before, after in zip(Score._fields, base[case.name], score, strict=True):
            if not math.isnan(before) and abs(after - before) > abs(worst[kind]):
                worst[kind] = after - before
    said = [
        f"{kind} {change:+.3f}" if kind != "false" else f"false {change:+.1f}"
        for kind, change in worst.items()
        if abs(change) >= CHANGE[kind]
    ]
    return ", ".join(said)


def _text(value: Any) -> str:
    return ", ".join(f"{part:g}" for part in value) if isinstance(value, tuple) else f"{value:g}"

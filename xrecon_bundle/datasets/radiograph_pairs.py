"""Find the radiograph pairs in a folder of patients."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pydicom

from ..files import InputError
from ..io.dicom import is_dicom
from ..io.radiograph import MODALITIES, NAMES
from ..io.radiograph_files import VIEWS
from .cases import RADIOGRAPHS
from .radiograph_study import radiograph_view
from .radiographs import list_radiographs

SUFFIXES = (".nii.gz", ".nii", ".dcm", ".png", ".jpg", ".jpeg")


class RadiographPair(NamedTuple):
    """One patient's radiographs: ``files`` are PA and lateral, or one biplanar NIfTI. ``case`` names the result."""

    case: str
    files: tuple[Path, ...]


def find_pairs(folder: str | os.PathLike) -> tuple[list[RadiographPair], dict[str, str]]:
    """The radiograph pairs below ``folder``.

    A pair is, in this order: two files called ``pa`` and ``lateral`` (DICOM, PNG, JPEG, NIfTI) in one folder, which is
    the case; a PA and a lateral DICOM radiograph of one study, by their tags, whose StudyInstanceUID is the case; or a
    biplanar NIfTI as :func:`~.radiographs.list_radiographs` finds them.

    Returns:
        the pairs, sorted by case, and what is wrong with cases that are none: reasons by case.

    Raises:
        InputError: there is no such folder, or no radiograph in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with the radiographs of many patients")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    pairs, problems = _named_pairs(folder, files)
    taken = {path.parent for pair in pairs for path in pair.files}
    rest = [path for path in files if path.parent not in taken]
    more, bad_studies = _dicom_studies([path for path in rest if is_dicom(path)])
    pairs += more
    problems |= bad_studies
    try:
        biplanar = [Path(entry["image"]) for entry in list_radiographs(folder)]
    except InputError:
        biplanar = []
    for path in biplanar:
        if path.parent not in taken:
            alone = path.name == RADIOGRAPHS and path.parent != folder
            name = path.parent if alone else path.with_name(path.name.removesuffix(".gz").removesuffix(".nii"))
            pairs.append(RadiographPair(name.relative_to(folder).as_posix(), (path,)))
    if not pairs and not problems:
        raise InputError(
            f"{folder}: no radiographs here; "
            "give folders with pa and lateral files, DICOM studies, or radiographs.nii.gz"
        )
    return sorted(pairs), problems


def _named_pairs(folder: Path, files: list[Path]) -> tuple[list[RadiographPair], dict[str, str]]:
    named: dict[Path, dict[str, Path]] = defaultdict(dict)
    for suffix in SUFFIXES:  # the first that there is
        for path in files:
            view = path.name.lower().removesuffix(suffix)
            if view in VIEWS and path.name.lower().endswith(suffix):
                named[path.parent].setdefault(view, path)
    pairs, problems = [], {}
    for parent, views in named.items():
        case = parent.relative_to(folder).as_posix() if parent != folder else folder.resolve().name
        if len(views) == 2:
            pairs.append(RadiographPair(case, tuple(views[view] for view in VIEWS)))
        elif not (parent / RADIOGRAPHS).exists():
            missing = next(view for view in VIEWS if view not in views)
            problems[case] = f"{parent}: there is no {missing} file beside the other view"
    return pairs, problems


def _dicom_studies(files: list[Path]) -> tuple[list[RadiographPair], dict[str, str]]:
    studies: dict[str, dict[str, list[Path]]] = defaultdict(lambda: {view: [] for view in VIEWS})
    seen = set()
    for path in files:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if header.get("Modality") not in MODALITIES or header.get("SOPInstanceUID") in seen:
            continue
        seen.add(header.get("SOPInstanceUID"))
        study = studies[str(header.get("StudyInstanceUID") or path.parent.name)]
        view = radiograph_view(header)
        if view is not None:
            study[view].append(path)
    pairs, problems = [], {}
    for uid, views in studies.items():
        if all(len(found) == 1 for found in views.values()):
            pairs.append(RadiographPair(uid, tuple(views[view][0] for view in VIEWS)))
            continue
        counts = " and ".join(f"{len(views[view])} {NAMES[view]}" for view in VIEWS)
        problems[uid] = f"DICOM study {uid}: {counts} radiographs by their tags; it needs one of each"
    return pairs, problems

"""Find the radiograph pairs in a folder of patients."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from ..dicom.series import is_dicom
from ..files import InputError, find_files
from ..io.radiograph_files import VIEWS
from ..io.radiograph_tags import NAMES
from .cases import RADIOGRAPHS
from .radiograph_study import Study, find_studies
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
    files, unread = find_files(folder)
    pairs, problems = _named_pairs(folder, files)
    problems |= {path.relative_to(folder).as_posix(): f"{path}: {reason}" for path, reason in unread.items()}
    taken = {path.parent for pair in pairs for path in pair.files}
    rest = [path for path in files if path.parent not in taken]
    more, bad_studies = _dicom_studies(folder, [path for path in rest if is_dicom(path)])
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
    names = _numbered([pair.case for pair in pairs])
    return sorted(pair._replace(case=name) for pair, name in zip(pairs, names, strict=True)), problems


def _numbered(names: list[str]) -> list[str]:
    """The same names, told apart by numbers where one comes again: no result overwrites another."""
    counts: Counter[str] = Counter()
    result = []
    for name in names:
        counts[name] += 1
        result.append(name if counts[name] == 1 else f"{name}-{counts[name]}")
    return result


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


def _dicom_studies(folder: Path, files: list[Path]) -> tuple[list[RadiographPair], dict[str, str]]:
    damaged: dict[Path, str] = {}
    studies = find_studies(files, damaged)
    problems = {
        path.relative_to(folder).as_posix(): f"{path}: the DICOM header is damaged ({reason}); export it again"
        for path, reason in damaged.items()
    }
    pairs = []
    for case, study in zip(_study_names(folder, studies), studies, strict=True):
        if all(len(found) == 1 for found in study.views.values()):
            pairs.append(RadiographPair(case, tuple(study.views[view][0].path for view in VIEWS)))
            continue
        counts = " and ".join(f"{len(study.views[view])} {NAMES[view]}" for view in VIEWS)
        problems[case] = f"DICOM study {case}: {counts} radiographs by their tags; it needs one of each"
    return pairs, problems


def _study_names(folder: Path, studies: list[Study]) -> list[str]:
    """A name for each study that can be a folder: its UID, else the folder of its files.

    What is no UID (it comes from a file, and could be ``../..``) is not used.
    """
    uids = Counter(study.uid for study in studies)
    names = []
    for study in studies:
        place = Path(os.path.commonpath([path.parent for path in study.files])).relative_to(folder).as_posix()
        unique = uids[study.uid] == 1 and re.fullmatch(r"[0-9]+(\.[0-9]+)*", study.uid)
        names.append(study.uid if unique else place if place != "." else folder.resolve().name)
    return _numbered(names)

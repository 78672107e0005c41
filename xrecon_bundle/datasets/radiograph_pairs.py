"""The one finder of radiograph pairs: in a folder of patients, of biplanar files, or of one DICOM study."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from ..dicom.series import is_dicom
from ..files import InputError, find_files, load_nifti
from ..io.radiograph_files import VIEWS
from ..io.radiograph_tags import NAMES
from ..io.readers import dicom_files
from .cases import RADIOGRAPHS
from .radiograph_study import Study, find_studies, latest_pair

PICTURES = (".png", ".jpg", ".jpeg")
SUFFIXES = (".nii.gz", ".nii", ".dcm", *PICTURES)


class RadiographPair(NamedTuple):
    """One patient's radiographs: ``files`` are PA and lateral, or one biplanar NIfTI. ``case`` names the result."""

    case: str
    files: tuple[Path, ...]


def find_pairs(folder: str | os.PathLike) -> tuple[list[RadiographPair], dict[str, str]]:
    """The radiograph pairs below ``folder``.

    A pair is, in this order: two files called ``pa`` and ``lateral`` (DICOM, PNG, JPEG, NIfTI) in one folder, which is
    the case; a PA and a lateral DICOM radiograph of one study, by their tags, whose StudyInstanceUID is the case; or a
    biplanar NIfTI as :func:`list_radiographs` finds them.

    Returns:
        the pairs, sorted by case, and what is wrong with cases that are none: reasons by case. So are folders that
        are empty, or whose pictures are called something else.

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
    for path in _biplanar(files):
        if path.parent not in taken:
            alone = path.name == RADIOGRAPHS and path.parent != folder
            name = path.parent if alone else path.with_name(path.name.removesuffix(".gz").removesuffix(".nii"))
            pairs.append(RadiographPair(name.relative_to(folder).as_posix(), (path,)))
    if not pairs and not problems:
        raise InputError(
            f"{folder}: no radiographs here; "
            "give folders with pa and lateral files, DICOM studies, or radiographs.nii.gz"
        )
    problems |= _passed_over(folder, files, {path.parent for pair in pairs for path in pair.files}, problems)
    names = _numbered([pair.case for pair in pairs])
    return sorted(pair._replace(case=name) for pair, name in zip(pairs, names, strict=True)), problems


def list_radiographs(folder: str | Path) -> list[dict[str, str]]:
    """Biplanar images ``(U, V, 2)`` below ``folder``, sorted, as ``{"image": path}``.

    Files called ``radiographs.nii.gz`` (what ``xrecon prepare`` and ``xrecon simulate`` write), else every NIfTI file
    whose last axis holds two views.

    Raises:
        InputError: there are none.
    """
    folder = Path(folder)
    found = _biplanar(find_files(folder)[0])
    if not found:
        raise InputError(
            f"{folder}: no radiograph pair (radiographs.nii.gz) in this folder; "
            "make them with `xrecon simulate` or `xrecon prepare`, or use `xrecon reconstruct` for plain X-rays"
        )
    return [{"image": str(path)} for path in found]


def choose_radiographs(folder: str | Path) -> tuple[Path, Path]:
    """The PA and the lateral chest radiograph of the one study below ``folder`` that has both.

    :func:`~.radiograph_study.radiograph_view` says which view a file is. Of repeated exposures the last is taken. Other
    modalities, other body parts, raw data (FOR PROCESSING) and damaged files are passed over.

    Raises:
        InputError: no study has both views, or several have; the message says what was found.
    """
    folder = Path(folder)
    damaged: dict[Path, str] = {}
    studies = find_studies(dicom_files(folder), damaged)
    complete = [study for study in studies if all(study.views.values())]
    if not complete:
        found = sum(len(images) for study in studies for images in study.views.values())
        also = f"; {len(damaged)} damaged files, such as {next(iter(damaged))}" if damaged else ""
        raise InputError(
            f"{folder}: no DICOM study with a PA and a left lateral chest radiograph ({found} of either view found"
            f"{also}); give both files to `xrecon reconstruct` by name if their tags do not say what they are"
        )
    if len(complete) > 1:
        raise InputError(
            f"{folder}: {len(complete)} studies with a PA and a lateral radiograph; give a folder with one study"
        )
    return latest_pair(complete[0])


def _biplanar(files: list[Path]) -> list[Path]:
    named = [path for path in files if path.name == RADIOGRAPHS]
    return named or [path for path in files if path.name.endswith((".nii", ".nii.gz")) and _is_pair(path)]


def _is_pair(path: Path) -> bool:
    try:
        shape = load_nifti(path).shape
    except Exception:  # no image; nibabel, gzip and zlib each raise their own
        return False
    return len(shape) == 3 and shape[-1] == 2


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
            problems[case] = f"{parent}: there is no {missing} file beside the other view; add it, or rename it"
    return pairs, problems


def _passed_over(folder: Path, files: list[Path], taken: set[Path], known: dict[str, str]) -> dict[str, str]:
    """Folders that someone may take for patients."""
    pictures = {path.parent for path in files if path.name.lower().endswith(PICTURES)}
    reasons = dict.fromkeys(pictures, "its pictures are not called pa and lateral; rename them")
    for there, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if not folders and not names:
            reasons[Path(there)] = "an empty folder; put the patient's pa and lateral there, or remove it"
    problems = {}
    for place, reason in sorted(reasons.items()):
        case = place.relative_to(folder).as_posix()
        if place != folder and case not in known and not any(other.is_relative_to(place) for other in taken):
            problems[case] = f"{place}: {reason}"
    return problems


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

"""Find every CT below a folder, and say which patient it belongs to."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ..dicom.series import Series, choose_series, is_dicom, scan_dicom
from ..files import InputError, find_files
from ..io.itk_header import read_header
from ..io.readers import FILE_SUFFIXES, ITK_SUFFIXES, has_suffix
from .cases import MANIFEST, is_dataset

LIDC_PATIENT = re.compile(r"LIDC-IDRI-\d{4}")
_UID = re.compile(r"^\d+(\.\d+){4,}$")


@dataclass(frozen=True)
class Source:
    """A CT to prepare. Paths are relative to the folder that was searched, with forward slashes.

    Attributes:
        name: of the case: the path made fit for a folder's name.
        patient: cases of one patient never part; see :func:`find_sources`.
        path: the file, or the folder of the DICOM series.
        files: every file with its content.
        series: SeriesInstanceUID, for DICOM; empty where the files have none.
    """

    name: str
    patient: str
    path: str
    files: tuple[str, ...]
    series: str | None = None


def find_sources(
    folder: Path, skip: Path | None = None, patient_pattern: str | None = None
) -> tuple[list[Source], list[dict[str, str]]]:
    """Every CT below ``folder``, sorted by name, and what is none: ``{"source": path, "reason": why}``.

    Volumes are taken by their suffix. DICOM files are grouped by study and patient; of each study the series that
    :func:`xrecon_bundle.dicom.series.choose_series` picks is one case, and its other CT series are listed among what is
    none, as are damaged DICOM files. Files of other kinds are passed over. Links are followed, see
    :func:`xrecon_bundle.files.find_files`; what cannot be read is listed. What ``prepare`` made, a folder with its
    manifest, is passed over.

    The patient is, in this order: what ``patient_pattern`` finds in the path (its first group, if it has one), the
    LIDC-IDRI number in the path, a hash of DICOM's PatientID (the identifier itself is not written anywhere), the first
    folder below what all sources have in common, the file's name.

    Args:
        folder: where to look, sub-folders included; hidden ones are passed over.
        skip: a folder to pass over (the output).
        patient_pattern: regular expression.

    Raises:
        InputError: the folder is missing or holds no CT file at all, or the pattern is none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder that holds your CTs")
    try:
        re.compile(patient_pattern or "")
    except re.error as error:
        raise InputError(f"{patient_pattern}: the patient pattern is no regular expression ({error})") from error
    files, problems = find_files(folder, skip)
    made = {
        path.parent for path in files if path.name == MANIFEST and is_dataset(path.parent)
    }  # the same patients again
    files = [path for path in files if made.isdisjoint(path.parents)]
    sources, dicom = [], []
    for path in files:
        if has_suffix(path, FILE_SUFFIXES):
            sources.append(Source("", "", _relative(path, folder), _volume_files(path, folder)))
        elif is_dicom(path):
            dicom.append(path)
    damaged: dict[Path, str] = {}
    studies = _studies(scan_dicom(dicom, damaged))
    problems |= {path: f"a damaged DICOM file ({reason}); copy it again" for path, reason in damaged.items()}
    excluded = [{"source": _relative(path, folder), "reason": reason} for path, reason in problems.items()]
    patient_ids = {}
    for series in studies:
        try:
            chosen = choose_series(series)
        except InputError as error:
            excluded.append({"source": _common_folder(series, folder), "reason": str(error)})
            continue
        images = tuple(_relative(path, folder) for path in chosen.files())
        sources.append(Source("", "", _common_folder([chosen], folder), images, chosen.uid))
        patient_ids[sources[-1]] = chosen.patient
        for other in series:
            if other is not chosen and other.modality == "CT":
                reason = f"CT series {other.name()}: of its study {chosen.name()} is taken"
                excluded.append({"source": _common_folder([other], folder), "reason": reason})
    if not sources and not excluded:
        raise InputError(f"{folder}: no CT in this folder; give DICOM files or {', '.join(FILE_SUFFIXES)}")
    common = os.path.commonpath([str(PurePosixPath(source.files[0]).parent) for source in sources] or ["."])
    sources = [
        replace(source, patient=_patient(source, patient_ids.get(source, ""), common, patient_pattern))
        for source in sources
    ]
    return sorted(_named(sources, folder), key=lambda source: source.name), sorted(
        excluded, key=lambda item: item["source"]
    )


def _studies(found: Iterable[Series]) -> list[list[Series]]:
    """Series by study and patient. Without a study: by patient and folder; without a patient, by the study's one."""
    found = list(found)
    patients = defaultdict(set)
    for series in found:
        patients[series.study].add(series.patient)
    studies = defaultdict(list)
    for series in found:
        named = patients[series.study] - {""}
        patient = series.patient or (next(iter(named)) if series.study and len(named) == 1 else "")
        place = "" if series.study else os.path.commonpath([path.parent for path in series.files()])
        studies[series.study, patient, place].append(series)
    return list(studies.values())


def _volume_files(path: Path, folder: Path) -> tuple[str, ...]:
    """The file itself and those with its voxels, where its header names some."""
    voxels: tuple[Path, ...] = ()
    if has_suffix(path, ITK_SUFFIXES):
        with suppress(InputError):  # read_ct will say it
            voxels = read_header(path).voxel_files
    return tuple(_relative(file, folder) for file in [path, *voxels] if file == path or file.is_file())


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _common_folder(series: Iterable[Series], folder: Path) -> str:
    files = [path for item in series for path in item.files()]
    return _relative(Path(os.path.commonpath([path.parent for path in files])), folder) if files else "."


def _patient(source: Source, patient_id: str, common: str, pattern: str | None) -> str:
    if pattern:
        found = re.search(pattern, source.files[0])
        if not found:
            raise InputError(
                f"{source.files[0]}: the patient pattern {pattern!r} finds nothing in this path; correct it"
            )
        return found[1] if found.groups() else found[0]
    if found := LIDC_PATIENT.search(source.files[0]) or LIDC_PATIENT.fullmatch(patient_id):
        return found[0]
    if patient_id:
        return "id-" + hashlib.sha256(patient_id.encode()).hexdigest()[:12]
    parts = PurePosixPath(os.path.relpath(source.path, common)).parts
    return parts[0] if len(parts) > 1 else _without_suffix(source.path)


def _named(sources: list[Source], folder: Path) -> list[Source]:
    names = {source: _slug(source, folder) for source in sources}
    taken, keys = Counter(names.values()), Counter((source.path, source.series) for source in sources)
    result = []
    for source, name in names.items():
        if taken[name] > 1:
            key = f"{source.path}/{source.series}"
            if keys[source.path, source.series] > 1:  # two patients with one UID in one folder
                key += f"/{source.files[0]}"
            name = f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        result.append(replace(source, name=name))
    return result


def _slug(source: Source, folder: Path) -> str:
    path = source.path if source.series is not None else _without_suffix(source.path)
    parts = [part for part in PurePosixPath(path).parts if not _UID.match(part)] or [folder.resolve().name]
    slug = re.sub(r"[^\w.-]+", "_", "_".join(parts)).strip("._")
    return slug.encode()[:100].decode(errors="ignore") or "case"  # bytes: a file system counts them


def _without_suffix(path: str) -> str:
    for suffix in sorted(FILE_SUFFIXES, key=len, reverse=True):
        if path.lower().endswith(suffix):
            return path[: -len(suffix)]
    return path

"""CTs in, dataset folder out: one case for ``xrecon simulate``, a folder of them for ``xrecon prepare``."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np

from .. import __version__, frame
from ..files import InputError, check_writable, file_sha256, write_json
from ..fingerprint import code_fingerprint
from ..io.hdf5 import HDF5_SUFFIXES, read_hdf5
from ..io.readers import has_suffix, named, read_ct, read_dicom
from ..placement.standardize import resize_cube, standardize_ct
from ..volume import CTVolume
from .cases import CT, FRACTIONS, MANIFEST, SOURCE, SPLITS, split_cases, write_case
from .sources import Source, find_sources
from .store import Outcome, make_or_reuse, run_cases

# What a case is made by: where this code has changed, finished cases are made again.
ROOMS = ("frame", "files", "volume", "io", "dicom", "placement", "projection", "datasets")


@dataclass(frozen=True)
class Summary:
    """What :func:`prepare` did: cases made now, cases found finished, CTs excluded, cases in each split.

    ``warnings``: by case, what was left out of its CT or put right that can matter.
    """

    prepared: int
    reused: int
    excluded: int
    splits: dict[str, int]
    manifest: Path
    warnings: dict[str, list[str]]


def prepare(
    ct_folder: str | os.PathLike,
    output_dir: str | os.PathLike,
    spatial_size: int = 224,
    workers: int = 2,
    seed: int = 0,
    cluster: str | None = None,
    fractions: tuple[float, float, float] = FRACTIONS,
    patient_pattern: str | None = None,
) -> Summary:
    """Make a dataset folder of every CT below ``ct_folder``.

    A CT that cannot be used is listed in ``manifest.json`` with the reason, and the work goes on. Run again after an
    interruption, it keeps the cases whose source, settings and files have not changed (by SHA-256). The files do not
    depend on the number of workers, their order, or interruptions.

    Args:
        ct_folder: see :func:`xrecon_bundle.datasets.sources.find_sources`.
        output_dir: the dataset folder, see :mod:`xrecon_bundle.datasets.cases`.
        spatial_size: edge of the volumes in voxels and of the radiographs in pixels.
        workers: processes at a time; at 224 each takes about 1 GB. 1: in this process.
        seed: of the split, see :func:`xrecon_bundle.datasets.cases.split_cases`.
        cluster: address of a Dask scheduler (``tcp://host:port``) whose workers see both folders under the same paths;
            takes the place of ``workers``.
        fractions: of train, validation and test.
        patient_pattern: regular expression that finds the patient in a CT's path, see
            :func:`xrecon_bundle.datasets.sources.find_sources`.

    Raises:
        InputError: no CT below the folder, none of them usable, ``output_dir`` is that folder or cannot be written
            to, the cluster cannot be reached, or a worker was killed.
    """
    check_size(spatial_size)
    root, output = Path(ct_folder).resolve(), Path(output_dir).resolve()
    if output == root:
        raise InputError(f"{root}: the dataset would lie among the CTs; give another --output_dir")
    check_writable(output / MANIFEST)
    sources, excluded = find_sources(root, output, patient_pattern)
    for leftover in output.glob(".*.partial"):
        shutil.rmtree(leftover)
    make = partial(_prepare_one, root=root, output=output, spatial_size=spatial_size)
    outcomes = run_cases(make, sources, "prepare", workers, cluster)

    reused = 0
    cases: list[dict[str, Any]] = []
    reasons = _reasons(sources, outcomes)
    for source, outcome, reason in zip(sources, outcomes, reasons, strict=True):
        if reason is not None:
            reason = reason.removeprefix(f"{root / source.path}: ").replace(f"{root}/", "")
            excluded.append({"source": source.path, "reason": reason})
            _remove_case(output / source.name)
            continue
        reused += outcome.reused
        cases.append({"case": source.name, **outcome.finished})
    splits = split_cases((case["patient"] for case in cases), seed, fractions)
    cases = [{"case": case["case"], "split": splits[case["patient"]], **case} for case in cases]
    settings = {**_settings(spatial_size), "seed": seed, "fractions": list(fractions)}
    content = {"made_by": f"xrecon prepare {__version__}", "settings": settings, "cases": cases, "exclusions": excluded}
    write_json(output / MANIFEST, content)
    if not cases:
        first = "; ".join(f"{item['source']}: {item['reason']}" for item in excluded[:3])
        raise InputError(f"{root}: none of {len(excluded)} CTs can be used, see {output / MANIFEST} ({first})")
    counts = Counter(case["split"] for case in cases)
    return Summary(
        len(cases) - reused,
        reused,
        len(excluded),
        {name: counts[name] for name in SPLITS},
        output / MANIFEST,
        {case["case"]: case["warnings"] for case in cases if case.get("warnings")},
    )


def _reasons(sources: Iterable[Source], outcomes: Iterable[Outcome]) -> Iterator[str | None]:
    """Why each source is excluded, None where it is not. Of one CT in two places or formats the first is kept."""
    seen: dict[str, str] = {}
    for source, outcome in zip(sources, outcomes, strict=True):
        if outcome.reason is not None:
            yield outcome.reason
            continue
        content = outcome.finished["files"][CT]
        yield f"the same CT as {seen[content]}" if content in seen else None
        seen.setdefault(content, source.path)


def _prepare_one(source: Source, root: Path, output: Path, spatial_size: int) -> Outcome:
    folder = output / source.name
    key = {
        "source": source.path,
        "series": source.series,
        "patient": source.patient,
        "sha256": hashlib.sha256("".join(file_sha256(root / file) for file in source.files).encode()).hexdigest(),
        "settings": _settings(spatial_size),
    }
    return make_or_reuse(folder / SOURCE, key, partial(_make, source, root, folder, spatial_size, key))


def _make(source: Source, root: Path, folder: Path, spatial_size: int, key: dict[str, Any]) -> None:
    files = [root / file for file in source.files]
    read = partial(read_dicom, files) if source.series is not None else partial(read_ct, root / source.path)
    made = standard_case(root / source.path, spatial_size, read)
    write_case(folder, made.ct, made.affine, radiographs=made.radiographs, source={**made.found, **key})


class StandardCase(NamedTuple):
    """A CT file in the chest frame: ``ct`` int16 HU ``(S, S, S)`` and its ``affine``.

    ``found`` is what is known of the file (format, geometry, where the cube stands); ``radiographs`` ``(2, S, S)`` are
    the file's own, if it has some.
    """

    ct: np.ndarray
    affine: np.ndarray
    found: dict[str, Any]
    radiographs: np.ndarray | None = None


def standard_case(path: Path, spatial_size: int, read: Callable[[], CTVolume]) -> StandardCase:
    """Bring the CT at ``path`` into the chest frame. The published HDF5 is there already and only changes its size.

    Args:
        path: the file, or the folder of a DICOM series.
        spatial_size: edge of the volume in voxels and of the radiographs in pixels.
        read: reads it, if it is no HDF5.

    Raises:
        InputError: it cannot be used; the message names ``path``.
    """
    radiographs = None
    if path.is_file() and has_suffix(path, HDF5_SUFFIXES):
        from skimage.transform import resize

        published = read_hdf5(path)
        standard = resize_cube(published.ct, published.affine, spatial_size)
        radiographs = resize(published.radiographs, (2, spatial_size, spatial_size), anti_aliasing=True)
        found = {"format": "HDF5", **_geometry(published.ct.shape, published.affine)}
    else:
        with named(path):
            volume = read()
            standard = standardize_ct(volume.hu, volume.affine, spatial_size)
        found = {**volume.source, **_geometry(volume.hu.shape, volume.affine)}
    centre = frame.grid_centre(standard.affine, standard.ct.shape)
    found["centre_mm"] = np.round(centre, 3).tolist()
    return StandardCase(standard.ct, standard.affine, found, radiographs)


def _geometry(shape: tuple[int, ...], affine: np.ndarray) -> dict[str, Any]:
    return {
        "shape": list(shape),
        "spacing_mm": np.round(np.linalg.norm(affine[:3, :3], axis=0), 4).tolist(),
        "axes": "".join(nibabel.aff2axcodes(affine)),
    }


def _settings(spatial_size: int) -> dict[str, Any]:
    return {"code": code_fingerprint(*ROOMS), "spatial_size": spatial_size, "edge_mm": frame.EDGE_MM}


def _remove_case(folder: Path) -> None:
    """Remove a case of an earlier run whose source cannot be used any more; never a folder that we did not make."""
    if (folder / SOURCE).exists():
        shutil.rmtree(folder)


def check_size(spatial_size: int) -> None:
    """Raise :class:`InputError` unless volumes of this edge in voxels can be made."""
    if not isinstance(spatial_size, int) or not 16 <= spatial_size <= 512:
        raise InputError(f"spatial_size is the edge in voxels, a whole number from 16 to 512, not {spatial_size!r}")

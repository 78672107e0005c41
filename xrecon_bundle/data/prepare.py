"""CTs in, dataset folder out: one case for ``xrecon simulate``, a folder of them for ``xrecon prepare``."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from skimage.transform import resize
from tqdm import tqdm

from .. import __version__, frame
from ..files import InputError, check_writable, write_json
from ..transforms.ct import StandardizedCT, resize_cube, standardize_ct
from .cases import CT, FRACTIONS, MANIFEST, SOURCE, SPLITS, file_sha256, split_cases, write_case
from .hdf5 import HDF5_SUFFIXES, read_hdf5
from .readers import has_suffix, named, read_ct, read_dicom
from .sources import Source, find_sources

RECIPE = 1  # raise it when the same CT would give other files; finished cases are then made again


@dataclass(frozen=True)
class Summary:
    """What :func:`prepare` did: cases made now, cases found finished, CTs excluded, cases in each split."""

    prepared: int
    reused: int
    excluded: int
    splits: dict[str, int]
    manifest: Path


def simulate_case(
    ct_path: str | os.PathLike, output_dir: str | os.PathLike, spatial_size: int = 224, series: str | None = None
) -> StandardizedCT:
    """Standardise one CT and write it with its two simulated radiographs into ``output_dir``.

    The published HDF5 is in the chest frame and only changes its size, as in :func:`prepare`.

    Args:
        ct_path: see :func:`xrecon_bundle.data.readers.read_ct`.
        output_dir: see :func:`xrecon_bundle.data.cases.write_case`.
        spatial_size: edge of the volume in voxels and of the radiographs in pixels.
        series: SeriesInstanceUID, where a DICOM folder has several.

    Raises:
        InputError: the CT cannot be used, or nothing can be written there. Nothing is written then.
    """
    _check_size(spatial_size)
    check_writable(output_dir, folder=True)
    ct_path = Path(ct_path)
    if ct_path.is_file() and has_suffix(ct_path, HDF5_SUFFIXES):  # in the chest frame, as for prepare
        published = read_hdf5(ct_path)
        standard = resize_cube(published.ct, published.affine, spatial_size)
    else:
        volume = read_ct(ct_path, series)
        with named(ct_path):
            standard = standardize_ct(volume.hu, volume.affine, spatial_size)
    write_case(output_dir, standard.ct, standard.affine)
    return standard


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
        ct_folder: see :func:`xrecon_bundle.data.sources.find_sources`.
        output_dir: the dataset folder, see :mod:`xrecon_bundle.data.cases`.
        spatial_size: edge of the volumes in voxels and of the radiographs in pixels.
        workers: processes at a time; at 224 each takes about 1 GB. 1: in this process.
        seed: of the split, see :func:`xrecon_bundle.data.cases.split_cases`.
        cluster: address of a Dask scheduler (``tcp://host:port``) whose workers see both folders under the same paths;
            takes the place of ``workers``.
        fractions: of train, validation and test.
        patient_pattern: regular expression that finds the patient in a CT's path, see
            :func:`xrecon_bundle.data.sources.find_sources`.

    Raises:
        InputError: no CT below the folder, none of them usable, the cluster cannot be reached, or a worker was killed.
    """
    _check_size(spatial_size)
    root, output = Path(ct_folder).resolve(), Path(output_dir).resolve()
    check_writable(output / MANIFEST)
    sources, excluded = find_sources(root, output, patient_pattern)
    for leftover in output.glob(".*.partial"):
        shutil.rmtree(leftover)
    outcomes = dict(zip(sources, _run(sources, root, output, spatial_size, workers, cluster), strict=True))

    seen: dict[str, str] = {}
    cases, reused = [], 0
    for source, outcome in outcomes.items():
        reason = outcome.get("reason")
        if reason is None and outcome["record"]["files"][CT] in seen:  # a copy, or the same CT in another format
            reason = f"the same CT as {seen[outcome['record']['files'][CT]]}"
        if reason is not None:
            reason = reason.removeprefix(f"{root / source.path}: ").replace(f"{root}/", "")
            excluded.append({"source": source.path, "reason": reason})
            _remove_case(output / source.name)
            continue
        seen[outcome["record"]["files"][CT]] = source.path
        reused += outcome["reused"]
        cases.append({"case": source.name, **outcome["record"]})
    splits = split_cases((case["patient"] for case in cases), seed, fractions)
    cases = [{"case": case["case"], "split": splits[case["patient"]], **case} for case in cases]
    settings = {**_settings(spatial_size), "seed": seed, "fractions": list(fractions)}
    content = {"made_by": f"xrecon prepare {__version__}", "settings": settings, "cases": cases, "exclusions": excluded}
    write_json(output / MANIFEST, content)
    if not cases:
        reasons = "; ".join(f"{item['source']}: {item['reason']}" for item in excluded[:3])
        raise InputError(f"{root}: none of {len(excluded)} CTs can be used, see {output / MANIFEST} ({reasons})")
    counts = Counter(case["split"] for case in cases)
    return Summary(
        len(cases) - reused, reused, len(excluded), {name: counts[name] for name in SPLITS}, output / MANIFEST
    )


def _run(
    sources: list[Source], root: Path, output: Path, spatial_size: int, workers: int, cluster: str | None
) -> list[dict[str, Any]]:
    """The outcome of every source, in their order."""
    outcomes: dict[Source, dict[str, Any]] = {}
    with tqdm(total=len(sources), desc="prepare", unit="case") as progress:
        if workers == 1 and cluster is None:
            for source in sources:
                outcomes[source] = _prepare_one(source, root, output, spatial_size)
                progress.update()
        else:
            with _executor(workers, cluster) as pool:
                futures: dict[Future, Source] = {
                    pool.submit(_prepare_one, source, root, output, spatial_size): source for source in sources
                }
                try:
                    for future in as_completed(futures):
                        outcomes[futures[future]] = future.result()
                        progress.update()
                except BrokenProcessPool as error:
                    raise InputError(
                        f"{output}: a worker was killed, probably for memory; {len(outcomes)} of {len(sources)} CTs "
                        "are done and kept, run the command again with fewer workers"
                    ) from error
                finally:
                    for future in futures:
                        future.cancel()
    return [outcomes[source] for source in sources]


@contextmanager
def _executor(workers: int, cluster: str | None) -> Iterator[Executor]:
    if cluster is None:
        context = multiprocessing.get_context("spawn")  # ITK and torch have threads, which do not survive a fork
        with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
            yield pool
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("a cluster needs Dask: pip install 'xrecon-bundle[cluster]'") from error
    try:
        client = Client(cluster, timeout=10)
    except (OSError, ValueError) as error:
        raise InputError(f"{cluster}: no Dask scheduler answers ({error}); start one with `dask scheduler`") from error
    with client:
        yield client.get_executor(pure=False)


def _end_with_parent() -> None:
    """In a worker: end when the main process is killed, so that none goes on writing beside the next run."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _prepare_one(source: Source, root: Path, output: Path, spatial_size: int) -> dict[str, Any]:
    """Make one case: ``{"record": ..., "reused": ...}``, or ``{"reason": ...}`` for which it cannot be made."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _make_or_reuse(source, root, output / source.name, spatial_size)
    except InputError as error:
        return {"reason": str(error)}
    except Exception as error:  # a case must not stop the others
        return {"reason": f"unexpected {type(error).__name__}: {error}"}
    finally:
        torch.set_num_threads(threads)


def _make_or_reuse(source: Source, root: Path, folder: Path, spatial_size: int) -> dict[str, Any]:
    key = {
        "source": source.path,
        "series": source.series,
        "patient": source.patient,
        "sha256": hashlib.sha256("".join(file_sha256(root / file) for file in source.files).encode()).hexdigest(),
        "settings": _settings(spatial_size),
    }
    finished = _finished(folder, key)
    if finished is not None:
        return {"record": finished, "reused": True}
    path = root / source.path
    radiographs = None
    if has_suffix(path, HDF5_SUFFIXES):
        published = read_hdf5(path)
        standard = resize_cube(published.ct, published.affine, spatial_size)
        radiographs = resize(published.radiographs, (2, spatial_size, spatial_size), anti_aliasing=True)
        found = {"format": "HDF5", **_geometry(published.ct.shape, published.affine)}
    else:
        with named(path):
            files = [root / file for file in source.files]
            volume = read_dicom(files, source.series) if source.series else read_ct(path)
            standard = standardize_ct(volume.hu, volume.affine, spatial_size)
        found = {**volume.source, **_geometry(volume.hu.shape, volume.affine)}
    centre = frame.grid_centre(standard.affine, standard.ct.shape)
    record = {**found, **key, "centre_mm": np.round(centre, 3).tolist()}
    write_case(folder, standard.ct, standard.affine, radiographs=radiographs, source=record)
    return {"record": json.loads((folder / SOURCE).read_text()), "reused": False}


def _finished(folder: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a case that was made of the same source with the same settings and whose files are whole."""
    try:
        record = json.loads((folder / SOURCE).read_text())
        same = all(record[name] == value for name, value in key.items())
        whole = same and all(file_sha256(folder / name) == digest for name, digest in record["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if whole else None


def _geometry(shape: tuple[int, ...], affine: np.ndarray) -> dict[str, Any]:
    return {
        "shape": list(shape),
        "spacing_mm": np.round(np.linalg.norm(affine[:3, :3], axis=0), 4).tolist(),
        "axes": "".join(nibabel.aff2axcodes(affine)),
    }


def _settings(spatial_size: int) -> dict[str, Any]:
    return {"recipe": RECIPE, "spatial_size": spatial_size, "edge_mm": frame.EDGE_MM}


def _remove_case(folder: Path) -> None:
    """Remove a case of an earlier run whose source cannot be used any more; never a folder that we did not make."""
    if (folder / SOURCE).exists():
        shutil.rmtree(folder)


def _check_size(spatial_size: int) -> None:
    if not isinstance(spatial_size, int) or not 16 <= spatial_size <= 512:
        raise InputError(f"spatial_size is the edge in voxels, a whole number from 16 to 512, not {spatial_size!r}")

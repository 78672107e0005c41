"""The dataset folder: writing a case, splitting patients, listing what training and evaluation read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from .. import frame
from ..files import InputError, file_sha256, write_json, write_nifti
from ..io.radiograph_files import VIEWS, write_radiograph_nifti, write_radiograph_png
from ..projection.radiographs import simulate_radiographs

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, Split, Split] = ("train", "validation", "test")
FRACTIONS = (0.8, 0.1, 0.1)
MANIFEST = "manifest.json"
CT = "ct.nii.gz"
RADIOGRAPHS = "radiographs.nii.gz"
SEGMENTATION = "segmentation.nii.gz"
SOURCE = "source.json"


def write_case(
    folder: str | os.PathLike,
    ct: np.ndarray,
    affine: np.ndarray,
    segmentation: np.ndarray | None = None,
    radiographs: np.ndarray | None = None,
    source: dict[str, Any] | None = None,
) -> None:
    """Write one case: the CT, its two radiographs (simulated unless given), and the segmentation if known.

    All or nothing: the files are made in a folder beside and moved when all are there. Other files in ``folder`` stay.
    The same arguments give the same bytes.

    Args:
        folder: the case's folder; its name is the case's name.
        ct: ``(S, S, S)`` in HU, LPI; written as int16.
        affine: ``(4, 4)`` RAS+ mm, see :func:`xrecon_bundle.frame.cube_affine`.
        segmentation: label map ``(S, S, S)``, see :mod:`xrecon_bundle.segmentation.labels`; written as uint8.
        radiographs: PA and lateral, ``(2, U, U)``, bright is dense.
        source: where the case comes from; written as ``source.json`` with the SHA-256 of every file beside it.
    """
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        hu = np.rint(ct).astype(np.int16)
        write_nifti(partial / CT, hu, affine)
        pair = radiographs
        if pair is None:
            pair = simulate_radiographs(torch.from_numpy(hu.astype(np.float32))).numpy()
        centre = frame.grid_centre(affine, hu.shape)
        write_nifti(
            partial / RADIOGRAPHS,
            np.moveaxis(pair, 0, -1).astype(np.float32),
            frame.radiograph_affine(pair.shape[-1], centre),
        )
        for view, image in zip(VIEWS, pair, strict=True):
            write_radiograph_nifti(partial / f"{view}.nii.gz", image, view, centre)
            write_radiograph_png(partial / f"{view}.png", image)
        if segmentation is not None:
            write_nifti(partial / SEGMENTATION, segmentation.astype(np.uint8), affine)
        if source is not None:
            files = {path.name: file_sha256(path) for path in sorted(partial.iterdir())}
            write_json(partial / SOURCE, {**source, "files": files})
        if folder.exists():
            for name in (SEGMENTATION, SOURCE):
                (folder / name).unlink(missing_ok=True)
            for path in partial.iterdir():
                os.replace(path, folder / path.name)
        else:
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def split_cases(
    patients: Iterable[str], seed: int = 0, fractions: tuple[float, float, float] = FRACTIONS
) -> dict[str, Split]:
    """Assign each patient to train, validation or test, so that no patient is in two of them.

    Patients are ordered by a hash of seed and name, and this order is cut by ``fractions``: the order of ``patients``
    does not matter and a patient that joins later moves few others. With three patients or more no wanted split is
    empty; one alone goes to train, a second to validation.
    """
    names = sorted(set(patients), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    shares = np.asarray(fractions, dtype=float) / sum(fractions)
    counts = np.floor(shares * len(names) + 0.5).astype(int)
    counts[1:] = np.maximum(counts[1:], shares[1:] > 0)
    counts[0] = max(len(names) - counts[1:].sum(), int(shares[0] > 0))
    bounds = np.cumsum(counts)
    return {name: SPLITS[int(np.searchsorted(bounds, rank, side="right"))] for rank, name in enumerate(names)}


def list_cases(
    dataset_dir: str | os.PathLike | Sequence[str | os.PathLike], split: Split | None = None, seed: int = 0
) -> list[dict[str, str]]:
    """The cases of a dataset folder, or of several, sorted by name, as dictionaries for a MONAI dataset.

    Args:
        dataset_dir: a folder that ``xrecon prepare`` or :func:`write_case` filled, or a list of such folders.
        split: only these; None: all. ``manifest.json`` says which case is where; without it every case counts as a
            patient and :func:`split_cases` decides by ``seed``.

    Returns:
        ``{"image": radiographs, "label": CT, "case": name}`` each, paths as strings, and ``"segmentation"`` where there
        is one.

    Raises:
        InputError: no such folder, no case in it, none in this split, or no such split.
    """
    if not isinstance(dataset_dir, str | os.PathLike):
        return [case for folder in dataset_dir for case in list_cases(folder, split, seed)]
    folder = Path(dataset_dir)
    remedy = "make cases with `xrecon prepare CT_FOLDER --output_dir FOLDER`"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such dataset folder; {remedy}")
    names = sorted(path.parent.name for path in folder.glob(f"*/{RADIOGRAPHS}") if (path.parent / CT).exists())
    names = [name for name in names if not name.startswith(".")]
    if not names:
        raise InputError(f"{folder}: no case in this folder; {remedy}")
    recorded = _recorded_splits(folder / MANIFEST)
    if gone := sorted(recorded.keys() - set(names)):
        raise InputError(
            f"{folder / gone[0]}: {MANIFEST} lists this case, but its files are gone"
            f"{f', and those of {len(gone) - 1} more' if gone[1:] else ''}; {remedy}, with the same output folder"
        )
    if split is not None:
        if split not in SPLITS:
            raise InputError(f"split {split!r}: one of {', '.join(SPLITS)}")
        splits = recorded or split_cases(names, seed)
        names = [name for name in names if splits.get(name) == split]
        if not names:
            raise InputError(f"{folder}: no {split} case among those in this folder; add CTs of more patients")
    return [_entry(folder / name) for name in names]


def is_dataset(folder: Path) -> bool:
    """Whether the manifest of a folder is one that this package wrote; other programs call their files so too."""
    try:
        return str(json.loads((folder / MANIFEST).read_text())["made_by"]).startswith("xrecon")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _entry(folder: Path) -> dict[str, str]:
    entry = {"image": str(folder / RADIOGRAPHS), "label": str(folder / CT), "case": folder.name}
    if (folder / SEGMENTATION).exists():
        entry["segmentation"] = str(folder / SEGMENTATION)
    return entry


def _recorded_splits(path: Path) -> dict[str, Split]:
    if not path.exists():
        return {}
    try:
        return {case["case"]: case["split"] for case in json.loads(path.read_text())["cases"]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a manifest ({error}); make it again with `xrecon prepare`") from error

"""Both radiographs in one file, a biplanar NIfTI: on the chest frame's detector already, so its pixels stay."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from .. import frame
from ..files import InputError, load_nifti
from ..io.radiograph_files import VIEWS
from ..io.radiograph_tags import NAMES, magnification
from .finder import Found, find_chest, look_closer
from .orientation import CERTAIN, confidence_upright, shows_chest

if TYPE_CHECKING:
    from monai.data import MetaTensor

ROWS_DIFFER = 0.12  # of the lungs' height
TWO_FILES = "; a biplanar file is taken as it is: give two files to have the views put right"


def load_biplanar(path: str | os.PathLike, spatial_size: int) -> MetaTensor:
    """A biplanar NIfTI ``(U, V, 2)``, which is on the detector already, as ``(2, S, S)`` float32 (averaged over areas).

    The affine goes with the pixels: the grid's centre stays where it was.

    Raises:
        InputError: the file cannot be read or is no pair.
    """
    views, file_affine = _read(path)
    image, affine, _ = _to_detector(views, file_affine, spatial_size)
    return meta_tensor(image, affine, path)


def place_biplanar(
    path: str | os.PathLike, spatial_size: int
) -> tuple[torch.Tensor, np.ndarray, dict[str, Any], list[str]]:
    """A biplanar NIfTI as :class:`~.radiographs.PlacedPair` has it, with the pixels of :func:`load_biplanar`.

    The affine of our own files (:func:`xrecon_bundle.frame.radiograph_affine`) says that they are on the detector. In
    any other file the chest is looked for, and a warning says where it does not lie as it should.

    Raises:
        InputError: the file cannot be read or is no pair.
    """
    views, file_affine = _read(path)
    image, affine, file_to_image = _to_detector(views, file_affine, spatial_size)
    ours = _is_frame(file_affine, views.shape)
    record: dict[str, Any] = {"exchanged": False}
    doubts: list[str] = []
    found = None if ours else _find(views, doubts)
    confidence = (1.0, 1.0) if found is None else confidence_upright(found)
    for number, view in enumerate(VIEWS):
        box = None
        if found is not None and shows_chest(found[number]):
            box = (file_to_image[:2, :2] @ found[number].box + file_to_image[:2, 2:]).round(2).tolist()
        if found is not None and confidence[number] < CERTAIN:
            doubts.append(
                f"the {NAMES[view]} view may be turned, mirrored or exchanged, or no chest (confidence that it is not: "
                f"{confidence[number]:.2f}){TWO_FILES}"
            )
        record[view] = {
            "file_to_image": file_to_image.tolist(),
            "turned": 0,
            "mirrored": False,
            "scale_from": "file" if ours else "biplanar file",
            "scale_error": None,
            "confidence": round(confidence[number], 3),
            "lungs": box,
            "file": str(path),
        }
    return image, affine, record, doubts


def meta_tensor(image: torch.Tensor, affine: np.ndarray, path: str | os.PathLike) -> MetaTensor:
    """``image`` with its affine and the name of its file."""
    from monai.data import MetaTensor  # seconds; the predictor goes without

    return MetaTensor(image, affine=torch.as_tensor(affine), meta={"filename_or_obj": str(path)})


def _read(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """``(U, V, 2)`` float32 and the file's affine."""
    try:
        image = load_nifti(path)
        views = np.asarray(image.dataobj, dtype=np.float32)
    except Exception as error:  # gzip, zlib, nibabel and NumPy each raise their own
        raise InputError(f"{path}: the NIfTI file cannot be read ({error}); write it again") from error
    if views.ndim != 3 or views.shape[-1] != 2:
        raise InputError(f"{path} has shape {views.shape}; a radiograph pair is (U, V, 2)")
    return views, image.affine


def _to_detector(
    views: np.ndarray, file_affine: np.ndarray, spatial_size: int
) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """``(2, S, S)``, its affine ``(4, 4)``, and ``(3, 3)`` from the file's pixel to its own."""
    larger = np.array([*views.shape[:2], spatial_size]) / spatial_size
    to_file = np.diag([*larger, 1.0])
    to_file[:2, 3] = (larger[:2] - 1) / 2
    pair = interpolate(torch.from_numpy(views).permute(2, 0, 1)[None], (spatial_size, spatial_size), mode="area")[0]
    return pair, file_affine @ to_file, np.linalg.inv(to_file[np.ix_([0, 1, 3], [0, 1, 3])])


def _is_frame(affine: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether the affine says that the file's views fill the chest frame's detector, as ours do."""
    edge = frame.detector_size_mm() / magnification(frame.SOURCE_TO_DETECTOR_MM)
    wanted = frame.radiograph_affine(1)[:3, :2] * edge / abs(frame.radiograph_affine(1)[0, 0])
    return bool(np.allclose(affine[:3, :2] * np.array(shape[:2]), wanted, rtol=0, atol=1e-3 * edge))


def _find(views: np.ndarray, doubts: list[str]) -> list[Found]:
    """The chest in both views."""
    found = []
    for number in range(2):
        grey = views[..., number]
        seen = find_chest(grey)
        found.append(look_closer(grey, None, seen) if shows_chest(seen) else seen)
    if all(map(shows_chest, found)):
        ends = np.array([seen.box[1] for seen in found])
        if np.abs(ends[0] - ends[1]).max() > ROWS_DIFFER * np.ptp(ends, axis=1).mean():
            doubts.append(f"the lungs are not in the same rows of the two views{TWO_FILES}")
    return found

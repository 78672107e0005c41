"""A promptable vision transformer (Segment Anything: Kirillov et al. 2023; MedSAM: Ma et al. 2024) on axial slices.

The classical result prompts it: each region in a slice gives a box and a point. What the model draws is taken where it
agrees with the prompt well enough to be the same thing; elsewhere the classical region stays.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from ..files import InputError
from ..frame import Vector
from .classical import ClassicalSegmenter
from .free_air import JudgedPocket
from .labels import REGIONS

if TYPE_CHECKING:
    from transformers import SamModel

WINDOW_HU = (-1050.0, 250.0)
# Mean and standard deviation of the RGB channels that SAM was trained with (ImageNet's).
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
LEAST_MM2 = 25.0  # smaller regions are not worth a prompt
LEAST_DICE = 0.8  # between prompt and answer


class SamSegmenter:
    """Refine the classical result slice by slice with a SAM of Hugging Face ``transformers``.

    Args:
        model: a ``transformers.SamModel``.
        device: where it runs.
    """

    def __init__(self, model: SamModel, device: str | torch.device = "cpu") -> None:
        self.model = model.eval().to(device)
        self.device = torch.device(device)
        self.classical = ClassicalSegmenter()

    @classmethod
    def from_folder(cls, weights: str | os.PathLike | None) -> SamSegmenter:
        """Load a model saved with ``save_pretrained``, facebook/sam-vit-base or MedSAM, on the GPU if there is one.

        Raises:
            InputError: transformers is not installed, or ``weights`` is no such folder.
        """
        if weights is None or not (Path(weights) / "config.json").is_file():
            found = "none given" if weights is None else f"no model in {weights}"
            raise InputError(
                f"SAM weights: {found}; give a local folder with config.json and model.safetensors (--weights), "
                "for example a copy of facebook/sam-vit-base"
            )
        try:
            from transformers import SamModel
        except ImportError as error:
            raise InputError("the segmenter 'sam' needs transformers: pip install 'xrecon-bundle[sam]'") from error
        model = SamModel.from_pretrained(weights, local_files_only=True)
        return cls(model, "cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, hu: np.ndarray, spacing: Vector) -> np.ndarray:
        """Label map as :class:`xrecon_bundle.segmentation.PTXSeg` returns it."""
        return self.explain(hu, spacing)[0]

    def explain(self, hu: np.ndarray, spacing: Vector) -> tuple[np.ndarray, dict[str, list[JudgedPocket]]]:
        """The refined label map, and the pockets that the classical result was made of."""
        labels, pockets = self.classical.explain(hu, spacing)
        for z in np.flatnonzero(labels.any(axis=(0, 1))):
            labels[..., z] = self.refine_slice(hu[..., z], labels[..., z], spacing[0] * spacing[1])
        return labels, pockets

    def refine_slice(self, hu: np.ndarray, labels: np.ndarray, pixel_mm2: float) -> np.ndarray:
        """One axial slice ``(X, Y)``: the labels after the model's answers to the prompts that ``labels`` gives."""
        regions = [label for label in REGIONS.values() if np.count_nonzero(labels == label) * pixel_mm2 > LEAST_MM2]
        if not regions:
            return labels
        masks = np.stack([labels == label for label in regions])
        logits = self._answer(hu, masks)
        refined = np.zeros_like(labels)
        best = np.zeros(hu.shape, np.float32)
        for label, mask, logit in zip(regions, masks, logits, strict=True):
            drawn = logit > 0
            same = 2 * np.count_nonzero(drawn & mask) >= LEAST_DICE * (np.count_nonzero(drawn) + np.count_nonzero(mask))
            strength = logit if same else np.where(mask, np.finfo(np.float32).max, 0)
            more = strength > best
            refined[more], best[more] = label, strength[more]
        small = (refined == 0) & (labels > 0) & ~np.isin(labels, regions)
        return np.where(small, labels, refined)

    @torch.no_grad()
    def _answer(self, hu: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Logits ``(N, X, Y)`` for the prompts from ``masks`` ``(N, X, Y)``."""
        size = self.model.config.vision_config.image_size
        scale = size / max(hu.shape)
        inner = tuple(round(edge * scale) for edge in hu.shape)
        # The picture that SAM sees: rows and columns (y, x), longest side resized to its size, zero to the lower right.
        low, high = WINDOW_HU
        picture = ((torch.from_numpy(np.ascontiguousarray(hu.T)).float() - low) / (high - low)).clamp(0, 1)
        picture = F.interpolate(picture[None, None], inner[::-1], mode="bilinear", antialias=True).expand(1, 3, -1, -1)
        picture = F.pad((picture - MEAN) / DEVIATION, (0, size - inner[0], 0, size - inner[1]))
        boxes, points = zip(*[_prompt(mask) for mask in masks], strict=True)
        outcome = self.model(
            pixel_values=picture.to(self.device),
            input_boxes=scale * torch.tensor(np.array(boxes), dtype=torch.float32, device=self.device)[None],
            input_points=scale * torch.tensor(np.array(points), dtype=torch.float32, device=self.device)[None, :, None],
            input_labels=torch.ones(1, len(masks), 1, dtype=torch.long, device=self.device),
            multimask_output=False,
        )
        logits = F.interpolate(outcome.pred_masks[0], (size, size), mode="bilinear")[..., : inner[1], : inner[0]]
        logits = F.interpolate(logits, hu.shape[::-1], mode="bilinear")[:, 0]
        return logits.transpose(1, 2).cpu().numpy()


def _prompt(mask: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Box ``(x0, y0, x1, y1)`` around a mask ``(X, Y)`` and its innermost point ``(x, y)``, in pixels."""
    columns, rows = ndimage.find_objects(mask.astype(np.uint8))[0]
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    point = np.unravel_index(np.argmax(depth), mask.shape)
    return (columns.start, rows.start, columns.stop, rows.stop), tuple(value + 0.5 for value in point)

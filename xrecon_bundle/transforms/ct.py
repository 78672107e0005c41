"""Chest CTs brought into the chest frame, as MONAI dictionary transforms."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..placement.standardize import standardize_ct


class StandardizeChestCTd(MapTransform):
    """:func:`standardize_ct` on dictionaries of MetaTensors ``(1, I, J, K)``, as ``LoadImaged`` gives them.

    The CT becomes a float32 MetaTensor ``(1, S, S, S)`` in HU with the cube's affine; the label map follows it.

    Args:
        keys: the key of the CT (one; several are standardised each by itself, without the label map).
        spatial_size: edge of the result in voxels.
        label_key: key of an integer label map on the CT's grid.
        allow_missing_keys: go on where a key is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spatial_size: int = 224,
        label_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if label_key is not None and len(self.keys) != 1:
            raise ValueError("a label map belongs to one CT: give one key")
        self.spatial_size = spatial_size
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """Standardise every key."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            follows = self.label_key in result or (self.label_key is not None and not self.allow_missing_keys)
            labels = np.asarray(result[self.label_key])[0] if follows else None
            standard = standardize_ct(np.asarray(image)[0], np.asarray(image.affine), self.spatial_size, labels)
            result[key] = _meta_tensor(standard.ct.astype(np.float32), standard.affine, image)
            if standard.labels is not None:
                result[self.label_key] = _meta_tensor(standard.labels, standard.affine, result[self.label_key])
        return result


def _meta_tensor(array: np.ndarray, affine: np.ndarray, source: torch.Tensor) -> MetaTensor:
    """``array`` as ``(1, ...)`` with ``affine``; of the source's meta data only where it came from still holds."""
    origin = {key: value for key, value in getattr(source, "meta", {}).items() if key == "filename_or_obj"}
    return MetaTensor(torch.from_numpy(array)[None], affine=torch.as_tensor(affine), meta=origin)

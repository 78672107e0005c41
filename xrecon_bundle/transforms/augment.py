"""Vary a CT as patients and scans vary, before its radiographs are simulated, so that both stay true to each other."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

from .. import frame

# Where the HU curve is bent, and by how much (standard deviation) at strength 1: air stays what it is, lungs differ by
# breath, age and smoking, fat little, soft tissue by contrast agent and tube voltage, bone most.
KNOTS_HU = (-1024.0, -960.0, -860.0, -700.0, -100.0, 40.0, 300.0, 1500.0)
SIGMA_HU = (0.0, 8.0, 30.0, 40.0, 12.0, 10.0, 40.0, 150.0)


class RandTissueDensityd(RandomizableTransform, MapTransform):
    """Bend the Hounsfield scale: a random increasing curve, piecewise linear between :data:`KNOTS_HU`.

    Args:
        keys: CTs in HU, any shape.
        prob: how often.
        strength: factor of the standard deviations :data:`SIGMA_HU`.
    """

    def __init__(
        self, keys: KeysCollection, prob: float = 0.5, strength: float = 1.0, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.strength = strength
        self.curve = np.array(KNOTS_HU)

    def randomize(self, data: object = None) -> None:
        """Draw the curve; neighbouring knots keep at least a third of their distance, so that tissues stay in order."""
        super().randomize(None)
        knots = np.array(KNOTS_HU)
        curve = knots + self.strength * self.R.normal(size=knots.size) * SIGMA_HU
        for left, distance in enumerate(np.diff(knots)):
            curve[left + 1] = max(curve[left + 1], curve[left] + distance / 3)
        self.curve = curve

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """One curve for all keys."""
        self.randomize()
        result = dict(data)
        if self._do_transform:
            for key in self.key_iterator(data):
                hu = data[key]
                bent = np.interp(np.asarray(hu), KNOTS_HU, self.curve)
                result[key] = hu * 0 + torch.as_tensor(bent, dtype=hu.dtype)  # keeps a MetaTensor's affine
        return result


class RandScanRanged(RandomizableTransform, MapTransform):
    """End the scan somewhere above the lungs' bases or below their apices: beyond is air, as scans end at any height.

    Args:
        keys: CTs in HU, ``(1, S, S, S)`` in the chest frame.
        prob: how often.
        top_mm: largest distance that is lost at the head's end of the cube.
        bottom_mm: and at the feet's end.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        top_mm: float = 40.0,
        bottom_mm: float = 50.0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.most_mm = np.array([top_mm, bottom_mm])
        self.lost_mm: Sequence[float] = (0.0, 0.0)

    def randomize(self, data: object = None) -> None:
        """Draw how much is lost at either end."""
        super().randomize(None)
        self.lost_mm = self.R.random_sample(2) * self.most_mm

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """The same range for all keys."""
        self.randomize()
        result = dict(data)
        if self._do_transform:
            for key in self.key_iterator(data):
                hu = data[key].clone()
                top, bottom = (round(lost / frame.voxel_size(hu.shape[-1])) for lost in self.lost_mm)
                hu[..., :top] = frame.AIR_HU
                hu[..., hu.shape[-1] - bottom :] = frame.AIR_HU
                result[key] = hu
        return result

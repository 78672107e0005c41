"""Put a pneumothorax into a CT, as MONAI dictionary transforms."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import nibabel
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform

from .. import frame
from ..anatomy.pneumothorax import Pneumothorax, Side, insert_pneumothorax
from ..files import InputError
from ..segmentation.cavities import pleural_cavities
from ..segmentation.labels import SIDES


class InsertPneumothoraxd(MapTransform):
    """:func:`insert_pneumothorax` on dictionaries of HU images ``(1, X, Y, Z)`` in LPI orientation.

    The label map at ``segmentation_key`` says where the lungs are and becomes the ground truth; without it the lungs
    are found by :func:`xrecon_bundle.segmentation.cavities.pleural_cavities`.

    Args:
        keys: key of the CT in HU.
        side: ``"right"`` or ``"left"``.
        occupancy: 0 to 0.9.
        segmentation_key: read if there, always written.
        seed: see :func:`insert_pneumothorax`.
        allow_missing_keys: go on where a key is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        side: Side,
        occupancy: float,
        segmentation_key: str = "segmentation",
        seed: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError("a pneumothorax is put into one CT: give one key")
        self.pneumothorax = Pneumothorax(side, occupancy)
        self.segmentation_key = segmentation_key
        self.seed = seed

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Collapse the lung.

        Raises:
            InputError: the CT is not in LPI orientation, or no lung is found on that side.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            result.update(_insert(result, key, self.segmentation_key, self.pneumothorax, self.seed))
        return result


class RandInsertPneumothoraxd(RandomizableTransform, MapTransform):
    """:class:`InsertPneumothoraxd` with a chance of ``prob``, on a random side, with an occupancy from a range.

    Where no pneumothorax is put, the data pass unchanged.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        occupancy: tuple[float, float] = (0.05, 0.9),
        segmentation_key: str = "segmentation",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        if len(self.keys) != 1:
            raise ValueError("a pneumothorax is put into one CT: give one key")
        for limit in occupancy:
            Pneumothorax("right", limit)
        self.occupancy = occupancy
        self.segmentation_key = segmentation_key

    def randomize(self, data: object = None) -> None:
        """Draw whether, where, how much, and the seed of its form."""
        super().randomize(None)
        side: Side = "right" if self.R.random() < 0.5 else "left"
        self.pneumothorax = Pneumothorax(side, self.R.uniform(*self.occupancy))
        self.seed = int(self.R.randint(2**31))

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Collapse a lung, or not. Errors as :class:`InsertPneumothoraxd`."""
        self.randomize()
        result = dict(data)
        if self._do_transform:
            for key in self.key_iterator(result):
                result.update(_insert(result, key, self.segmentation_key, self.pneumothorax, self.seed))
        return result


def _insert(
    data: Mapping[Hashable, torch.Tensor], key: Hashable, segmentation_key: str, pneumothorax: Pneumothorax, seed: int
) -> dict[Hashable, torch.Tensor]:
    image = data[key]
    affine = np.asarray(image.affine if isinstance(image, MetaTensor) else frame.cube_affine(image.shape[-1]))
    if nibabel.aff2axcodes(affine) != tuple(frame.AXCODES):
        raise InputError(
            f"the CT's axes are {''.join(nibabel.aff2axcodes(affine))}, not {frame.AXCODES}; "
            f"put Orientationd(axcodes='{frame.AXCODES}') or StandardizeChestCTd before the pneumothorax"
        )
    hu = np.asarray(image)[0]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    lungs = np.asarray(data[segmentation_key])[0] if segmentation_key in data else pleural_cavities(hu, spacing)
    if not (lungs == SIDES[pneumothorax.side][0]).any():
        raise InputError(f"no {pneumothorax.side} lung in the CT; give a chest CT, or a segmentation that shows it")
    hu, labels = insert_pneumothorax(hu, lungs, spacing, pneumothorax.side, pneumothorax.occupancy, seed)
    pair = {key: torch.from_numpy(hu)[None], segmentation_key: torch.from_numpy(labels.astype(np.uint8))[None]}
    if isinstance(image, MetaTensor):
        pair = {name: MetaTensor(value, meta=dict(image.meta)) for name, value in pair.items()}
    return pair

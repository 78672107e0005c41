"""Endless training data: every call another patient, made from nothing or from a CT."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, RandomizableTransform
from torch import Tensor

from .. import frame
from ..anatomy.patient import SyntheticThorax
from ..anatomy.pneumothorax import Pneumothorax, Side
from ..anatomy.pseudo_patients import make_pseudo_patient
from ..anatomy.thorax import synthesize_thorax
from ..files import InputError
from ..segmentation.cavities import pleural_cavities


class RandSynthesizeThoraxd(Randomizable):
    """Put a synthetic chest into the data: :func:`xrecon_bundle.anatomy.thorax.synthesize_thorax` of a random patient.

    Args:
        keys: where the CT goes, ``(1, S, S, S)`` in HU, a MetaTensor in the chest frame.
        spatial_size: S. At 64 a chest takes a third of a second of one core, at 128 it takes eight times that.
        pneumothorax_prob: chance of a pneumothorax, on either side.
        occupancy: range of its occupancy.
        segmentation_key: where the label map goes, see :mod:`xrecon_bundle.segmentation.labels`.
    """

    def __init__(
        self,
        keys: str = "label",
        spatial_size: int = 64,
        pneumothorax_prob: float = 0.5,
        occupancy: tuple[float, float] = (0.05, 0.9),
        segmentation_key: str = "segmentation",
    ) -> None:
        self.key = keys
        self.spatial_size = spatial_size
        self.pneumothorax_prob = pneumothorax_prob
        self.occupancy = occupancy
        self.segmentation_key = segmentation_key

    def randomize(self, data: object = None) -> None:
        """Draw the patient, and whether and where there is a pneumothorax."""
        self.patient = SyntheticThorax.sample(int(self.R.randint(2**31)))
        side: Side = "right" if self.R.random_sample() < 0.5 else "left"
        drawn = Pneumothorax(side, self.R.uniform(*self.occupancy))
        self.pneumothorax = drawn if self.R.random_sample() < self.pneumothorax_prob else None

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        """Add the CT and its label map; everything else is handed on."""
        self.randomize()
        case = synthesize_thorax(self.patient, self.spatial_size, self.pneumothorax)
        affine = torch.as_tensor(frame.cube_affine(self.spatial_size))
        ct = torch.as_tensor(np.asarray(case.ct, dtype=np.float32))[None]
        segmentation = torch.as_tensor(case.segmentation.astype(np.uint8))[None]
        volumes = {self.key: ct, self.segmentation_key: segmentation}
        return {**data, **{key: MetaTensor(volume, affine=affine) for key, volume in volumes.items()}}


class RandPseudoPatientd(RandomizableTransform, MapTransform):
    """Another body for the same CT: :func:`xrecon_bundle.anatomy.pseudo_patients.make_pseudo_patient` at random.

    Args:
        keys: the CT, ``(1, X, Y, Z)`` in HU, LPI.
        prob: how often.
        segmentation_key: label map that goes with the CT; where there is none, the lungs are found and it is added.
        standing: the CT's patient lay, the new one stands, as for a radiograph.
        allow_missing_keys: go on where the CT is missing.

    Raises:
        InputError: no lung is found in the CT.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        prob: float = 0.8,
        segmentation_key: str = "segmentation",
        standing: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.segmentation_key = segmentation_key
        self.standing = standing

    def randomize(self, data: object = None) -> None:
        """Draw the seed of the deformation."""
        super().randomize(None)
        self.seed = int(self.R.randint(2**31))

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Deform the CT and its label map, or hand both on."""
        self.randomize()
        result = dict(data)
        if self._do_transform:
            for key in self.key_iterator(data):
                result.update(self._deform(result, key))
        return result

    def _deform(self, data: Mapping[Hashable, Tensor], key: Hashable) -> dict[Hashable, Tensor]:
        image = data[key]
        affine = image.affine.numpy() if isinstance(image, MetaTensor) else frame.cube_affine(image.shape[-1])
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        hu = np.asarray(image)[0]
        known = self.segmentation_key in data
        labels = np.asarray(data[self.segmentation_key])[0] if known else pleural_cavities(hu, spacing)
        try:
            moved = make_pseudo_patient(hu, labels.astype(np.uint8), spacing, self.seed, self.standing)
        except ValueError as error:
            raise InputError(f"no pseudo-patient can be made: {error}; give a chest CT") from error
        volumes = zip((key, self.segmentation_key), moved, (torch.float32, torch.uint8), strict=True)
        return {
            name: MetaTensor(torch.as_tensor(volume.astype(np.float32)).to(dtype)[None], affine=torch.as_tensor(affine))
            for name, volume, dtype in volumes
        }

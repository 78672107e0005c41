"""Give a reconstructed volume its place in the patient."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey

from ..frame import reconstruction_affine


class PlaceInPatientd(MapTransform):
    """Turn a network output into a volume that stands where the radiographs say, and drop the radiographs.

    The network's output inherits the metadata of a 2D pair of images. This transform replaces it: an affine of the
    chest frame's cube around the centre that the affine of ``reference`` names (see
    :func:`xrecon_bundle.frame.radiograph_affine`) and the file name of ``reference``, so that ``SaveImaged`` names the
    output after its case. ``reference`` is then removed, with its ``_meta_dict``, since whatever saves or resizes the
    output after the image (MONAI Label does) would squash the volume to two slices.

    Args:
        keys: volumes ``(1, X, Y, Z)``.
        reference: key of the radiograph pair ``(2, U, V)`` with metadata.
    """

    def __init__(self, keys: KeysCollection, reference: str = "image") -> None:
        super().__init__(keys)
        self.reference = reference

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Return a new dictionary without ``reference``."""
        result = dict(data)
        image = result.pop(self.reference)
        result.pop(f"{self.reference}_meta_dict", None)
        meta = dict(image.meta) if isinstance(image, MetaTensor) else {}
        affine = torch.as_tensor(meta.get("affine", torch.eye(4))).numpy()
        for key in self.key_iterator(result):
            volume = torch.as_tensor(result[key])
            volume = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
            result[key] = MetaTensor(
                volume,
                affine=torch.as_tensor(reconstruction_affine(affine, image.shape[-1], volume.shape[-1])),
                meta={ImageMetaKey.FILENAME_OR_OBJ: meta.get(ImageMetaKey.FILENAME_OR_OBJ, ""), "space": "RAS"},
            )
        return result

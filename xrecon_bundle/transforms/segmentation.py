"""PTX-Seg as a MONAI dictionary transform."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from typing import cast

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Orientation

from ..frame import AXCODES, voxel_spacing
from ..segmentation.ptxseg import PTXSeg, Segmenter


class PTXSegd(MapTransform):
    """Dictionary transform: adds the label map of a CT ``(1, X, Y, Z)`` in HU under ``output_key``.

    The CT is a :class:`monai.data.MetaTensor` of any axis-aligned orientation; the label map lies on its grid.

    Args:
        keys: the CT.
        output_key: where the uint8 label map ``(1, X, Y, Z)`` goes.
        segmenter: as in :class:`PTXSeg`.
        weights: as in :class:`PTXSeg`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_key: str = "segmentation",
        segmenter: str | Segmenter = "classical",
        weights: str | os.PathLike | None = None,
    ) -> None:
        super().__init__(keys)
        self.output_key = output_key
        self.ptxseg = PTXSeg(segmenter, weights)

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """Segment ``data[key]``; everything else is handed on."""
        result = dict(data)
        for key in self.key_iterator(data):
            orient = Orientation(axcodes=AXCODES)
            ct = cast(MetaTensor, orient(result[key]))
            labels = self.ptxseg(ct[0].numpy(), voxel_spacing(ct.affine.numpy()))
            turned = MetaTensor(torch.from_numpy(labels)[None], meta=ct.meta, applied_operations=ct.applied_operations)
            result[self.output_key] = cast(MetaTensor, orient.inverse(turned))
        return result

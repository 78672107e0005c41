"""Hounsfield units and the network's units, as MONAI dictionary transforms."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from monai.transforms import MapTransform
from torch import Tensor

from ..frame import hu_to_unit, unit_to_whole_hu


class HUToUnitd(MapTransform):
    """CTs in HU, any shape, to float32 network units in [0, 1]: :func:`xrecon_bundle.frame.hu_to_unit`."""

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Scale every key."""
        return {**data, **{key: hu_to_unit(data[key].float()) for key in self.key_iterator(data)}}


class UnitToHUd(MapTransform):
    """Network units, any shape, to whole HU as files hold them: :func:`xrecon_bundle.frame.unit_to_whole_hu`."""

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Scale every key."""
        return {**data, **{key: unit_to_whole_hu(data[key].float()) for key in self.key_iterator(data)}}

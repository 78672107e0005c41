"""From a case's files to what a network is trained and judged with."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import EnsureChannelFirstd, MapTransform, Resized

from .intensity import HUToUnitd
from .load_case import LoadCased
from .radiograph import RadiographToUnitd


class CasePreprocessingd(MapTransform):
    """Load a case of a dataset folder, resize it and scale it to the network's units.

    Nothing is random, so a caching dataset keeps the result.

    Args:
        keys: ``image``, ``label``, ``segmentation``, or some of them: paths, as
            :func:`xrecon_bundle.datasets.cases.list_cases` gives them. They become MetaTensors: ``image`` ``(2, S, S)``
            in [0, 1], ``label`` ``(1, S, S, S)`` in network units, ``segmentation`` ``(1, S, S, S)``.
        spatial_size: edge S of the volumes in voxels and of the radiographs in pixels. Data of this size stay as they
            are; radiographs and CT are averaged over areas, a label map takes the nearest voxel.
        allow_missing_keys: a case may lack some of the keys.

    Raises:
        InputError: a file is missing or cannot be read.
    """

    def __init__(self, keys: KeysCollection, spatial_size: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.steps: list[MapTransform] = [LoadCased(self.keys, allow_missing_keys)]
        if "image" in self.keys:
            self.steps += [
                EnsureChannelFirstd("image", channel_dim=-1, allow_missing_keys=allow_missing_keys),  # the view is last
                Resized("image", (spatial_size,) * 2, mode="area", allow_missing_keys=allow_missing_keys),
                RadiographToUnitd("image", allow_missing_keys=allow_missing_keys),
            ]
        for key, mode in {"label": "area", "segmentation": "nearest"}.items():
            if key in self.keys:
                self.steps += [
                    EnsureChannelFirstd(key, channel_dim="no_channel", allow_missing_keys=allow_missing_keys),
                    Resized(key, (spatial_size,) * 3, mode=mode, allow_missing_keys=allow_missing_keys),
                ]
        if "label" in self.keys:
            self.steps.append(HUToUnitd("label", allow_missing_keys))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with tensors in place of paths; everything else is handed on."""
        case = dict(data)
        for step in self.steps:
            case = step(case)
        return case

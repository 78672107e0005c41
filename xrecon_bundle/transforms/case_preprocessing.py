"""From a case's files to what a network is trained and judged with."""

from __future__ import annotations

from collections.abc import Sequence

from monai.transforms import Compose, EnsureChannelFirstd, Resized

from .intensity import HUToUnitd
from .load_case import LoadCased
from .radiograph import RadiographToUnitd


def case_preprocessing(spatial_size: int, optional: Sequence[str] = ()) -> Compose:
    """Load a case of a dataset folder, resize it and scale it to the network's units.

    Args:
        spatial_size: edge S of the volumes in voxels and of the radiographs in pixels; data of this size stay as they
            are, radiographs and CT are averaged over areas, a label map takes the nearest voxel.
        optional: ``["segmentation"]`` takes the label map too, where there is one.

    Returns:
        a transform of dictionaries of paths, as :func:`xrecon_bundle.datasets.cases.list_cases` gives them. They become
        MetaTensors: ``image`` ``(2, S, S)`` in [0, 1], ``label`` ``(1, S, S, S)`` in network units, ``segmentation``
        ``(1, S, S, S)``.

    Raises:
        RuntimeError: by the transform, caused by an InputError: a file is missing or cannot be read.
    """
    volumes = ["label", *optional]
    modes = ["area", *("nearest" for _ in optional)]
    missing = bool(optional)
    return Compose(
        [
            LoadCased(["image", *volumes], allow_missing_keys=missing),
            EnsureChannelFirstd("image", channel_dim=-1),  # radiographs (U, V, 2): the last axis is the view
            EnsureChannelFirstd(volumes, channel_dim="no_channel", allow_missing_keys=missing),
            Resized("image", (spatial_size,) * 2, mode="area"),
            Resized(volumes, (spatial_size,) * 3, mode=modes, allow_missing_keys=missing),
            RadiographToUnitd("image"),
            HUToUnitd("label"),
        ]
    )

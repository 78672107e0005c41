"""Radiographs simulated and scaled, as MONAI dictionary transforms."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from monai.utils import ensure_tuple_rep
from torch import Tensor

from .. import frame
from ..frame import LOWER_PERCENTILE, UPPER_PERCENTILE, radiograph_to_unit
from ..placement.biplanar import load_biplanar
from ..projection.radiographs import detect_radiographs, simulate_radiographs


class LoadBiplanard(MapTransform):
    """Paths of biplanar NIfTIs to MetaTensors: :func:`xrecon_bundle.placement.biplanar.load_biplanar`.

    Args:
        keys: paths of images ``(U, V, 2)``; each becomes ``(2, S, S)`` float32 in the file's grey scale.
        spatial_size: S.
    """

    def __init__(self, keys: KeysCollection, spatial_size: int) -> None:
        super().__init__(keys)
        self.spatial_size = spatial_size

    def __call__(self, data: Mapping[Hashable, str]) -> dict[Hashable, str | Tensor]:
        """Load every key."""
        return {**data, **{key: load_biplanar(data[key], self.spatial_size) for key in self.key_iterator(data)}}


class RadiographToUnitd(MapTransform):
    """Dictionary form of :func:`radiograph_to_unit`."""

    def __init__(
        self,
        keys: KeysCollection = "image",
        lower: float = LOWER_PERCENTILE,
        upper: float = UPPER_PERCENTILE,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.lower = lower
        self.upper = upper

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Scale every key's image."""
        scaled = {key: radiograph_to_unit(data[key], self.lower, self.upper) for key in self.key_iterator(data)}
        return {**data, **scaled}


class SimulateRadiographsd(MapTransform):
    """The radiograph pair of a CT: :func:`simulate_radiographs`, then :func:`detect_radiographs` without noise.

    Deterministic, so a caching dataset keeps its result; :class:`RandSimulateRadiographsd` has the random effects.

    Args:
        keys: the CT, ``(1, S, S, S)`` in HU in the chest frame.
        output_key: where the pair is put, ``(2, pixels, pixels)`` in nepers, a MetaTensor with
            :func:`xrecon_bundle.frame.radiograph_affine` of where the CT stood. As many as ``keys``.
        pixels: detector pixels along each edge; default S.
        blur_mm: see :func:`detect_radiographs`.
        scatter_fraction: see :func:`detect_radiographs`.
        allow_missing_keys: do nothing for a key that is not there.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        output_key: KeysCollection = "image",
        pixels: int | None = None,
        blur_mm: float = 0.0,
        scatter_fraction: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_keys = ensure_tuple_rep(output_key, len(self.keys))
        self.pixels = pixels
        self.blur_mm = blur_mm
        self.scatter_fraction = scatter_fraction

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Add the pair of every CT."""
        result = dict(data)
        for key, output_key in self.key_iterator(data, self.output_keys):
            result[output_key] = self._simulate(data[key])
        return result

    def _simulate(
        self,
        hu: Tensor,
        poses: Tensor | None = None,
        photons: float | None = None,
        rng: np.random.RandomState | None = None,
    ) -> MetaTensor:
        volume = hu.as_tensor() if isinstance(hu, MetaTensor) else torch.as_tensor(hu)
        image = simulate_radiographs(volume, self.pixels, poses)
        if photons is not None or self.blur_mm or self.scatter_fraction:
            image = detect_radiographs(image, photons, self.blur_mm, self.scatter_fraction, rng)
        centre, meta = np.zeros(3), {}
        if isinstance(hu, MetaTensor):
            centre = frame.grid_centre(hu.affine.numpy(), volume.shape[-3:])
            meta = {"filename_or_obj": hu.meta["filename_or_obj"]} if "filename_or_obj" in hu.meta else {}
        affine = torch.as_tensor(frame.radiograph_affine(image.shape[-1], centre))
        return MetaTensor(image, affine=affine, meta=meta)


class RandSimulateRadiographsd(Randomizable, SimulateRadiographsd):
    """:class:`SimulateRadiographsd` with quantum noise and a patient who does not stand perfectly still.

    For training. Each call draws anew from ``self.R`` (``set_random_state(seed)`` makes it repeatable).

    Args:
        keys: as in :class:`SimulateRadiographsd`, and so ``output_key``, ``pixels``, ``blur_mm``, ``scatter_fraction``.
        photons: per pixel where nothing is in the beam; None: no noise.
        rotation_degrees: standard deviation of the rotation about each axis, drawn for each view on its own.
        translation_mm: standard deviation of the shift along each axis, drawn for each view on its own.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        output_key: KeysCollection = "image",
        pixels: int | None = None,
        blur_mm: float = 0.0,
        scatter_fraction: float = 0.0,
        photons: float | None = None,
        rotation_degrees: float = 0.0,
        translation_mm: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, output_key, pixels, blur_mm, scatter_fraction, allow_missing_keys)
        self.photons = photons
        self.sigma = np.repeat([rotation_degrees, translation_mm], 3)
        self.poses = torch.zeros(2, 6)

    def randomize(self, data: object = None) -> None:
        """Draw the pose of each view."""
        self.poses = torch.as_tensor(self.R.normal(size=(2, 6)) * self.sigma, dtype=torch.float32)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Add a pair of every CT; all keys share the pose."""
        result = dict(data)
        self.randomize()
        for key, output_key in self.key_iterator(data, self.output_keys):
            poses = self.poses.to(data[key].device)
            result[output_key] = self._simulate(data[key], poses, self.photons, self.R)
        return result

"""Radiographs simulated from a CT in the chest frame, and the scale in which the network sees any radiograph."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, ScaleIntensityRangePercentiles
from monai.utils import ensure_tuple_rep
from scipy.ndimage import gaussian_filter
from torch import Tensor

from .. import frame
from ..projection import ConeBeamGeometry, Projector

LOWER_PERCENTILE = 0.5
UPPER_PERCENTILE = 99.5
# Standard deviation on the detector of the Gaussian by which scatter spreads; an assumption.
SCATTER_SIGMA_MM = 40.0
# What counts as behind the patient when the scatter fraction is set: a line integral over 5 cm of water.
SHADOW_NEPERS = 1.0


def radiograph_to_unit(
    image: NdarrayOrTensor, lower: float = LOWER_PERCENTILE, upper: float = UPPER_PERCENTILE
) -> NdarrayOrTensor:
    """Scale each view ``(C, U, V)`` so that its ``lower`` and ``upper`` percentiles become 0 and 1; clipped, float32.

    For line integrals in nepers and for the grey values of real films alike (bright is dense): the result does not
    change when a view is multiplied by a positive number or shifted. A constant view becomes 0.
    """
    return ScaleIntensityRangePercentiles(lower, upper, 0.0, 1.0, clip=True, channel_wise=True)(image)


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

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Scale every key's image."""
        scaled = {key: radiograph_to_unit(data[key], self.lower, self.upper) for key in self.key_iterator(data)}
        return {**data, **scaled}


def simulate_radiographs(hu: Tensor, pixels: int | None = None, poses: Tensor | None = None) -> Tensor:
    """The PA and left lateral radiograph of a CT: line integrals of the attenuation in nepers, monoenergetic.

    Args:
        hu: ``(S, S, S)`` or ``(1, S, S, S)``, Hounsfield units, the chest frame's cube.
        pixels: detector pixels along each edge; default S.
        poses: ``(2, 6)``, how source and detector are moved for each view (degrees and mm, see
            :mod:`xrecon_bundle.projection.pose`); default: not at all.

    Returns:
        ``(2, pixels, pixels)`` float32 on ``hu``'s device: PA ``(x, z)``, left lateral ``(y, z)``; bright is dense.
        Differentiable in ``hu`` and ``poses``.

    Raises:
        ValueError: ``hu`` is not a cube, or ``poses`` is not ``(2, 6)``.
    """
    volume = hu[None] if hu.ndim == 3 else hu
    if volume.ndim != 4 or volume.shape[0] != 1 or len(set(volume.shape[1:])) != 1:
        raise ValueError(f"hu must be a cube (S, S, S) or (1, S, S, S) in the chest frame, got {tuple(hu.shape)}")
    if poses is not None and poses.shape != (2, 6):
        raise ValueError(f"poses must be (2, 6), one for each view, got {tuple(poses.shape)}")
    attenuation = frame.hu_to_attenuation(torch.as_tensor(volume, dtype=torch.float32))[None]
    pixels = pixels or volume.shape[-1]
    views = (ConeBeamGeometry.chest_pa(pixels), ConeBeamGeometry.chest_lateral(pixels))
    return torch.cat(
        [
            Projector(geometry)(attenuation, None if poses is None else poses[None, view, None])[0, 0]
            for view, geometry in enumerate(views)
        ]
    )


def detect_radiographs(
    nepers: Tensor,
    photons: float | None = None,
    blur_mm: float = 0.0,
    scatter_fraction: float = 0.0,
    rng: np.random.Generator | np.random.RandomState | None = None,
) -> Tensor:
    """What a real detector makes of ideal line integrals: scatter, quantum noise, blur, in this order.

    Scatter arises in proportion to ``L exp(-L)`` (single forward scatter, Ohnesorge et al., Eur. Radiol. 9 (1999) 563)
    and spreads as a broad Gaussian (Boone, Arnold and Seibert, Med. Phys. 13 (1986) 254). Noise is Poisson, before the
    blur, as quanta are absorbed before their light spreads.

    Args:
        nepers: ``(C, U, V)``, line integrals on the chest frame's detector.
        photons: per pixel where nothing is in the beam; None: no noise.
        blur_mm: standard deviation of the detector's blur, on the detector.
        scatter_fraction: scattered over all photons that arrive behind the patient (:data:`SHADOW_NEPERS`), in [0, 1).
        rng: NumPy's random source for the noise; None: a fresh, unseeded one.

    Returns:
        ``-log(intensity)``, like ``nepers``; below 0 where scatter or noise exceed the open beam. A pixel has at least
        one photon.

    Raises:
        ValueError: ``photons`` is not positive, ``blur_mm`` is negative or ``scatter_fraction`` is outside [0, 1).
    """
    if (photons is not None and not photons > 0) or blur_mm < 0 or not 0 <= scatter_fraction < 1:
        raise ValueError(
            "photons must be positive, blur_mm at least 0 and scatter_fraction in [0, 1), "
            f"got {photons}, {blur_mm} and {scatter_fraction}"
        )
    pixel_mm = frame.detector_size_mm() / nepers.shape[-1]
    ideal = nepers.detach().cpu().numpy().astype(np.float64)
    intensity = np.exp(-ideal)
    shadow = ideal > SHADOW_NEPERS
    if scatter_fraction > 0 and shadow.any():
        scatter = gaussian_filter(ideal * intensity, SCATTER_SIGMA_MM / pixel_mm, mode="nearest", axes=(-2, -1))
        wanted = intensity[shadow].sum() * scatter_fraction / (1 - scatter_fraction)
        intensity = intensity + scatter * wanted / scatter[shadow].sum()
    if photons is not None:
        intensity = (rng or np.random.default_rng()).poisson(intensity * photons) / photons
    if blur_mm > 0:
        intensity = gaussian_filter(intensity, blur_mm / pixel_mm, mode="nearest", axes=(-2, -1))
    if photons is not None:
        intensity = np.maximum(intensity, 1 / photons)
    return torch.as_tensor(-np.log(intensity)).to(nepers)


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
        centre, meta = (0.0, 0.0, 0.0), {}
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

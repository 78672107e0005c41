"""Radiographs simulated from a CT in the chest frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from .. import frame
from . import ConeBeamGeometry, Projector

if TYPE_CHECKING:
    from jaxtyping import Float

# Standard deviation on the detector of the Gaussian by which scatter spreads; an assumption.
SCATTER_SIGMA_MM = 40.0
# What counts as behind the patient when the scatter fraction is set: a line integral over 5 cm of water.
SHADOW_NEPERS = 1.0


def simulate_radiographs(
    hu: Float[Tensor, "*c s s s"], pixels: int | None = None, poses: Float[Tensor, "2 6"] | None = None
) -> Float[Tensor, "2 u v"]:
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

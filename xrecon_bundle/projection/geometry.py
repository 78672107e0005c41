"""Where source and detector stand, and the rays between them.

All lengths are mm in the volume's frame (origin at the volume's centre, axes as the volume's array axes). To work in
voxels instead, give lengths and translations in voxels and the projector ``spacing=1``.

The imaging system has axes of its own: ``u`` and ``v`` along the detector, ``w`` from the source towards the detector.
Its origin is the volume's centre, the detector lies at ``w = detector_to_centre`` and the source at
``w = detector_to_centre - source_to_detector``. The geometry's ``orientation`` turns these axes into the volume's (the
base view), a pose then moves the whole system, see :mod:`.pose`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import frame
from .pose import rotation_matrix

if TYPE_CHECKING:
    from jaxtyping import Float

# ProST (Gao et al. 2020) states its geometry in voxels of a 224 volume; these are the frame's voxels of 1.6 mm.
PROST_VOXEL_MM = frame.voxel_size(224)
PROST_STEP_MM = 1.75 * PROST_VOXEL_MM

# (rx, ry, rz) in degrees: orientations in which u, v, w lie along the volume's axes.
VIEW_PA = (90.0, 0.0, 0.0)  # u = +x (left), v = +z (feet), w = -y: source behind the patient
VIEW_LATERAL = (90.0, 90.0, 0.0)  # u = +y (back), v = +z (feet), w = +x: detector at the patient's left


@dataclass(frozen=True)
class ConeBeamGeometry:
    """A point source (or, with an infinite ``source_to_detector``, a parallel beam) and a flat detector.

    Attributes:
        source_to_detector: mm; ``math.inf`` makes the beam parallel.
        detector_to_centre: distance of the detector plane behind the volume's centre, mm.
        detector_size: outer edges of the detector along u and v, mm.
        detector_pixels: pixels ``(U, W)`` along u and v; a ray ends in the centre of each.
        orientation: angles ``(rx, ry, rz)`` in degrees of the base view, see :mod:`.pose`. ``(0, 0, 0)`` looks along
            +z (axial, from head to feet) with u = +x, v = +y.

    The whole line through source and pixel counts, so a volume that reaches behind source or detector is integrated
    there, too.

    Raises:
        ValueError: a length that is not positive and finite, or a centre that is not between source and detector.
    """

    source_to_detector: float
    detector_to_centre: float
    detector_size: tuple[float, float]
    detector_pixels: tuple[int, int]
    orientation: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if not 0 <= self.detector_to_centre < self.source_to_detector:
            raise ValueError(
                "the centre must lie between source and detector: 0 <= detector_to_centre < source_to_detector, "
                f"got {self.detector_to_centre} and {self.source_to_detector} mm"
            )
        if len(self.detector_size) != 2 or not all(0 < size < math.inf for size in self.detector_size):
            raise ValueError(f"detector_size must be two positive lengths in mm, got {self.detector_size}")
        if len(self.detector_pixels) != 2 or not all(int(n) == n and n > 0 for n in self.detector_pixels):
            raise ValueError(f"detector_pixels must be two positive whole numbers, got {self.detector_pixels}")
        if len(self.orientation) != 3 or not all(math.isfinite(angle) for angle in self.orientation):
            raise ValueError(f"orientation must be three angles in degrees, got {self.orientation}")

    @classmethod
    def chest_pa(cls, pixels: int) -> ConeBeamGeometry:
        """PA radiograph of the chest frame: ``(u, v) = (x, z)``, detector in front of the patient, cube just shown."""
        return cls._chest(pixels, VIEW_PA)

    @classmethod
    def chest_lateral(cls, pixels: int) -> ConeBeamGeometry:
        """Left lateral of the chest frame: ``(u, v) = (y, z)``, detector at the patient's left, cube just shown."""
        return cls._chest(pixels, VIEW_LATERAL)

    @classmethod
    def chest_multi_angle(cls, pixels: int = 128) -> ConeBeamGeometry:
        """The default of :class:`~.loss.MultiAngleProjectionLoss`: the chest distances, base view along +z.

        The detector just shows the whole cube in each of the loss's three base poses.
        """
        return cls._chest(pixels, (0.0, 0.0, 0.0))

    @classmethod
    def prost_published(cls) -> ConeBeamGeometry:
        """The geometry that X-Recon's published projection loss uses, 128 x 128 pixels.

        Stated there in voxels at S = 224 (source 300 from the centre, detector 400 behind it, pixel 2.92), here in mm
        of the chest frame (1.6 mm a voxel), so it means the same at every size. It shows the central +-80 of +-112
        voxels of the centre plane only. The publication *sums* samples 1.75 voxels apart where we integrate: its value
        is ours divided by :data:`PROST_STEP_MM` (2.8 mm).
        """
        size = 128 * 2.92 * PROST_VOXEL_MM
        return cls(700 * PROST_VOXEL_MM, 400 * PROST_VOXEL_MM, (size, size), (128, 128))

    @classmethod
    def _chest(cls, pixels: int, orientation: tuple[float, float, float]) -> ConeBeamGeometry:
        size = (frame.detector_size_mm(),) * 2
        return cls(frame.SOURCE_TO_DETECTOR_MM, frame.DETECTOR_TO_CENTRE_MM, size, (pixels, pixels), orientation)

    @property
    def is_parallel(self) -> bool:
        """Whether the rays are parallel."""
        return math.isinf(self.source_to_detector)

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Pitch of the detector's pixels along u and v, mm."""
        return self.detector_size[0] / self.detector_pixels[0], self.detector_size[1] / self.detector_pixels[1]

    @property
    def magnification(self) -> float:
        """Size on the detector over size at the volume's centre; 1 for a parallel beam."""
        if self.is_parallel:
            return 1.0
        return self.source_to_detector / (self.source_to_detector - self.detector_to_centre)

    def project(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 2"]:
        """Where points ``(..., 3)`` in mm are seen in the base view: ``(u, v)`` in mm from the detector's middle."""
        u, v, w = (points @ rotation_matrix(points.new_tensor(self.orientation))).unbind(-1)
        if self.is_parallel:
            return torch.stack([u, v], -1)
        scale = self.source_to_detector / (w + self.source_to_detector - self.detector_to_centre)
        return torch.stack([u * scale, v * scale], -1)

    def rays(self, poses: Float[Tensor, "*v 6"]) -> tuple[Float[Tensor, "*v u w 3"], Float[Tensor, "*v u w 3"]]:
        """The ray of every pixel under ``poses`` ``(..., 6)``.

        Returns:
            A point on each ray (the pixel's centre) in mm and its direction from the source on (not normalised), both
            ``(..., U, W, 3)``, in ``poses``' dtype.
        """
        u, v = (
            (torch.arange(n, dtype=poses.dtype, device=poses.device) - (n - 1) / 2) * pitch
            for n, pitch in zip(self.detector_pixels, self.pixel_size, strict=True)
        )
        u, v = torch.meshgrid(u, v, indexing="ij")
        pixel = torch.stack([u, v, torch.full_like(u, self.detector_to_centre)], -1)
        if self.is_parallel:
            direction = torch.stack([torch.zeros_like(u), torch.zeros_like(u), torch.ones_like(u)], -1)
        else:
            direction = torch.stack([u, v, torch.full_like(u, self.source_to_detector)], -1)
        base = rotation_matrix(poses.new_tensor(self.orientation))
        turn = (rotation_matrix(poses[..., :3]) @ base)[..., None, :, :]
        shift = poses[..., None, None, 3:]
        return pixel @ turn.mT + shift, direction @ turn.mT

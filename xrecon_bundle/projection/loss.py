"""The projection loss: what the reconstruction and the truth look like from a few directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .geometry import PROST_STEP_MM, ConeBeamGeometry
from .projector import Projector

if TYPE_CHECKING:
    from jaxtyping import Float

# Axial, sagittal and coronal, as published: the views run along z, -x and y.
BASE_POSES = (
    (0.0, 0.0, 90.0, 0.0, 0.0, 0.0),
    (90.0, 270.0, 90.0, 0.0, 0.0, 0.0),
    (90.0, 180.0, 90.0, 0.0, 0.0, 0.0),
)


class MultiAngleProjectionLoss(nn.Module):
    """Mean absolute difference of projections along three directions (ProST loss of X-Recon, arXiv 2407.15356).

    In training mode one random offset a step is added to the angles and translations of all three base poses; in
    evaluation mode there is none. The offsets come from a generator of the loss's own, whose state is part of
    ``state_dict()``, so a resumed run goes on as if it had never stopped.

    The projection is linear, so prediction and truth are subtracted before, not after, and projected once.

    Unit: the line integral of the difference in network units, in mm, divided by ``step_mm``. The published loss sums
    samples 2.8 mm apart (at S = 224) without a step length; divided by the same 2.8 mm, this is its value, whatever the
    size, and the published weight 0.1 keeps its meaning.

    Args:
        geometry: base view along +z; None: :meth:`ConeBeamGeometry.chest_multi_angle`, which shows the whole cube.
        sigma_degrees: standard deviation of the random offset of each angle.
        sigma_mm: that of each translation; published: 8 voxels of 1.6 mm.
        step_mm: what the integral is divided by.
        seed: of the offsets.
        chunk: see :class:`Projector`.
    """

    def __init__(
        self,
        geometry: ConeBeamGeometry | None = None,
        sigma_degrees: float = 10.0,
        sigma_mm: float = 12.8,
        step_mm: float = PROST_STEP_MM,
        seed: int = 0,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.projector = Projector(geometry or ConeBeamGeometry.chest_multi_angle(), chunk)
        self.sigma = (sigma_degrees,) * 3 + (sigma_mm,) * 3
        self.step_mm = step_mm
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, pred: Float[Tensor, "b c s s s"], target: Float[Tensor, "b c s s s"]) -> Float[Tensor, ""]:
        """The loss, a scalar, of two volumes ``(B, 1, X, Y, Z)`` of the chest frame in network units."""
        return self.projector(pred - target, self.draw_poses()).abs().mean() / self.step_mm

    def draw_poses(self) -> Float[Tensor, "1 3 6"]:
        """The poses of this step, ``(1, 3, 6)``; advances the generator in training mode."""
        poses = torch.tensor([BASE_POSES])
        if self.training:
            poses = poses + torch.tensor(self.sigma) * torch.randn(6, generator=self.generator)
        return poses

    def get_extra_state(self) -> Tensor:
        """State of the offsets' generator, saved with the module."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Restore what :meth:`get_extra_state` gave."""
        self.generator.set_state(state.cpu())

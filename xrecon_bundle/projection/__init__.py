"""Projection geometry, the projector and the multi-angle projection loss."""

from __future__ import annotations

from .geometry import PROST_STEP_MM, ConeBeamGeometry
from .loss import MultiAngleProjectionLoss
from .projector import Projector

__all__ = ["PROST_STEP_MM", "ConeBeamGeometry", "MultiAngleProjectionLoss", "Projector"]

"""Training iterations for Ignite-based MONAI engines."""

from .adversarial import (
    DiscriminatorAdversarialLoss,
    GeneratorAdversarialLoss,
    ReconstructionLoss,
    conditional_adversarial_iteration,
)
from .precision import has_bfloat16
from .schedule import ConstantThenLinearLR
from .settings import check_settings

__all__ = [
    "ConstantThenLinearLR",
    "DiscriminatorAdversarialLoss",
    "GeneratorAdversarialLoss",
    "ReconstructionLoss",
    "check_settings",
    "conditional_adversarial_iteration",
    "has_bfloat16",
]

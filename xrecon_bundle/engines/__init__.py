"""Training iterations for Ignite-based MONAI engines."""

from .adversarial import (
    DiscriminatorAdversarialLoss,
    GeneratorAdversarialLoss,
    ReconstructionLoss,
    conditional_adversarial_iteration,
)
from .precision import has_bfloat16
from .schedule import ConstantThenLinearLR

__all__ = [
    "ConstantThenLinearLR",
    "DiscriminatorAdversarialLoss",
    "GeneratorAdversarialLoss",
    "ReconstructionLoss",
    "conditional_adversarial_iteration",
    "has_bfloat16",
]

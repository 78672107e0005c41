"""Training iterations for Ignite-based MONAI engines."""

from .adversarial import (
    DiscriminatorAdversarialLoss,
    GeneratorAdversarialLoss,
    ReconstructionLoss,
    conditional_adversarial_iteration,
)
from .schedule import ConstantThenLinearLR

__all__ = [
    "ConstantThenLinearLR",
    "DiscriminatorAdversarialLoss",
    "GeneratorAdversarialLoss",
    "ReconstructionLoss",
    "conditional_adversarial_iteration",
]

"""Instance norm and ReLU, the pair that follows nearly every convolution of the generator."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def norm_relu(x: Tensor) -> Tensor:
    """ReLU of the instance norm (no affine, biased variance, eps 1e-5) of ``(B, C, *spatial)``.

    The instance norm of a batch of one is its batch norm, and only that kernel reads a channels-last tensor as it lies.
    """
    x = F.batch_norm(x, None, None, training=True) if x.shape[0] == 1 else F.instance_norm(x)
    return F.relu(x, inplace=True)

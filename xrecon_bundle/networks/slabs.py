"""Large volumes, worked on in place and slab by slab where no gradient is needed.

In training, and while a graph is recorded, these are the plain operations. Else they overwrite their input, and slabs
stay below 32 MB: from there on glibc maps fresh pages for every tensor, which costs more time than the arithmetic.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .norm import norm_relu

SLAB_BYTES = 26_000_000


def streams() -> bool:
    """Whether volumes are worked on in place: without gradients, in eager mode.

    Not in TorchScript: its optimiser drops a batch norm whose result is not used, though it would have kept statistics.
    """
    recording = True
    if not torch.jit.is_scripting():
        recording = torch.jit.is_tracing() or torch.compiler.is_compiling()
    return not (recording or torch.is_grad_enabled())


def slab_rows(x: Tensor, limit: int = SLAB_BYTES) -> int:
    """Rows (of the first spatial axis) in equal slabs of ``x``: halved until they take ``limit`` bytes or are odd."""
    rows = x.shape[2]
    while rows % 2 == 0 and x[:, :, :rows].numel() * x.element_size() > limit:
        rows = rows // 2  # TorchScript knows no augmented floor division
    return rows


def norm_relu_(x: Tensor) -> Tensor:
    """ReLU of the instance norm of ``(B, C, X, Y, Z)``, as :func:`~xrecon_bundle.networks.norm.norm_relu`."""
    if not streams():
        return norm_relu(x)
    dtype = torch.promote_types(x.dtype, torch.float32)
    for sample in x.split(1):
        slabs = sample.split(slab_rows(sample), dim=2)
        mean = torch.zeros(len(slabs), x.shape[1], dtype=dtype, device=x.device)
        variance = torch.zeros_like(mean)
        for index, slab in enumerate(slabs):
            F.batch_norm(slab, mean[index], variance[index], training=True, momentum=1.0)
        # Slabs are equally large, so their moments simply average; batch norm keeps the unbiased variance.
        count = slabs[0].numel() // x.shape[1]
        centre = mean.mean(0)
        variance = variance.mean(0) * ((count - 1) / count) + (mean - centre).square().mean(0)
        for slab in slabs:
            slab.copy_(F.relu(F.batch_norm(slab, centre, variance, training=False), inplace=True))
    return x


def convolve_(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """3x3x3 convolution of ``(B, C, X, Y, Z)`` with zero padding, to the same shape."""
    if not streams():
        return F.conv3d(x, weight, padding=1, groups=groups)
    rows = slab_rows(x)
    before = torch.zeros_like(x[:, :, :1])
    for start in range(0, x.shape[2], rows):
        stop = start + rows
        after = x[:, :, stop : stop + 1] if stop < x.shape[2] else torch.zeros_like(before)
        slab = torch.cat([before, x[:, :, start:stop], after], dim=2)
        before = x[:, :, stop - 1 : stop].clone()  # what is overwritten now and still needed by the next slab
        x[:, :, start:stop] = F.conv3d(slab, weight, padding=(0, 1, 1), groups=groups)
    return x

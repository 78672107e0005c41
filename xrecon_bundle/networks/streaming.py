"""The decoders without gradients: slab by slab, so that what one step writes the next one reads from the cache.

An instance norm must have seen its whole input before it can give its first value. So a volume is kept as its
convolution left it, together with its mean and variance, and is normalised as it is read. All that lies between two
norms is done on slabs, a few rows of the first spatial axis, and memory is written once. Up-sampled volumes are not
kept at all: they are computed twice, for their moments and to be read.

The batch is one, tensors are channels-last. On a CPU, memory decides: fresh memory costs several times what arithmetic
on it does, so slabs are small enough for the allocator to give the same memory again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .lifting import depth_spans

if TYPE_CHECKING:
    from .fusion import Scale

EPS = 1e-5
CPU_SLAB_BYTES = 7_000_000
SLAB_BYTES = 200_000_000  # on a GPU, whose kernels want more work at once

Moments = tuple[Tensor, Tensor]


def streams(x: Tensor) -> bool:
    """Whether to stream: without gradients, and where no graph is recorded (tracing, export, ``torch.compile``)."""
    recorded = torch.is_grad_enabled() or torch.jit.is_tracing() or torch.compiler.is_compiling()
    return x.device.type in ("cpu", "cuda") and not recorded


class Source(Protocol):
    """A volume that can be read slab by slab.

    Attributes:
        shape: ``(C, X, Y, Z)``.
    """

    shape: tuple[int, ...]

    def read(self, start: int, stop: int, out: Tensor) -> None:
        """Write the rows from ``start`` to ``stop``, both even, into ``out``, ``(1, C, stop - start, Y, Z)``."""


class Volume:
    """A volume kept before its norm and ReLU, and read after them.

    Args:
        data: ``(1, C, X, Y, Z)``.
        moments: each channel's mean and biased variance; None: it is read as it is kept.
    """

    def __init__(self, data: Tensor, moments: Moments | None = None) -> None:
        self.data = data.contiguous(memory_format=torch.channels_last_3d)
        self.moments = moments
        self.shape = tuple(data.shape[1:])

    def read(self, start: int, stop: int, out: Tensor) -> None:
        """See :class:`Source`."""
        rows = self.data[:, :, start:stop]
        if self.moments is None:
            out.copy_(rows)
            return
        unused = self.moments[0].new_empty(0)
        torch.native_batch_norm(rows, None, None, *self.moments, False, 0.0, EPS, out=(out, unused, unused.clone()))
        out.relu_()


class Upsampled:
    """ReLU of the norm of a volume's transposed 3x3x3 convolution of stride 2, computed whenever it is read.

    In each direction an even output reads one input, through the middle of the kernel, and an odd output two, through
    its ends. So the transposed convolution is an ordinary one for the even rows, and one for the odd rows, whose
    channels are the even and odd outputs of the other two directions.

    Args:
        source: the volume at half the size.
        weight: of the transposed convolution, ``(in, out, 3, 3, 3)``.
    """

    def __init__(self, source: Volume, weight: Tensor) -> None:
        channels, *size = source.shape
        self.source = source
        self.shape = (weight.shape[1], *(2 * edge for edge in size))
        self.kernels = even_and_odd_kernels(weight)
        self.bias: Tensor | None = None
        spans = slab_spans(self.shape, weight)
        longest = max(stop - start for start, stop in spans) // 2
        self.padded = empty((channels, longest + 1, size[1] + 1, size[2] + 1), weight).zero_()
        parts = (part for start, stop in spans for part in self._convolve(start, stop))
        mean, variance = moments_of(part.reshape(-1, self.shape[0]) for part in parts)
        # Fold the norm into the kernels.
        scale = (variance + EPS).rsqrt().repeat(4)
        self.kernels = [(kernel * scale[:, None, None, None, None]).to(weight.dtype) for kernel in self.kernels]
        self.bias = (-mean.repeat(4) * scale).to(weight.dtype)

    def read(self, start: int, stop: int, out: Tensor) -> None:
        """See :class:`Source`."""
        channels, _, y, z = self.shape
        for parity, part in enumerate(self._convolve(start, stop)):
            rows = out[0, :, parity::2].permute(1, 2, 3, 0).view(-1, y // 2, 2, z // 2, 2 * channels)
            torch.clamp(part.unflatten(-1, (2, -1)).transpose(2, 3), min=0, out=rows)

    def _convolve(self, start: int, stop: int) -> Iterator[Tensor]:
        """The even, then the odd rows: ``(rows, Y/2, Z/2, 4 C)``, channels in the order (y, z) = 00, 01, 10, 11."""
        first, last = start // 2, min(stop // 2 + 1, self.source.shape[1])
        rows = empty((self.source.shape[0], last - first, *self.source.shape[2:]), self.padded)
        self.source.read(first, last, rows)
        padded = self.padded[:, :, : stop // 2 - first + 1]
        padded[:, :, : last - first, :-1, :-1] = rows
        padded[:, :, last - first :] = 0  # behind the last row
        for kernel, x in zip(self.kernels, (padded[:, :, :-1], padded), strict=True):
            yield conv3d(x, kernel, self.bias)[0].permute(1, 2, 3, 0)


class Concatenation:
    """Volumes joined along their channels."""

    def __init__(self, *sources: Source) -> None:
        self.sources = sources
        self.channels = [source.shape[0] for source in sources]
        self.shape = (sum(self.channels), *sources[0].shape[1:])

    def read(self, start: int, stop: int, out: Tensor) -> None:
        """See :class:`Source`."""
        for source, part in zip(self.sources, out.split(self.channels, dim=1), strict=True):
            rows = empty((part.shape[1], *part.shape[2:]), part)
            source.read(start, stop, rows)
            part.copy_(rows)


def stream_scale(
    scale: Scale, sources: Sequence[Volume], features: Sequence[Tensor]
) -> tuple[list[Volume], Tensor | None]:
    """As :meth:`xrecon_bundle.networks.fusion.Scale.forward`, up to rounding, for a batch of one.

    Args:
        scale: the scale.
        sources: each decoder's features at S/2; one for all where they read the average of the bases.
        features: each view's encoder feature ``(1, encoder_channels, S, S)``.
    """
    like = sources[0].data
    channels, views, decoders = scale.channels, scale.views, scale.decoders
    shape = (channels, *(2 * edge for edge in sources[0].shape[1:]))
    shared = len(sources) < decoders
    up_weights = scale.up.weight.to(like.dtype).chunk(decoders, dim=int(shared))
    links = scale.link.weight.to(like.dtype).split(channels)
    accumulator = torch.promote_types(like.dtype, torch.float32)
    rendered = torch.zeros(1, 1, *shape[1:], dtype=accumulator, device=like.device)

    main: Upsampled | None = None
    if scale.render_main is not None:
        main = Upsampled(sources[-1], up_weights[-1])
        render(main, scale.render_main.weight.to(like.dtype), rendered)
    linked: list[Volume] = []
    for view, linker in enumerate(scale.linkers):
        up = Upsampled(sources[0 if shared else view], up_weights[view])
        out = linked[0].data if scale.finest and linked else empty(shape, like)
        linked.append(store(convolve(up, links[view]), out, linker(features[view]), scale.axes[view]))
        if scale.finest and scale.render_average is not None:  # its volume makes room for the next view's
            render(linked[view], (scale.render_average.weight / views).to(like.dtype), rendered)
    average = Volume(average_(linked)) if scale.fusion and not scale.finest else None
    if average is not None and scale.render_average is not None:
        render(average, scale.render_average.weight.to(like.dtype), rendered)
    if scale.render_average is not None and scale.render_average.bias is not None:
        rendered = F.leaky_relu_(rendered + scale.render_average.bias, 0.01)
    if scale.first is None or scale.second is None:
        return [], rendered

    decoded: list[Volume] = []
    first, second = (conv.weight.to(like.dtype).split(channels) for conv in (scale.first, scale.second))
    for decoder in range(decoders):
        source: Source = linked[decoder] if average is None else average
        weight = first[decoder]
        if main is not None and decoder == views:
            source, weight = Concatenation(source, main), torch.cat([weight, links[decoder]], dim=1)
        volume = store(convolve(source, weight), empty(shape, like))
        decoded.append(store(convolve(volume, second[decoder]), volume.data))
    return decoded, rendered if average is not None else None


def convolve(source: Source, weight: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The 3x3x3 convolution of a volume with zero padding, as slabs with their first row.

    A row is read before the same row of the result is given, so that the result may overwrite what is read.
    """
    channels, size, *rest = source.shape
    spans = slab_spans(source.shape, weight)
    longest = max(stop - start for start, stop in spans)
    window = empty((channels, min(4 * longest, size) + 3, *rest), weight)  # slides every few slabs
    window[:, :, 0] = 0  # before the first row
    begin, end, done = 0, 1, 0
    for start, stop in spans:
        if end + stop - start >= window.shape[2]:
            window[:, :, :2] = window[:, :, end - 2 : end].clone()
            begin, end = 0, 2
        source.read(start, stop, window[:, :, end : end + stop - start])
        end += stop - start
        if stop == size:
            window[:, :, end] = 0
            end += 1
        result = conv3d(window[:, :, begin:end], weight, padding=1)
        yield done, result
        done += result.shape[2]
        begin = end - 2


def store(slabs: Iterable[tuple[int, Tensor]], out: Tensor, thin: Tensor | None = None, axis: int = 2) -> Volume:
    """Write slabs, plus a thin volume's slices along ``axis``, into ``out``, and take its moments."""
    slices: list[tuple[Tensor, int, int]] = []
    if thin is not None:  # its channels last, as the slabs'
        images = thin.movedim(2, -1).contiguous().movedim(-1, 2).unbind(1)
        spans = depth_spans(len(images), thin.shape[-1])
        slices = [(image, *span) for image, span in zip(images, spans, strict=True)]

    def written() -> Iterator[Tensor]:
        for first, slab in slabs:
            rows = slab.shape[2]
            target = out[:, :, first : first + rows]
            if thin is None:
                target.copy_(slab)
            for image, start, stop in slices:
                if axis == 2:
                    start, stop = max(start - first, 0), min(stop - first, rows)
                else:
                    image = image[:, :, first : first + rows]
                if start < stop:
                    part = slab.narrow(axis, start, stop - start)
                    torch.add(part, image.unsqueeze(axis), out=target.narrow(axis, start, stop - start))
            yield target

    return Volume(out, moments_of(written()))


def average_(volumes: Sequence[Volume]) -> Tensor:
    """The average of volumes as they are read, written over the first."""
    out = volumes[0].data
    for start, stop in slab_spans(volumes[0].shape, out):
        total, part = (empty((out.shape[1], stop - start, *out.shape[3:]), out) for _ in range(2))
        volumes[0].read(start, stop, total)
        for volume in volumes[1:]:
            volume.read(start, stop, part)
            total += part
        torch.div(total, len(volumes), out=out[:, :, start:stop])
    return out


def render(source: Source, weight: Tensor, rendered: Tensor) -> None:
    """Add the 1x1x1 convolution of a volume to ``rendered``, ``(1, 1, X, Y, Z)``."""
    channels, _, *rest = source.shape
    for start, stop in slab_spans(source.shape, weight):
        slab = empty((channels, stop - start, *rest), weight)
        source.read(start, stop, slab)
        rendered[0, 0, start:stop] += slab[0].permute(1, 2, 3, 0) @ weight.flatten()


def conv3d(x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 0) -> Tensor:
    """Convolution of a channels-last ``x``, padded in the last two directions only.

    PyTorch sends small single-precision inputs not to oneDNN but to a convolution ten times slower.
    """
    pads = (0, padding, padding)
    if x.is_cpu and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return torch.mkldnn_convolution(x, weight, bias, pads, (1, 1, 1), (1, 1, 1), 1)
    return F.conv3d(x, weight, bias, padding=pads)


def even_and_odd_kernels(weight: Tensor) -> list[Tensor]:
    """Kernels of :class:`Upsampled`: ``(4 out, in, 1, 2, 2)`` for even rows, ``(4 out, in, 2, 2, 2)`` for odd."""
    kernels = []
    before, at, after = weight.transpose(0, 1).unbind(2)  # the input row behind is read through the kernel's first
    for rows in ([at], [after, before]):
        of_rows = torch.stack(rows, dim=2)
        parts = [part for half in _even_and_odd(of_rows, 3) for part in _even_and_odd(half, 4)]
        kernels.append(torch.cat(parts).contiguous(memory_format=torch.channels_last_3d))
    return kernels


def _even_and_odd(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    before, at, after = weight.unbind(dim)
    return torch.stack([at, torch.zeros_like(at)], dim), torch.stack([after, before], dim)


def moments_of(slabs: Iterable[Tensor]) -> Moments:
    """Mean and biased variance of each channel of slabs ``(..., C, ...)``, of which no two need be of one size."""
    sizes, means, variances = [], [], []
    for slab in slabs:
        mean, variance = torch.batch_norm_update_stats(slab, None, None, 0.0)
        sizes.append(slab.numel())
        means.append(mean)
        variances.append(variance)
    mean, variance = torch.stack(means).double(), torch.stack(variances).double()
    share = (torch.tensor(sizes, device=mean.device) / sum(sizes))[:, None].double()
    centre = (share * mean).sum(0)
    variance = (share * (variance + (mean - centre).square())).sum(0)
    accumulator = torch.promote_types(means[0].dtype, torch.float32)
    return centre.to(accumulator), variance.to(accumulator)


def slab_spans(shape: Sequence[int], like: Tensor) -> list[tuple[int, int]]:
    """First row and end of the slabs of a volume ``(C, X, Y, Z)``: all even, and as many rows as the device likes."""
    channels, size, y, z = shape
    limit = CPU_SLAB_BYTES if like.is_cpu else SLAB_BYTES
    rows = max(2, limit // (channels * y * z * like.element_size()) // 2 * 2)
    return [(start, min(start + rows, size)) for start in range(0, size, rows)]


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Uninitialised channels-last ``(1, *shape)``, of the type and on the device of ``like``."""
    return torch.empty((1, *shape), dtype=like.dtype, device=like.device, memory_format=torch.channels_last_3d)

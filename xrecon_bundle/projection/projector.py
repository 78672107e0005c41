"""Line integrals through a volume along the rays of a geometry, differentiable in the volume and in the pose.

Method: P. M. Joseph, "An improved algorithm for reprojecting rays through pixel images", IEEE Trans. Med. Imaging 1
(1982) 192-196, in 3D. A ray is followed along the volume axis along which it crosses most voxels (its main axis). In
each slice across that axis it is sampled once, bilinearly between four voxels, and the sum of the samples times the
ray's length between two slices is the integral. The adjoint is exact, because the backward pass scatters with the very
same weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import grid_sample

from .. import frame
from .geometry import ConeBeamGeometry

if TYPE_CHECKING:
    from jaxtyping import Float

# Samples taken at once. On a CPU they shall stay in its cache; a GPU wants few, large launches.
CPU_CHUNK = 2**20
GPU_CHUNK = 2**24


class Projector(nn.Module):
    """Cone or parallel beam projector, differentiable once in the volume and in the poses.

    Args:
        geometry: source, detector and base view.
        chunk: most samples taken at once; bounds the memory beyond input and output, to about 12 bytes a sample.
            Default: what fits a CPU's cache, or 200 MB on a GPU. It changes results by rounding only.
    """

    def __init__(self, geometry: ConeBeamGeometry, chunk: int | None = None) -> None:
        super().__init__()
        self.geometry = geometry
        self.chunk = chunk

    def forward(
        self,
        volume: Float[Tensor, "b c x y z"],
        poses: Float[Tensor, "#b v 6"] | None = None,
        spacing: float | tuple[float, float, float] | None = None,
    ) -> Float[Tensor, "b c v u w"]:
        """Project ``volume``.

        Args:
            volume: ``(B, C, X, Y, Z)``, any unit; zero outside.
            poses: ``(B, V, 6)`` or ``(1, V, 6)``: degrees and mm, see :mod:`.pose`. None: the base view, V = 1.
            spacing: mm per voxel, one or along X, Y, Z. None: that of the chest frame's cube, ``EDGE_MM / X``.

        Returns:
            Line integrals in (unit of the volume) x mm, ``(B, C, V, U, W)``; float64 if the volume is, otherwise (half
            precision and autocast, too) float32.

        Raises:
            ValueError: shapes that do not fit, or a spacing that is not positive.
        """
        if torch.compiler.is_compiling():  # it would unroll the loop over slices; compiled models call it as it is
            return torch.compiler.disable(self._project)(volume, poses, spacing)
        return self._project(volume, poses, spacing)

    def _project(
        self, volume: Tensor, poses: Tensor | None, spacing: float | tuple[float, float, float] | None
    ) -> Tensor:
        volume = volume.to(torch.float64 if volume.dtype == torch.float64 else torch.float32)
        poses = volume.new_zeros(1, 1, 6) if poses is None else poses.to(volume)
        _check_shapes(volume, poses)
        edges = _spacing(volume, spacing)
        chunk = self.chunk or (GPU_CHUNK if volume.is_cuda else CPU_CHUNK)
        with torch.autocast(volume.device.type, enabled=False):
            if poses.shape[0] == 1:  # the same rays for all: the batch is as good as channels of one volume
                return self._views(volume.flatten(0, 1), poses[0], edges, chunk).unflatten(0, volume.shape[:2])
            return torch.stack([self._views(*item, edges, chunk) for item in zip(volume, poses, strict=True)])

    def _views(
        self, volume: Float[Tensor, "c x y z"], poses: Float[Tensor, "v 6"], spacing: Float[Tensor, " 3"], chunk: int
    ) -> Float[Tensor, "c v u w"]:
        """``(C, X, Y, Z)`` and ``(V, 6)`` to ``(C, V, U, W)``."""
        point, direction = (rays.flatten(1, 2) for rays in self.geometry.rays(poses))
        length = direction.norm(dim=-1)
        point, direction = point / spacing, direction / spacing  # from here in voxels
        main = direction.detach().abs().argmax(-1)
        present = (main[..., None] == torch.arange(3, device=main.device)).any(1).tolist()
        views = []
        for v, axes in enumerate(present):
            if sum(axes) == 1:
                views.append(_integrate(volume, point[v], direction[v], length[v], axes.index(True), chunk))
                continue
            view = volume.new_zeros(volume.shape[0], length.shape[1])
            for axis in (axis for axis in range(3) if axes[axis]):
                rays = (main[v] == axis).nonzero()[:, 0]
                part = _integrate(volume, point[v, rays], direction[v, rays], length[v, rays], axis, chunk)
                view = view.index_copy(1, rays, part)
            views.append(view)
        return torch.stack(views, 1).unflatten(-1, self.geometry.detector_pixels)


def _integrate(
    volume: Float[Tensor, "c x y z"],
    point: Float[Tensor, "n 3"],
    direction: Float[Tensor, "n 3"],
    length: Float[Tensor, " n"],
    axis: int,
    chunk: int,
) -> Float[Tensor, "c n"]:
    """Integrals ``(C, N)`` through ``(C, X, Y, Z)`` along rays with the main ``axis``.

    ``point`` and ``direction`` ``(N, 3)`` are in voxels, ``length`` ``(N,)`` is the direction's in mm.
    """
    across = [2, 1, 0]  # grid_sample wants the last axis first
    across.remove(axis)
    slope = direction[:, across] / direction[:, axis, None]
    middle = point[:, across] - point[:, axis, None] * slope  # where the ray crosses the volume's middle plane
    # grid_sample's units: the volume spans [-1, 1], edge to edge
    scale = 2.0 / slope.new_tensor([volume.shape[1 + other] for other in across])
    chunk = max(1, chunk // volume.shape[0])  # all channels are sampled together
    parts = zip((middle * scale).split(chunk), (slope * scale).split(chunk), strict=True)
    sums = torch.cat([_SumOverSlices.apply(volume, *part, axis, chunk) for part in parts], -1)
    return sums * (length / direction[:, axis].abs())


class _SumOverSlices(torch.autograd.Function):
    """``sum_k slice k of the volume, sampled at middle + (k - (K - 1) / 2) * slope``, slices counted along ``axis``.

    ``volume``: ``(C, X, Y, Z)``; ``middle`` and ``slope``: ``(N, 2)`` in grid_sample's units, last volume axis first;
    result ``(C, N)``. One function, because autograd would keep the grids of all slices; here they are made anew, a few
    slices at a time.
    """

    @staticmethod
    def forward(ctx: Any, volume: Tensor, middle: Tensor, slope: Tensor, axis: int, chunk: int) -> Tensor:
        ctx.save_for_backward(volume, middle, slope)
        ctx.axis, ctx.chunk = axis, chunk
        sums = volume.new_zeros(volume.shape[0], middle.shape[0])
        for few, _, grid in _chunks(volume, middle, slope, axis, chunk):
            sums += grid_sample(_slices(volume, axis)[few], grid, align_corners=False).sum(0)[:, 0]
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        volume, middle, slope = ctx.saved_tensors
        to_volume, to_middle, to_slope = ctx.needs_input_grad[:3]
        for_volume = torch.empty_like(volume) if to_volume else None
        for_middle, for_slope = torch.zeros_like(middle), torch.zeros_like(slope)
        for few, offset, grid in _chunks(volume, middle, slope, ctx.axis, ctx.chunk):
            same = gradient[None, :, None].expand(grid.shape[0], -1, -1, -1)
            for_slices, for_grid = torch.ops.aten.grid_sampler_2d_backward(
                same, _slices(volume, ctx.axis)[few], grid, 0, 0, False, [to_volume, True]
            )
            if for_volume is not None:
                _slices(for_volume, ctx.axis)[few] = for_slices
            if to_middle or to_slope:
                for_middle += for_grid.sum(0)[0]
                for_slope += (for_grid * offset).sum(0)[0]
        return for_volume, for_middle if to_middle else None, for_slope if to_slope else None, None, None


def _slices(volume: Float[Tensor, "c x y z"], axis: int) -> Float[Tensor, "k c h w"]:
    """``(C, X, Y, Z)`` seen as ``(K, C, H, W)``, K along ``axis``."""
    return volume.movedim(1 + axis, 0)


def _chunks(
    volume: Tensor, middle: Tensor, slope: Tensor, axis: int, chunk: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield ranges of k slices, their distances from the middle ``(k, 1, 1, 1)`` and their grids ``(k, 1, N, 2)``."""
    count = volume.shape[1 + axis]
    step = max(1, chunk // middle.shape[0])
    offset = torch.arange(count, dtype=slope.dtype, device=slope.device)[:, None, None, None] - (count - 1) / 2
    for start in range(0, count, step):
        few = slice(start, start + step)
        yield few, offset[few], torch.addcmul(middle, offset[few], slope)


def _check_shapes(volume: Tensor, poses: Tensor) -> None:
    if volume.ndim != 5:
        raise ValueError(f"volume must be (B, C, X, Y, Z), got {tuple(volume.shape)}")
    if poses.ndim != 3 or poses.shape[-1] != 6 or poses.shape[0] not in (1, volume.shape[0]):
        raise ValueError(f"poses must be ({volume.shape[0]}, V, 6) or (1, V, 6), got {tuple(poses.shape)}")


def _spacing(volume: Tensor, spacing: float | tuple[float, float, float] | None) -> Tensor:
    spacing = frame.voxel_size(volume.shape[2]) if spacing is None else spacing
    values = torch.as_tensor(spacing, dtype=volume.dtype).expand(3)
    if not (values > 0).all():
        raise ValueError(f"spacing must be positive, in mm, got {spacing}")
    return values.to(volume.device)

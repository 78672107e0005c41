"""What a volume lacks to explain its radiographs: a step of iterative reconstruction, for a network to learn from.

A network that only sees pictures of many patients draws the average of all who look alike. Projected again, its volume
shows where this patient differs. Here the difference is distributed along the rays (regularised least squares, a few
steps of the conjugate gradient method), and a network learns how much of it to believe: a learned iterative
reconstruction as Adler & Öktem, Learned primal-dual reconstruction, arXiv 1707.06474, with radiographs whose grey
levels are unknown.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .. import frame

DEPTH, SOURCE_SIDE = (1, 0), (-1, 1)  # the axis along which a view looks, and on which side of it the source is
DEGREE = 3  # of the polynomial from grey levels to line integrals
DARK = 0.03  # of either scale: what is darker in both is beside the body
BODY = 0.25  # network units, -400 HU
OUTSIDE = 0.15  # how much beside the body may change, relative to the body
SMOOTH_VOXELS = 1.0  # standard deviation of the changes' Gaussian
STEPS = 6  # of conjugate gradients


class Rays:
    """From a volume to its line integrals, and the transpose.

    The same numbers as :class:`~xrecon_bundle.projection.projector.Projector`'s of the chest's geometry. As both views
    look along an axis, each slice across it is resampled along rows and along columns, which are matrix products: an
    exported program can hold them, and so can its transpose.

    Args:
        size: edge n of the volume in voxels.
        pixels: edge P of the images.
        like: has the type and device of both.
    """

    def __init__(self, size: int, pixels: int, like: Tensor) -> None:
        with torch.no_grad():
            self.views = [[part.to(like.dtype) for part in _resampling(view, size, pixels, like)] for view in range(2)]

    def project(self, volume: Tensor) -> Tensor:
        """Line integrals ``(B, 2, P, P)`` of ``(B, 1, n, n, n)``, in units of the cube's edge."""
        return torch.stack([self.project_view(volume, view) for view in range(2)], 1)

    def project_view(self, volume: Tensor, view: int) -> Tensor:
        """Those of one view, ``(B, P, P)``."""
        sampling, length = self.views[view]
        columns = volume[:, 0].movedim(1 + DEPTH[view], 1) @ sampling
        return _product(sampling.flatten(0, 1).mT, columns.flatten(1, 2)) * length

    def back_project(self, images: Tensor) -> Tensor:
        """``(B, 2, P, P)`` to ``(B, 1, n, n, n)``."""
        return self.back_project_view(images[:, 0], 0) + self.back_project_view(images[:, 1], 1)

    def back_project_view(self, image: Tensor, view: int) -> Tensor:
        """One view ``(B, P, P)`` to ``(B, 1, n, n, n)``."""
        sampling, length = self.views[view]
        rows = _product(sampling.flatten(0, 1), image * length).unflatten(1, sampling.shape[:2])
        return (rows @ sampling.mT).movedim(1, 1 + DEPTH[view])[:, None]


def reproject(volume: Tensor, pixels: int) -> Tensor:
    """See :meth:`Rays.project`."""
    return Rays(volume.shape[-1], pixels, volume).project(volume)


def match_greys(image: Tensor, projected: Tensor, known: Tensor) -> Tensor:
    """The polynomial of an image's grey levels that comes closest to the line integrals of a volume.

    Exposure and tone curve of a film are unknown.

    Args:
        image: ``(B, 2, P, P)``, grey levels.
        projected: likewise, line integrals of a volume that is about right.
        known: likewise, 1 where the film shows something, else 0.

    Returns:
        Line integrals ``(B, 2, P, P)``, 0 where nothing is known.
    """
    weight = known * ((image > DARK) | (projected > DARK)).to(image.dtype)
    inner = functools.partial(_inner, weight=weight)
    basis: list[Tensor] = []
    matched = torch.zeros_like(image)
    for degree in range(DEGREE + 1):
        power = image**degree
        for other in basis:  # Gram and Schmidt's: a system of equations cannot be exported
            power = power - inner(power, other) * other
        power = power / inner(power, power).clamp(min=1e-8).sqrt()
        basis.append(power)
        matched = matched + inner(projected, power) * power
    return matched * known


def missing(
    volume: Tensor, image: Tensor, known: Tensor, rounds: int = 2, noise: float = 0.05
) -> tuple[Tensor, Tensor]:
    """What to add to a volume that it may explain its radiographs.

    Args:
        volume: ``(B, 1, n, n, n)`` in network units.
        image: ``(B, 2, P, P)``, grey levels of the radiographs.
        known: likewise, 1 where a film shows something, else 0.
        rounds: how often the grey levels are matched; the second time with what the first one changed.
        noise: standard deviation of the radiographs' errors, relative to that of a voxel's change times the cube's
            edge; the less, the more of the difference is explained.

    Returns:
        The change ``(B, 1, n, n, n)``, and the difference ``(B, 2, P, P)`` of the radiographs from the projected volume
        without it, in units of the cube's edge.
    """
    n, pixels = volume.shape[-1], image.shape[-1]
    rays = Rays(n, pixels, volume)
    smooth = functools.partial(smoothed, kernel=gaussian_matrix(n, SMOOTH_VOXELS, volume))

    near_body = (4 * smooth(smooth((volume > BODY).to(volume.dtype)))).clamp(max=1)
    prior = OUTSIDE + (1 - OUTSIDE) * near_body

    def change_of(z: Tensor) -> Tensor:
        return prior * smooth(z)

    def normal(z: Tensor) -> Tensor:
        return adjoint(rays.project(change_of(z))) + noise**2 * z

    def adjoint(images: Tensor) -> Tensor:
        return smooth(prior * rays.back_project(images * known))

    projected = rays.project(volume.clamp(min=0))
    z = torch.zeros_like(volume)
    difference = explained = torch.zeros_like(image)
    for number in range(rounds):
        if number:
            explained = rays.project(change_of(z))
        difference = known * (match_greys(image, projected + explained, known) - projected)
        residual = adjoint(difference - explained) - noise**2 * z
        direction, squared = residual, _squared(residual)
        for _ in range(STEPS):
            image_of_direction = normal(direction)
            step = squared / (direction * image_of_direction).sum((1, 2, 3, 4), keepdim=True).clamp(min=1e-12)
            z = z + step * direction
            residual = residual - step * image_of_direction
            before, squared = squared, _squared(residual)
            direction = residual + squared / before.clamp(min=1e-12) * direction
    return change_of(z), difference


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    """``matrix @ x`` of each in a batch. By itself ``@`` transposes a batch of one and copies it."""
    return torch.bmm(matrix.expand(len(x), -1, -1), x)


def _inner(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    return (weight * a * b).mean((2, 3), keepdim=True)


def _squared(x: Tensor) -> Tensor:
    return x.square().sum((1, 2, 3, 4), keepdim=True)


def smoothed(x: Tensor, kernel: Tensor) -> Tensor:
    """``(B, 1, n, n, n)`` along each axis, by a symmetric matrix ``(n, n)``."""
    return _product(kernel, (kernel @ (x @ kernel))[:, 0].flatten(2)).view(x.shape)


def gaussian_matrix(n: int, sigma: float, like: Tensor) -> Tensor:
    """Symmetric ``(n, n)``, for :func:`smoothed`; what would lie outside is lost.

    Args:
        n: voxels.
        sigma: standard deviation in voxels.
        like: has the type and device of the result.
    """
    at = torch.arange(n, dtype=torch.float64, device=like.device)
    away = (at[:, None] - at) / sigma
    kernel = torch.exp(-0.5 * away**2) * (away.abs() <= 3)  # beyond it numbers so small that they slow down everything
    return (kernel / kernel[n // 2].sum()).to(like.dtype)


def _resampling(view: int, n: int, pixels: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Of each slice ``(n, n, pixels)`` along rows and columns alike, and the length of rays ``(pixels, pixels)``."""
    at, pixel = (torch.arange(m, dtype=torch.float64, device=like.device) for m in (n, pixels))
    slices = (at - (n - 1) / 2) * frame.voxel_size(n)
    away = frame.SOURCE_TO_DETECTOR_MM - frame.DETECTOR_TO_CENTRE_MM + SOURCE_SIDE[view] * slices  # from the source
    tangent = ((pixel + 0.5) / pixels - 0.5) * (frame.detector_size_mm() / frame.SOURCE_TO_DETECTOR_MM)
    place = away[:, None] * tangent / frame.voxel_size(n) + (n - 1) / 2
    matrices = (1 - (place[:, None] - at[:, None]).abs()).clamp(min=0)
    return matrices, (1 + tangent[:, None] ** 2 + tangent**2).sqrt() / n

"""How alike two CT volumes are: the published measures, the plain ones, and all of them inside the body only.

Every function takes tensors in network units, ``(X, Y, Z)`` in the chest frame, values in [0, 1] (data range 1), and
optionally a boolean ``mask`` of the same shape that says which voxels count. Definitions and sources are in
``docs/metrics.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from ..frame import HU_SPAN, hu_to_unit
from ..segmentation.body import filled_body
from ..segmentation.parameters import TISSUE

PLANES = ("sagittal", "coronal", "axial")  # the planes whose slices are stacked along x, y and z
WINDOW = 7
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2
SLAB = 8  # slices worked on at a time, so that the temporaries of SSIM stay in cache


def mae(pred: torch.Tensor, true: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Mean absolute error in network units; times 2500 it is the error in HU (inside the clipping range)."""
    pred, true = _voxels(pred, true, mask)
    return (pred - true).abs().mean(dtype=torch.float64).item()


def mae_hu(pred: torch.Tensor, true: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Mean absolute error in HU of the volumes clipped to [-1024, 1476] HU."""
    return HU_SPAN * mae(pred, true, mask)


def mse(pred: torch.Tensor, true: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Mean squared error in squared network units."""
    pred, true = _voxels(pred, true, mask)
    return (pred - true).square().mean(dtype=torch.float64).item()


def cosine_similarity(pred: torch.Tensor, true: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Cosine of the angle between the two volumes taken as vectors, 0 to 1 for non-negative volumes."""
    pred, true = (voxels.double() for voxels in _voxels(pred, true, mask))
    return torch.nn.functional.cosine_similarity(pred, true, dim=0).item()


def psnr(pred: torch.Tensor, true: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Peak signal-to-noise ratio of the whole volume in dB, ``-10 log10(MSE)``; infinite for equal volumes."""
    return float(_decibel(torch.tensor(mse(pred, true, mask), dtype=torch.float64)))


def slice_psnr(pred: torch.Tensor, true: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[float, float, float]:
    """PSNR in dB of each slice, averaged over the slices along x, y and z (see :data:`PLANES`).

    A slice without error has no finite PSNR (air against air) and one outside ``mask`` has none at all: both are left
    out of the mean. Infinite when no slice has an error.
    """
    error = (pred - true).square()
    means = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        if mask is None:
            slices = error.mean(dim=others, dtype=torch.float64)
        else:
            slices = (error * mask).sum(dim=others, dtype=torch.float64) / mask.sum(dim=others)
        slices = slices[slices > 0]  # also drops the NaN of slices that miss the mask
        nothing = float("inf") if mask is None or mask.any() else float("nan")  # as psnr says
        means.append(_decibel(slices).mean().item() if len(slices) else nothing)
    return means[0], means[1], means[2]


def slice_ssim(pred: torch.Tensor, true: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[float, float, float]:
    """SSIM of the volume taken as a multichannel 2D image with the slices along x, y or z as channels, as published.

    Equal to ``skimage.metrics.structural_similarity(pred, true, data_range=1, channel_axis=axis)``: Wang et al. 2004,
    7x7 uniform window, sample covariance, the 3-voxel rim without a full window left out. With ``mask``, the mean over
    the voxels of the mask (all slices together) rather than over all voxels.

    Raises:
        ValueError: An edge is shorter than the window.
    """
    first, second, third = (_mean_ssim(pred, true, mask, axis, halo=0) for axis in range(3))
    return first, second, third


def ssim_3d(pred: torch.Tensor, true: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """SSIM with a 7x7x7 uniform window: ``skimage.metrics.structural_similarity(pred, true, data_range=1)``.

    ``mask`` and errors as in :func:`slice_ssim`.
    """
    return _mean_ssim(pred, true, mask, axis=0, halo=WINDOW // 2)


def _mean_of(function: Callable[..., tuple[float, float, float]]) -> Callable[..., float]:
    return lambda pred, true, mask=None: float(np.mean(function(pred, true, mask)))


def _plane_of(function: Callable[..., tuple[float, float, float]], axis: int) -> Callable[..., float]:
    return lambda pred, true, mask=None: function(pred, true, mask)[axis]


SCALAR_METRICS: dict[str, Callable[..., float]] = {
    "mae": mae,
    "mae_hu": mae_hu,
    "mse": mse,
    "cosine_similarity": cosine_similarity,
    "psnr": psnr,
    "ssim_3d": ssim_3d,
}
PLANE_METRICS: dict[str, Callable[..., tuple[float, float, float]]] = {"psnr": slice_psnr, "ssim": slice_ssim}


def image_metrics(pred: torch.Tensor, true: torch.Tensor, mask: torch.Tensor | None = None) -> dict[str, float]:
    """All measures of one case by name: over the whole volume, and with the suffix ``_body`` inside the body.

    Args:
        pred: reconstruction in network units, ``(X, Y, Z)`` or ``(1, X, Y, Z)``; clipped to [0, 1] as published.
        true: CT of the same shape and units.
        mask: the body, boolean, same shape; :func:`body_mask` of ``true`` by default.

    Returns:
        ``mae``, ``mae_hu``, ``mse``, ``cosine_similarity``, ``psnr``, ``ssim_3d``, and for ``psnr`` and ``ssim`` by
        slices ``_sagittal``, ``_coronal``, ``_axial`` and their mean ``_avg``; then the same names with ``_body``.
    """
    pred, true = _prepare(pred), _prepare(true)
    mask = body_mask(true) if mask is None else torch.as_tensor(mask).reshape(true.shape).bool()
    values: dict[str, float] = {}
    for suffix, voxels in (("", None), ("_body", mask)):
        values |= {name + suffix: metric(pred, true, voxels) for name, metric in SCALAR_METRICS.items()}
        for name, metric in PLANE_METRICS.items():
            planes = metric(pred, true, voxels)
            values |= {f"{name}_{plane}{suffix}": value for plane, value in zip(PLANES, planes, strict=True)}
            values[f"{name}_avg{suffix}"] = float(np.mean(planes))
    return values


def image_metric(name: str) -> Callable[[torch.Tensor, torch.Tensor], float]:
    """One measure of :func:`image_metrics` as a function of two volumes, as that takes them.

    Args:
        name: a key that :func:`image_metrics` returns, ``psnr_avg`` or ``mae_hu_body`` for instance.

    Raises:
        ValueError: No measure has this name.
    """
    base = name.removesuffix("_body")
    functions = dict(SCALAR_METRICS)
    for prefix, metric in PLANE_METRICS.items():
        functions[f"{prefix}_avg"] = _mean_of(metric)
        functions |= {f"{prefix}_{plane}": _plane_of(metric, axis) for axis, plane in enumerate(PLANES)}
    if base not in functions:
        raise ValueError(f"no image metric is called {name!r}; there are {', '.join(functions)}, also with _body")

    def measure(pred: torch.Tensor, true: torch.Tensor) -> float:
        pred, true = _prepare(pred), _prepare(true)
        return functions[base](pred, true, body_mask(true) if base != name else None)

    return measure


def body_mask(true: torch.Tensor) -> torch.Tensor:
    """The body in a CT in network units ``(X, Y, Z)``, lungs and airways included: boolean, same shape and device.

    The largest connected part denser than -400 HU, with what it encloses in axial slices filled.
    """
    dense = (true > float(hu_to_unit(np.array(TISSUE.lung_edge)))).cpu().numpy()
    return torch.from_numpy(filled_body(dense)).to(true.device)


def _prepare(volume: torch.Tensor) -> torch.Tensor:
    """A plain tensor ``(X, Y, Z)`` in [0, 1] of at least float32."""
    volume = torch.as_tensor(volume).as_subclass(torch.Tensor)
    volume = volume.reshape(volume.shape[-3:]).clamp(0, 1)
    return volume if volume.dtype == torch.float64 else volume.float()


def _voxels(pred: torch.Tensor, true: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    return (pred.flatten(), true.flatten()) if mask is None else (pred[mask], true[mask])


def _decibel(error: torch.Tensor) -> torch.Tensor:
    return -10.0 * torch.log10(error)


def _mean_ssim(pred: torch.Tensor, true: torch.Tensor, mask: torch.Tensor | None, axis: int, halo: int) -> float:
    """Mean of the SSIM map over its voxels that have a full window: 2D across ``axis`` (halo 0), or 3D (halo 3)."""
    if min(pred.shape) < WINDOW:
        raise ValueError(f"SSIM needs volumes of at least {WINDOW} voxels along each axis, got {tuple(pred.shape)}")
    rim = WINDOW // 2
    pred, true = pred.movedim(axis, 0), true.movedim(axis, 0)
    inner = (slice(None), slice(rim, -rim), slice(rim, -rim))
    total, count = 0.0, 0
    for start, stop in _slabs(halo, pred.shape[0] - halo):
        part = slice(start - halo, stop + halo)
        similarity = _ssim_map(pred[part].double(), true[part].double(), dims=(0, 1, 2) if halo else (1, 2))
        if mask is not None:
            similarity = similarity[mask.movedim(axis, 0)[start:stop][inner]]
        total += similarity.sum().item()
        count += similarity.numel()
    return total / count if count else float("nan")


def _slabs(start: int, stop: int) -> Iterator[tuple[int, int]]:
    for first in range(start, stop, SLAB):
        yield first, min(first + SLAB, stop)


def _ssim_map(x: torch.Tensor, y: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """SSIM (Wang et al. 2004, eq. 13) where the uniform window fits, with unbiased (co)variances."""
    points = WINDOW ** len(dims)
    unbiased = points / (points - 1)
    mean_x, mean_y = _box_mean(x, dims), _box_mean(y, dims)
    variances = unbiased * (_box_mean(x * x + y * y, dims) - mean_x * mean_x - mean_y * mean_y)
    covariance = unbiased * (_box_mean(x * y, dims) - mean_x * mean_y)
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x * mean_x + mean_y * mean_y + SSIM_C1)
    return luminance * (2 * covariance + SSIM_C2) / (variances + SSIM_C2)


def _box_mean(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    for dim in dims:
        length = x.shape[dim] - WINDOW + 1
        total = x.narrow(dim, 0, length).clone()
        for offset in range(1, WINDOW):
            total += x.narrow(dim, offset, length)
        x = total.div_(WINDOW)
    return x

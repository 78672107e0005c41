"""Pictures of a reconstruction: what went in, what came out, and how far it is from the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from ..segmentation.labels import COLOURS, WINDOW_HU

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

DIFFERENCE_HU = 600.0


def orthogonal_planes(volume: np.ndarray, at: tuple[int, int, int] | None = None) -> dict[str, np.ndarray]:
    """The coronal, sagittal and axial plane through ``at`` (default: the middle) of an LPI volume ``(X, Y, Z)``.

    Rows and columns are those of a picture in the radiologist's view: feet or back down, patient's left on the right.
    """
    x, y, z = at or plane_position(None, volume.shape)
    return {"coronal": volume[:, y].T, "sagittal": volume[x].T, "axial": volume[:, :, z].T}


def plane_position(segmentation: np.ndarray | None, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Where to cut: the centre of the air-accumulated region if there is one, else the middle of the volume."""
    air = np.argwhere(segmentation >= 3) if segmentation is not None else np.empty((0, 3))
    if len(air):
        x, y, z = (int(value) for value in np.median(air, axis=0))
    else:
        x, y, z = (size // 2 for size in shape)
    return x, y, z


def draw_case(
    radiographs: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray | None = None,
    prediction_labels: np.ndarray | None = None,
    truth_labels: np.ndarray | None = None,
    title: str = "",
) -> Figure:
    """One case as a figure: the two radiographs, then three planes of the true and the reconstructed CT.

    Args:
        radiographs: ``(2, U, V)`` PA and lateral, any scale, bright is dense.
        prediction: reconstructed CT ``(X, Y, Z)`` in HU, LPI.
        truth: true CT on the same grid, in HU; without it only the reconstruction is drawn.
        prediction_labels: label map of the reconstruction (1, 2 lungs; 3, 4 air-accumulated region), drawn as outlines.
        truth_labels: label map of the true CT.
        title: name above the figure.
    """
    columns = [("reconstructed CT", prediction, prediction_labels)]
    if truth is not None:
        columns.insert(0, ("true CT", truth, truth_labels))
    figure = Figure(
        figsize=(3.0 * (1 + len(columns) + (truth is not None)), 9.4), facecolor="black", layout="constrained"
    )
    width = 1 + len(columns) + (truth is not None)
    axes = figure.subplots(3, width, squeeze=False)
    for row, (view, name) in enumerate(zip(radiographs, ("PA radiograph", "lateral radiograph"), strict=True)):
        _show(axes[row, 0], view.T, name, cmap="gray")
    axes[2, 0].axis("off")
    at = plane_position(truth_labels if truth_labels is not None else prediction_labels, prediction.shape)
    for column, (name, volume, labels) in enumerate(columns, start=1):
        planes = orthogonal_planes(volume, at)
        outlines = orthogonal_planes(labels, at) if labels is not None else {}
        for row, (plane, picture) in enumerate(planes.items()):
            axis = axes[row, column]
            _show(axis, picture, f"{name}, {plane}", cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
            _outline(axis, outlines.get(plane))
    if truth is not None:
        for row, (plane, picture) in enumerate(orthogonal_planes(prediction - truth, at).items()):
            shown = _show(
                axes[row, -1], picture, f"difference, {plane}", cmap="RdBu_r", vmin=-DIFFERENCE_HU, vmax=DIFFERENCE_HU
            )
        bar = figure.colorbar(shown, ax=axes[:, -1], orientation="horizontal", shrink=0.9, pad=0.01)
        bar.set_label("reconstructed minus true (HU)", color="white", fontsize=8)
        bar.ax.tick_params(colors="white", labelsize=7)
    if title:
        figure.suptitle(title, color="white", fontsize=12)
    return figure


def _show(axis: Axes, picture: np.ndarray, name: str, **options: Any) -> AxesImage:
    shown = axis.imshow(picture, interpolation="bilinear", **options)
    axis.set_title(name, color="white", fontsize=9)
    axis.axis("off")
    return shown


def _outline(axis: Axes, labels: np.ndarray | None) -> None:
    if labels is None:
        return
    for value, colour in enumerate(COLOURS, start=1):
        region = labels == value
        if region.any() and not region.all():
            axis.contour(region, levels=[0.5], colors=colour, linewidths=0.9)

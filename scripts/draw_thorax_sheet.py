"""Draw twelve synthetic chests, in three planes and as radiographs: ``python scripts/draw_thorax_sheet.py``.

Writes ``docs/images/synthetic_thorax.png``. Half of the cases have a pneumothorax, of rising occupancy. Each
column is a case: axial slices (soft tissue and lung window), a coronal and a sagittal slice, and the PA and lateral
radiograph of :func:`xrecon_bundle.projection.radiographs.simulate_radiographs`, with local contrast as on a film.
"""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image
from skimage.exposure import equalize_adapthist

from xrecon_bundle.anatomy.patient import ThoraxLabel
from xrecon_bundle.anatomy.pneumothorax import Pneumothorax
from xrecon_bundle.anatomy.thorax import ThoraxCase, synthesize_thorax
from xrecon_bundle.cli import start
from xrecon_bundle.files import atomic_path
from xrecon_bundle.frame import radiograph_to_unit
from xrecon_bundle.projection.radiographs import simulate_radiographs

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SOFT, LUNG = (-160.0, 240.0), (-1350.0, 150.0)  # windows in HU
OUTPUT = Path(__file__).parents[1] / "docs" / "images" / "synthetic_thorax.png"
OCCUPANCIES = (None, 0.1, None, 0.2, None, 0.3, None, 0.45, None, 0.6, None, 0.8)


def main(output: str | Path = OUTPUT, spatial_size: int = 128, first_seed: int = 0) -> None:
    """Draw the sheet for seeds from ``first_seed`` on."""
    cases = []
    for number, occupancy in enumerate(OCCUPANCIES):
        side = "right" if number % 4 == 1 else "left"
        wanted = None if occupancy is None else Pneumothorax(side, occupancy)
        cases.append((synthesize_thorax(first_seed + number, spatial_size, wanted), wanted))
    figure, axes = plt.subplots(6, 12, figsize=(19.2, 9.85))
    for column, (case, wanted) in zip(axes.T, cases, strict=True):
        for axis, image in zip(column, views(case), strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="bilinear")
            axis.axis("off")
        sex = "woman" if case.parameters.female else "man"
        title = sex if wanted is None else f"{sex}, {wanted.side} {wanted.occupancy:.0%}"
        column[0].set_title(title, fontsize=10, pad=3)
    figure.subplots_adjust(0, 0, 1, 0.975, 0.015, 0.015)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=86, format="png")
    grey = Image.open(buffer).convert("L").quantize(64)
    with atomic_path(output) as path:
        grey.save(path, optimize=True)
    print(f"{output}: {Path(output).stat().st_size / 1000:.0f} kB")


def views(case: ThoraxCase) -> list[np.ndarray]:
    """Six pictures in [0, 1], rows downwards: two axial slices, coronal, sagittal, PA, lateral."""
    ct, size = case.ct.astype(np.float32), case.ct.shape[0]
    heart = np.argwhere(case.labels == ThoraxLabel.HEART).mean(axis=0).round().astype(int)
    x, y, z = size // 2, heart[1] + size // 24, heart[2]
    arch = z - size // 7
    slices = [(ct[:, :, arch], SOFT), (ct[:, :, z], LUNG), (ct[:, y, :], LUNG), (ct[x], SOFT)]
    pictures = [((image - low) / (high - low)).clip(0, 1).T for image, (low, high) in slices]
    radiographs = radiograph_to_unit(simulate_radiographs(torch.from_numpy(ct))).numpy()
    return [*pictures, *(equalize_adapthist(radiograph.T, clip_limit=0.015) for radiograph in radiographs)]


if __name__ == "__main__":
    start(main)

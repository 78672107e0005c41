"""Draw docs/images/radiograph_styles.png and print the table of docs/radiographs.md: what style normalisation does.

The radiographs are simulated from the LIDC CT; "as displayed" adds scatter, noise and a sigmoid tone curve, as a
manufacturer's processing does. No acquired radiograph with a free licence is at hand.

    python scripts/radiograph_styles.py
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import torch
from PIL import Image

from xrecon_bundle import frame
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.datasets.lidc import fetch_lidc
from xrecon_bundle.files import write_nifti
from xrecon_bundle.frame import radiograph_to_unit
from xrecon_bundle.placement.standardize import standardize_ct
from xrecon_bundle.placement.style import normalise_style
from xrecon_bundle.projection.radiographs import detect_radiographs, simulate_radiographs

ROOT = Path(__file__).parents[1]
PIXELS = 224


def main() -> None:
    """Write the picture and print the mean absolute difference of each style from the simulated pair."""
    ct = nibabel.load(fetch_lidc(ROOT / ".cache")[0])
    ideal = _simulate(standardize_ct(np.asarray(ct.dataobj), ct.affine, 128).ct)
    detected = detect_radiographs(ideal, photons=20000, blur_mm=0.3, scatter_fraction=0.5, rng=np.random.default_rng(0))
    displayed = torch.stack([_tone_curve(view) for view in detected])
    other = ROOT / ".cache" / "radiograph_styles_reference.nii.gz"
    write_nifti(
        other, _simulate(synthesize_thorax(0, 128).ct).permute(1, 2, 0).numpy(), frame.radiograph_affine(PIXELS)
    )

    target = radiograph_to_unit(ideal)
    columns = {
        "simulated": target,
        "as displayed": radiograph_to_unit(displayed),
        "clahe": normalise_style(displayed, "clahe"),
        "matched to another case": normalise_style(displayed, str(other)),
    }
    for name, image in columns.items():
        print(f"{name:25s} {(image - target).abs().mean().item():.3f}")
    rows = [torch.cat([image[view] for image in columns.values()]) for view in range(2)]
    picture = (torch.cat(rows, 1).numpy().T * 255).astype(np.uint8)
    path = ROOT / "docs" / "images" / "radiograph_styles.png"
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(picture).save(path, optimize=True)
    print(f"wrote {path}")


def _tone_curve(view: torch.Tensor) -> torch.Tensor:
    """A sigmoid that shows the patient (the darkest to the densest tenth) in the middle of the grey scale."""
    low, high = torch.quantile(view[view > 0.5], torch.tensor([0.1, 0.9]))
    return torch.sigmoid(4 * (view - (low + high) / 2) / (high - low))


def _simulate(hu: np.ndarray) -> torch.Tensor:
    return simulate_radiographs(torch.from_numpy(hu.astype(np.float32)), PIXELS)


if __name__ == "__main__":
    main()

"""Draw films of one person in many looks: ``python scripts/draw_film_sheet.py``.

Writes ``docs/images/films.jpg``: of the open LIDC CT, five pairs a row, PA and lateral, as training and the finder of
chests see them (:mod:`xrecon_bundle.projection.film`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from xrecon_bundle.cli import start
from xrecon_bundle.datasets.lidc import standard_lidc
from xrecon_bundle.files import atomic_path
from xrecon_bundle.projection.film import extend_scan, simulate_materials
from xrecon_bundle.transforms.films import RandFilmd

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "docs" / "images" / "films.jpg"
SIZE, FILM_PIXELS = 160, 200
QUALITY = 80


def main(output: str | Path = OUTPUT, rows: int = 3, pairs: int = 5, seed: int = 0) -> None:
    """Draw the sheet.

    Args:
        output: JPEG to write.
        rows: of pictures.
        pairs: in a row.
        seed: of the looks.
    """
    materials = torch.from_numpy(simulate_materials(extend_scan(standard_lidc(ROOT / ".cache", SIZE).ct), 2 * SIZE))
    films = RandFilmd(pixels=FILM_PIXELS).set_random_state(seed)
    drawn = [films({"materials": materials})["film"] for _ in range(rows * pairs)]
    pictures = [np.concatenate(list(film.numpy().transpose(0, 2, 1)), axis=1) for film in drawn]
    sheet = np.concatenate([np.concatenate(pictures[row * pairs :][:pairs], axis=1) for row in range(rows)])
    with atomic_path(output) as temporary:
        Image.fromarray(np.rint(sheet * 255).astype(np.uint8)).save(temporary, "JPEG", quality=QUALITY)
    print(f"wrote {output}")


if __name__ == "__main__":
    start(main)

"""Synthetic chests a minute, by size: `python scripts/benchmark.py thorax`."""

from __future__ import annotations

import time

from xrecon_bundle.anatomy.pneumothorax import Pneumothorax
from xrecon_bundle.anatomy.thorax import synthesize_thorax


def run(sizes: tuple[int, ...] = (64, 128, 224), cases: int = 4) -> None:
    """Time ``cases`` chests of each size in this process, without and with a pneumothorax, after a warm-up."""
    print("| voxels | cases a minute | with a pneumothorax |\n| ---: | ---: | ---: |")
    for size in sizes:
        rates = []
        for pneumothorax in (None, Pneumothorax("left", 0.4)):
            synthesize_thorax(0, 64, pneumothorax)
            started = time.perf_counter()
            for seed in range(1, cases + 1):
                synthesize_thorax(seed, size, pneumothorax)
            rates.append(60 * cases / (time.perf_counter() - started))
        print(f"| {size} | {rates[0]:.1f} | {rates[1]:.1f} |", flush=True)

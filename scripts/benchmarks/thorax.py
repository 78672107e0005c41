"""Synthetic chests a minute, by size: `python scripts/benchmark.py thorax`."""

from __future__ import annotations

import time

from xrecon_bundle.anatomy.pneumothorax import Pneumothorax
from xrecon_bundle.anatomy.thorax import synthesize_thorax


def run(sizes: tuple[int, ...] = (64, 128, 224), cases: int = 4) -> None:
    """Time ``cases`` chests of each size in this process, without and with a pneumothorax, after a warm-up."""
    print("size  pneumothorax  s/case  cases/min")
    for size in sizes:
        for pneumothorax in (None, Pneumothorax("left", 0.4)):
            synthesize_thorax(0, 64, pneumothorax)
            started = time.perf_counter()
            for seed in range(1, cases + 1):
                synthesize_thorax(seed, size, pneumothorax)
            seconds = (time.perf_counter() - started) / cases
            print(f"{size:4d}  {'yes' if pneumothorax else 'no':12s}  {seconds:6.2f}  {60 / seconds:9.1f}")

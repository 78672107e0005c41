"""Performance figures, ratios to a named baseline measured in the same run: `python scripts/benchmark.py NAME`."""

from __future__ import annotations

import sys
from pathlib import Path

from xrecon_bundle.cli import start

sys.path.insert(0, str(Path(__file__).parent))

from benchmarks import (
    generator,
    prepare,
    projector,
    ptxseg,
    ptxseg_numbers,
    radiographs,
    reconstruction,
    startup,
    thorax,
    training,
)

if __name__ == "__main__":
    modules = (generator, prepare, projector, ptxseg, ptxseg_numbers, radiographs, reconstruction, startup, thorax)
    start({module.__name__.split(".")[-1]: module.run for module in (*modules, training)})

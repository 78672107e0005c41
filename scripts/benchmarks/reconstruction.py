"""What `xrecon reconstruct` costs at 224 beyond its imports, as a ratio to the published network alone.

``python scripts/benchmark.py reconstruction``. It loads the default weights, places, reconstructs, compares, and writes
the volume, its JSON and its page; the baseline, in the same run, is the published network as `generator` measures it
("ours"). Each is measured in a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from . import generator
from .startup import XRECON, cost, make_chest

SIZE = 224


def run(repeats: int = 2, threads: Sequence[int] = (1, 2)) -> None:
    """Print the table; of ``repeats`` the one with the least CPU seconds."""
    print("| threads | | CPU s | ratio | wall s | ratio | peak, GB |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    with TemporaryDirectory() as scratch:
        chest = make_chest(Path(scratch))
        ct = Path(scratch) / "ct.nii.gz"
        arguments = ["reconstruct", *(str(chest / f"{view}.png") for view in ("pa", "lateral")), str(ct)]
        for number in threads:
            published = generator.measure_apart("ours", SIZE, 1, number)
            ours = min((cost(XRECON, arguments, number) for _ in range(repeats)), key=lambda of: of.cpu - of.imports)
            assert ct.is_file()
            baseline = published["cpu_seconds"], published["seconds"], published["peak_gb"]
            beyond = ours.cpu - ours.imports, ours.wall - ours.imports_wall, ours.peak_gb
            for name, (cpu, wall, peak_gb) in {"published network": baseline, "xrecon reconstruct": beyond}.items():
                ratios = cpu / baseline[0], wall / baseline[1]
                cells = f"{cpu:.2f} | {ratios[0]:.2f} | {wall:.2f} | {ratios[1]:.2f} | {peak_gb:.2f}"
                print(f"| {number} | {name} | {cells} |", flush=True)

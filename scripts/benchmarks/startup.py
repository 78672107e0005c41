"""CPU seconds that each command spends before and beside its work, as a ratio to ``import torch`` in the same run.

``python scripts/benchmark.py startup``. Counted are the interpreter's start and every import that the whole command
makes, wherever it makes it; of ``--help`` and of errors, which have no work, the whole process. The environment is that
of a plain ``pip install .``: what only extras bring is hidden, for pydicom imports requests wherever there is one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

# Runs in a process of its own, after which fd 9 has what it cost, see Cost.
CHILD = """
import resource, sys, time
from importlib import _bootstrap
sys.modules["requests"] = None
load, depth, begun = _bootstrap._find_and_load, 0, time.perf_counter()
imports, wall = time.process_time(), 0.0
def find_and_load(*arguments):
    global depth, imports, wall
    start = time.process_time(), time.perf_counter()
    depth += 1
    try:
        return load(*arguments)
    finally:
        depth -= 1
        if not depth:
            imports += time.process_time() - start[0]
            wall += time.perf_counter() - start[1]
_bootstrap._find_and_load = find_and_load
try:
    {code}
finally:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    open(9, "w").write(f"{{imports}} {{time.process_time()}} {{wall}} {{time.perf_counter() - begun}} {{peak}}")
"""
TORCH = "import torch"
XRECON = "from xrecon_bundle.cli import main; main(sys.argv[1:])"


class Cost(NamedTuple):
    """CPU seconds of start and imports and of the whole process, likewise on the clock, and its peak memory in GB."""

    imports: float
    cpu: float
    imports_wall: float
    wall: float
    peak_gb: float


def run(repeats: int = 5) -> None:
    """Time every command ``repeats`` times in turn, with a synthetic chest and a small network; print the least."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        chest = make_chest(folder)
        pa, lateral, ct = (str(chest / name) for name in ("pa.png", "lateral.png", "ct.nii.gz"))
        model = ["--model", _make_weights(folder)]
        whole = {
            "--help": ["--help"],
            "reconstruct --help": ["reconstruct", "--help"],
            "mistyped command": ["reconstrct", pa],
            "unknown option": ["segment", ct, f"{folder}/l.nii.gz", "--colour", "red"],
            "missing argument": ["reconstruct", pa],
            "missing file, reconstruct": ["reconstruct", pa, f"{folder}/no.png", f"{folder}/o.nii.gz"],
            "missing file, segment": ["segment", f"{folder}/no.nii.gz", f"{folder}/l.nii.gz"],
            "output of a wrong name": ["reconstruct", pa, lateral, f"{folder}/o.jpg"],
        }
        working = {
            "reconstruct": ["reconstruct", pa, lateral, f"{folder}/o.nii.gz", *model],
            "reconstruct-folder": ["reconstruct-folder", str(folder / "chests"), f"{folder}/all", *model],
            "segment": ["segment", ct, f"{folder}/l.nii.gz"],
            "simulate": ["simulate", ct, f"{folder}/case", "64"],
            "evaluate": ["evaluate", ct, ct],
        }
        times: dict[str, list[Cost]] = {}
        for _ in range(repeats + 1):  # the first round fills the caches
            times.setdefault(TORCH, []).append(cost(TORCH, []))
            for name, arguments in {**whole, **working}.items():
                times.setdefault(name, []).append(cost(XRECON, arguments))
    least = {name: min(of.cpu if name in whole else of.imports for of in rounds[1:]) for name, rounds in times.items()}
    print("CPU s  ratio  command")
    for name, seconds in least.items():
        print(f"{seconds:5.2f}  {seconds / least[TORCH]:5.2f}  {name}")


def make_chest(folder: Path) -> Path:
    """Write a synthetic chest's CT and radiographs."""
    from xrecon_bundle.anatomy.thorax import synthesize_thorax
    from xrecon_bundle.datasets.cases import write_case
    from xrecon_bundle.frame import cube_affine

    write_case(folder / "chests" / "chest", synthesize_thorax(0, 64).ct, cube_affine(64))
    return folder / "chests" / "chest"


def _make_weights(folder: Path) -> str:
    """Of a network as the default one, but small: what it computes is not counted."""
    from xrecon_bundle.networks.fine import FineGenerator
    from xrecon_bundle.networks.weights import save_weights

    path = folder / "fine.pt"
    save_weights(FineGenerator(64).state_dict(), path)
    return str(path)


def cost(code: str, arguments: list[str], threads: int = 1) -> Cost:
    """Run code with arguments in a process of its own."""
    reading, writing = os.pipe()
    code = f"import os; os.dup2({writing}, 9); os.close({writing})\n" + CHILD.format(code=code)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, as what pip installs is
    subprocess.run(
        [sys.executable, "-c", code, *arguments], pass_fds=[writing], capture_output=True, check=False, env=environment
    )
    os.close(writing)
    with os.fdopen(reading) as pipe:
        return Cost(*map(float, pipe.read().split()))

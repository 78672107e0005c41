"""CPU seconds that each command spends before and beside its work, as a ratio to ``import torch`` in the same run.

``python scripts/benchmark.py startup``. Counted are the interpreter's start and every import that the whole command
makes, wherever it makes it; of ``--help`` and of errors, which have no work, the whole process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

# Runs in a process of its own, after which fd 9 has its CPU seconds: of start and imports, and of the whole.
CHILD = """
import sys, time
from importlib import _bootstrap
load, depth, seconds = _bootstrap._find_and_load, 0, time.process_time()
def find_and_load(*arguments):
    global depth, seconds
    begun = time.process_time()
    depth += 1
    try:
        return load(*arguments)
    finally:
        depth -= 1
        if not depth:
            seconds += time.process_time() - begun
_bootstrap._find_and_load = find_and_load
try:
    {code}
finally:
    open(9, "w").write(f"{{seconds}} {{time.process_time()}}")
"""
TORCH = "import torch"
XRECON = "from xrecon_bundle.cli import main; main(sys.argv[1:])"


def run(repeats: int = 5) -> None:
    """Time every command ``repeats`` times in turn on a synthetic chest, and print the least of each."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        chest = _make_chest(folder)
        pa, lateral, ct = (str(chest / name) for name in ("pa.png", "lateral.png", "ct.nii.gz"))
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
            "reconstruct": ["reconstruct", pa, lateral, f"{folder}/o.nii.gz"],
            "reconstruct-folder": ["reconstruct-folder", str(folder / "chests"), f"{folder}/all"],
            "segment": ["segment", ct, f"{folder}/l.nii.gz"],
            "simulate": ["simulate", ct, f"{folder}/case", "64"],
            "evaluate": ["evaluate", ct, ct],
        }
        times: dict[str, list[tuple[float, float]]] = {}
        for _ in range(repeats + 1):  # the first round fills the caches
            times.setdefault(TORCH, []).append(_seconds(TORCH, []))
            for name, arguments in {**whole, **working}.items():
                times.setdefault(name, []).append(_seconds(XRECON, arguments))
    least = {name: min(pair[name in whole] for pair in rounds[1:]) for name, rounds in times.items()}
    print("CPU s  ratio  command")
    for name, seconds in least.items():
        print(f"{seconds:5.2f}  {seconds / least[TORCH]:5.2f}  {name}")


def _make_chest(folder: Path) -> Path:
    from xrecon_bundle.anatomy.thorax import synthesize_thorax
    from xrecon_bundle.datasets.cases import write_case
    from xrecon_bundle.frame import cube_affine

    write_case(folder / "chests" / "chest", synthesize_thorax(0, 64).ct, cube_affine(64))
    return folder / "chests" / "chest"


def _seconds(code: str, arguments: list[str]) -> tuple[float, float]:
    """CPU seconds of start and imports, and of the whole process."""
    reading, writing = os.pipe()
    code = f"import os; os.dup2({writing}, 9); os.close({writing})\n" + CHILD.format(code=code)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, as what pip installs is
    subprocess.run(
        [sys.executable, "-c", code, *arguments], pass_fds=[writing], capture_output=True, check=False, env=environment
    )
    os.close(writing)
    with os.fdopen(reading) as pipe:
        imports, whole = map(float, pipe.read().split())
    return imports, whole

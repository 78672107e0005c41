"""A training by configs/train.yaml that takes seconds: 16^3, networks of a few weights; and ways to break it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from pydoc import locate
from typing import Any
from unittest import mock

import monai.bundle
import numpy as np
import torch
from torch import nn

from xrecon_bundle.datasets.cases import write_case
from xrecon_bundle.files import InputError, write_json
from xrecon_bundle.frame import cube_affine
from xrecon_bundle.networks import radiographs_to_volume

CONFIGS = Path(__file__).parents[1] / "configs"
OVERLAY = Path(__file__).with_suffix(".yaml")
SIZE = 16
TRAIN_CASES = 4


class TinyGenerator(nn.Module):
    """Two convolutions over the radiographs spread through the volume, with dropout between."""

    def __init__(self, width: int = 4, dropout: float = 0.3) -> None:
        super().__init__()
        self.first = nn.Conv3d(2, width, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv3d(width, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = self.first(radiographs_to_volume(image, image.shape[-1])).relu()
        return self.last(self.dropout(hidden))


def write_dataset(folder: Path) -> Path:
    """Four cases to train on and two to validate with: blocks of soft tissue of random places and sizes."""
    rng = np.random.default_rng(0)
    splits = ["train"] * TRAIN_CASES + ["validation"] * 2
    for number in range(len(splits)):
        ct = np.full((SIZE,) * 3, -1000.0)
        corner, extent = rng.integers(1, 6, 3), rng.integers(4, 9, 3)
        ct[tuple(slice(start, start + length) for start, length in zip(corner, extent, strict=True))] = 40.0
        write_case(folder / f"case{number}", ct, cube_affine(SIZE))
    write_json(
        folder / "manifest.json",
        {"cases": [{"case": f"case{number}", "split": split} for number, split in enumerate(splits)]},
    )
    return folder


def train(dataset: Path, folder: Path, *overlays: str, **overrides: Any) -> dict[str, torch.Tensor]:
    """Run the config in this process; returns the generator's weights in the newest checkpoint."""
    try:
        monai.bundle.run(
            run_id="training",
            config_file=[str(CONFIGS / "train.yaml"), str(OVERLAY), *(str(CONFIGS / name) for name in overlays)],
            bundle_root=str(CONFIGS.parent),
            dataset_dir=str(dataset),
            ckpt_dir=str(folder),
            output_dir=str(folder / "tensorboard"),
            **overrides,
        )
    except RuntimeError as error:
        raise _root(error) from error
    return newest_checkpoint(folder)["generator"]


def _root(error: BaseException) -> BaseException:
    """The error itself, which MONAI wraps in errors that name the config's expressions."""
    return error if error.__cause__ is None or isinstance(error, InputError) else _root(error.__cause__)


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a training, oldest first."""
    return sorted((folder / "checkpoints").glob("*.pt"), key=lambda path: int(path.stem.split("=")[1]))


def newest_checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(checkpoints(folder)[-1], weights_only=True)


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def at_call(target: str, call: int, instead: Callable[[], None]) -> mock._patch:
    """Patch the function of this dotted name: call number ``call`` first does ``instead``."""
    original, calls = locate(target), 0
    assert callable(original), target

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            instead()
        return original(*args, **kwargs)

    return mock.patch(target, counted)


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_processes(function: Callable[..., Any], arguments: list[tuple]) -> list[int | None]:
    """Run the function in one process for each tuple of arguments, at the same time; returns their exit codes."""
    context = multiprocessing.get_context("forkserver")  # imports once what takes seconds to import
    context.set_forkserver_preload(["tiny_training", "monai.handlers", "xrecon_bundle.handlers"])
    processes = [context.Process(target=function, args=args) for args in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def train_until_killed(dataset: Path, folder: Path, target: str, call: int, overrides: dict[str, Any]) -> None:
    """A run, resumed where there is something to resume, in a process of its own that dies of SIGKILL at that call."""
    codes = in_processes(_train_and_die, [(dataset, folder, target, call, overrides)])
    assert codes == [-signal.SIGKILL], codes


def _train_and_die(dataset: Path, folder: Path, target: str, call: int, overrides: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    with at_call(target, call, kill_myself):
        train(dataset, folder, **overrides, resume=True)

"""Export a generator to a file that runs without this package: ONNX, or a program of ``torch.export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ..files import InputError, atomic_path
from .fine import FineGenerator

METADATA = "xrecon.json"  # beside the program, in the same file
SUFFIXES = (".onnx", ".pt2")


def export_generator(generator: nn.Module, path: str | Path) -> None:
    """Write a generator as ONNX or as a program of ``torch.export``, as the file's name says.

    Input ``image`` (1, 2, S, S), output ``pred`` (1, 1, S, S, S); one size, a batch of one.

    Args:
        generator: with the attributes ``spatial_size`` (S) and ``unknown``, on the CPU.
        path: ``*.onnx``, in one file; or ``*.pt2``, for ``torch.export.load(path).module()``. The latter holds
            :data:`METADATA` too: ``spatial_size``, and ``unknown``, the input's value where a film shows nothing.

    Raises:
        InputError: the name is neither, the packages ``onnx`` and ``onnxscript`` are missing, or a fine generator shall
            become ONNX, which PyTorch's exporter does not bring to an end.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: a generator is exported as {' or '.join(SUFFIXES)}; name the file so")
    if path.suffix == ".onnx" and isinstance(generator, FineGenerator):
        raise InputError(f"{path}: ONNX of a fine generator does not work yet; name the file .pt2")
    size = cast(int, generator.spatial_size)
    image = torch.zeros(1, 2, size, size)
    export = _export_onnx if path.suffix == ".onnx" else _export_program
    with torch.no_grad():
        export(generator.eval(), image, path)


def _export_program(generator: nn.Module, image: Tensor, path: Path) -> None:
    program = torch.export.export(generator, (image,))
    metadata = {"spatial_size": generator.spatial_size, "unknown": generator.unknown}
    with atomic_path(path) as temporary:
        torch.export.save(program, temporary, extra_files={METADATA: json.dumps(metadata)})


def _export_onnx(generator: nn.Module, image: Tensor, path: Path) -> None:
    try:
        program = torch.onnx.export(
            generator, (image,), input_names=["image"], output_names=["pred"], dynamo=True, verbose=False
        )
    except ModuleNotFoundError as error:
        raise InputError(f"{path}: needs the package {error.name}; pip install 'xrecon-bundle[onnx]'") from error
    assert program is not None  # of the newer exporter
    with atomic_path(path) as temporary:
        program.save(str(temporary), external_data=False)

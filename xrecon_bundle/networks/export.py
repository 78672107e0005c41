"""Export a generator to ONNX."""

from __future__ import annotations

from pathlib import Path

import torch

from ..files import InputError, atomic_path
from .generator import XReconGenerator


def export_onnx(generator: XReconGenerator, path: str | Path) -> None:
    """Write a generator as one ONNX file with input ``image`` (1, 2, S, S) and output ``pred`` (1, 1, S, S, S).

    Args:
        generator: at its ``spatial_size`` S, on the CPU; a batch of one is exported.
        path: of the file, ``*.onnx``.

    Raises:
        InputError: the packages ``onnx`` and ``onnxscript`` are missing.
    """
    image = torch.zeros(1, 2, generator.spatial_size, generator.spatial_size)
    try:
        with torch.no_grad():
            program = torch.onnx.export(
                generator.eval(), (image,), input_names=["image"], output_names=["pred"], dynamo=True, verbose=False
            )
    except ModuleNotFoundError as error:
        raise InputError(f"{path}: needs the package {error.name}; pip install 'xrecon-bundle[onnx]'") from error
    assert program is not None  # of the newer exporter
    with atomic_path(path) as temporary:
        program.save(str(temporary), external_data=False)

"""Export a generator to a file that runs without this package: ONNX, or a program of ``torch.export``."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

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
        InputError: the name is neither, or the packages ``onnx`` and ``onnxscript`` are missing.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: a generator is exported as {' or '.join(SUFFIXES)}; name the file so")
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
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # no torchvision
    try:
        program = torch.onnx.export(
            generator,
            (image,),
            input_names=["image"],
            output_names=["pred"],
            dynamo=True,
            verbose=False,
            # its rules do not come to an end on the 33,000 nodes of a fine generator
            optimize=not isinstance(generator, FineGenerator),
            custom_translation_table={torch.ops.aten.conv3d.default: _onnx_conv3d()},
        )
    except ModuleNotFoundError as error:
        raise InputError(f"{path}: needs the package {error.name}; pip install 'xrecon-bundle[onnx]'") from error
    assert program is not None  # of the newer exporter
    with atomic_path(path) as temporary:
        program.save(str(temporary), external_data=False)


def _onnx_conv3d() -> Callable[..., Any]:
    """A 3D convolution as ONNX: onnxscript 0.7 gives one without a bias a bias of the wrong shape."""
    from onnxscript import opset18

    def conv3d(
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Sequence[int] = (1, 1, 1),
        padding: Sequence[int] = (0, 0, 0),
        dilation: Sequence[int] = (1, 1, 1),
        groups: int = 1,
    ) -> Any:
        pads = [*padding, *padding]
        return opset18.Conv(x, weight, bias, strides=list(stride), pads=pads, dilations=list(dilation), group=groups)

    return conv3d

"""Load a generator's weights, safely and with a clear word when they do not fit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import InputError, atomic_path

if TYPE_CHECKING:
    import torch

    from .generator import XReconGenerator

SPATIAL_SIZE = 64  # of weights that do not say it, and of those in models/; the same as in configs/ (a test compares)
LARGEST_SIZE = 512


def check_weights(path: str | Path) -> None:
    """Raise :class:`InputError` unless there is a file; at once, while :func:`load_generator` first imports PyTorch."""
    if not Path(path).is_file():
        raise InputError(
            f"{path}: no weights here; train with configs/train.yaml, "
            "or give others: after `make demo`, --model demo/models/model.pt"
        )


def load_generator(path: str | Path, spatial_size: int | None = None) -> XReconGenerator:
    """The generator whose weights a plain state dict holds, in evaluation mode, on the CPU.

    The preset is the one whose parameter names and shapes are those of the file. Only tensors are unpickled
    (``weights_only``), so an untrusted file cannot run code.

    Args:
        path: what a training leaves as ``model.pt``.
        spatial_size: edge of the volume that the weights were trained for; None: what the file says (see
            :func:`save_weights`), else :data:`SPATIAL_SIZE`.

    Raises:
        InputError: no such file, not a state dict, or the weights of another network or size.
    """
    check_weights(path)
    import torch

    from .generator import PRESETS, build_generator

    path = Path(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        shapes = {name: tuple(value.shape) for name, value in state.items()}
    except Exception as error:
        raise InputError(f"{path}: not a plain PyTorch state dict; give the model.pt that a training wrote") from error
    if spatial_size is None:
        spatial_size = _stated_size(state) or SPATIAL_SIZE
    for preset in PRESETS:
        try:
            with torch.device("meta"):
                generator = build_generator(preset, spatial_size)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error
        if shapes == {name: tuple(value.shape) for name, value in generator.state_dict().items()}:
            generator.load_state_dict(state, assign=True)
            return generator.eval()
    raise InputError(
        f"{path}: these weights fit no preset ({', '.join(PRESETS)}) at spatial size {spatial_size}; "
        "give the size that they were trained at with --spatial_size"
    )


def save_weights(state: Mapping[str, torch.Tensor], path: str | Path, spatial_size: int | None = None) -> None:
    """Write a plain state dict, on the CPU, atomically.

    Args:
        state: of a generator.
        path: the file.
        spatial_size: that the weights are for, where ``state`` is not a generator's own and does not know it. It is
            kept in the metadata that PyTorch has for a state dict; the entries are the weights alone.
    """
    import torch

    plain = OrderedDict((name, value.detach().cpu()) for name, value in state.items())
    size = spatial_size or _stated_size(state)
    if size is not None:
        plain._metadata = OrderedDict({"": {"spatial_size": size}})
    with atomic_path(path) as temporary:
        torch.save(plain, temporary)


def _stated_size(state: Mapping[str, torch.Tensor]) -> int | None:
    metadata = getattr(state, "_metadata", None)
    of_module = metadata.get("") if isinstance(metadata, dict) else None
    size = of_module.get("spatial_size") if isinstance(of_module, dict) else None
    return size if isinstance(size, int) and 0 < size <= LARGEST_SIZE else None

"""Load a generator's weights, safely and with a clear word when they do not fit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import InputError, atomic_path

if TYPE_CHECKING:
    import torch

    from .fine import FineGenerator, Part
    from .generator import XReconGenerator
    from .thickness import ThicknessNet

SPATIAL_SIZE = 64  # of weights that do not say it; the same as in the configs that train (a test compares)
LARGEST_SIZE = 512
FINE = "fine"


def check_weights(path: str | Path) -> None:
    """Raise :class:`InputError` unless there is a file; at once, while :func:`load_generator` first imports PyTorch."""
    if not Path(path).is_file():
        raise InputError(
            f"{path}: no weights here; train with configs/train.yaml, "
            "or give others: after `make demo`, --model demo/models/model.pt"
        )


def size_of_weights(path: str | Path) -> int:
    """For which edge of the volume the weights of a file are; :data:`SPATIAL_SIZE` where it does not say.

    Raises:
        InputError: no such file, or not a state dict.
    """
    return _stated_size(_read_state(path)) or SPATIAL_SIZE


def load_generator(
    path: str | Path, spatial_size: int | None = None, activation_checkpointing: bool = False
) -> XReconGenerator | FineGenerator:
    """The generator whose weights a plain state dict holds, in evaluation mode, on the CPU, in float32.

    The network (a preset, or the fine one) is the one whose parameter names and shapes are those of the file. Only
    tensors are unpickled (``weights_only``), so an untrusted file cannot run code.

    Args:
        path: what a training leaves as ``model.pt``.
        spatial_size: edge of the volume that the weights were trained for; None: what the file says (see
            :func:`save_weights`), else :data:`SPATIAL_SIZE`, which the weights of a fine generator do not tell.
        activation_checkpointing: see :class:`~.generator.XReconGenerator`; a fine one has none.

    Raises:
        InputError: no such file, not a state dict, the weights of another network or size, or of a fine one and no size
            is known.
    """
    state = _read_state(path)
    import torch

    from .fine import FineGenerator
    from .generator import PRESETS, XReconGenerator, build_generator

    path = Path(path)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    stated = _stated_size(state) if spatial_size is None else spatial_size
    spatial_size = SPATIAL_SIZE if stated is None else stated
    for network in (*PRESETS, FINE):
        try:
            with torch.device("meta"):
                generator = FineGenerator(spatial_size) if network == FINE else build_generator(network, spatial_size)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error
        if isinstance(generator, FineGenerator):
            shapes.setdefault("deviation_factor", ())  # older weights have none; it is added as they are loaded
        if shapes == {name: tuple(value.shape) for name, value in generator.state_dict().items()}:
            if network == FINE and stated is None:
                raise InputError(
                    f"{path}: weights of a fine generator that do not say for which size, and fit any; give it with "
                    "--spatial_size (224 for 1.6 mm), or write them with save_weights"
                )
            generator.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
            if isinstance(generator, XReconGenerator):
                generator.activation_checkpointing = activation_checkpointing
            return generator.eval()
    raise InputError(
        f"{path}: these weights fit no network ({', '.join((*PRESETS, FINE))}) at spatial size {spatial_size}; "
        "give the size that they were trained at with --spatial_size"
    )


def _read_state(path: str | Path) -> dict[str, torch.Tensor]:
    check_weights(path)
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise TypeError("it holds more than tensors")
        return state
    except Exception as error:
        raise InputError(f"{path}: not a plain PyTorch state dict; give the model.pt that a training wrote") from error


def load_fine(
    path: str | Path, thickness: str | Path, bones: str | Path, spatial_size: int = 224, learning: Part = "fine"
) -> FineGenerator:
    """A fine generator to train: of its own weights, or fresh around those of a coarse one.

    Args:
        path: weights of either.
        thickness: weights of the :class:`~.thickness.ThicknessNet` of a fresh one, of lung and free air.
        bones: likewise, of bone.
        spatial_size: of a fresh one.
        learning: the part that learns, see :meth:`~.fine.FineGenerator.learn`.

    Raises:
        InputError: as :func:`load_generator`.
    """
    from .fine import FineGenerator, warm_start
    from .thickness import ThicknessNet, bone_net

    network = load_generator(path)
    if not isinstance(network, FineGenerator):
        seeing = load_thickness(thickness, ThicknessNet()), load_thickness(bones, bone_net())
        network = warm_start(FineGenerator(spatial_size), network, *seeing)
    return network.learn(learning)


def load_thickness(path: str | Path, network: ThicknessNet) -> ThicknessNet:
    """Give a network of thickness maps the weights that ``scripts/thickness_weights.py`` wrote, in float32.

    Raises:
        InputError: no such file, or not its weights.
    """
    import torch

    if not Path(path).is_file():
        raise InputError(f"{path}: no weights here; make them with scripts/thickness_weights.py")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict({name: value.float() for name, value in state.items()})
    except Exception as error:
        raise InputError(
            f"{path}: not the weights of the thickness maps; make them with scripts/thickness_weights.py"
        ) from error
    return network.eval()


def save_weights(
    state: Mapping[str, torch.Tensor], path: str | Path, spatial_size: int | None = None, half: bool = False
) -> None:
    """Write a plain state dict, on the CPU, atomically.

    Args:
        state: of a generator.
        path: the file.
        spatial_size: that the weights are for, where ``state`` is not a generator's own and does not know it. It is
            kept in the metadata that PyTorch has for a state dict; the entries are the weights alone.
        half: in half precision; :func:`load_generator` makes them float32 again.
    """
    import torch

    plain = OrderedDict((name, value.detach().cpu()) for name, value in state.items())
    if half:
        plain = OrderedDict((name, value.half()) for name, value in plain.items())
    size = spatial_size or _stated_size(state)
    if size is not None:
        setattr(plain, "_metadata", OrderedDict({"": {"spatial_size": size}}))  # noqa: B010 - PyTorch's own attribute
    with atomic_path(path) as temporary:
        torch.save(plain, temporary)


def _stated_size(state: Mapping[str, torch.Tensor]) -> int | None:
    metadata = getattr(state, "_metadata", None)
    of_module = metadata.get("") if isinstance(metadata, dict) else None
    size = of_module.get("spatial_size") if isinstance(of_module, dict) else None
    return size if isinstance(size, int) and 0 < size <= LARGEST_SIZE else None

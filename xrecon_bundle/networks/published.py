"""Bring the authors' released generator checkpoint into :class:`~xrecon_bundle.networks.XReconGenerator`.

The release orders a volume as (z, y, x), the PA image as (z, x) and the lateral as (z, y), and a branch has its depth
first; we run everything in (x, y, z). Transposing the kernels once makes the networks equal. (A reversed axis is
another matter: flip the data, not the weights, since a stride-2 convolution does not commute with a flip.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from ..files import InputError

# The release's name of a view's branch, and where our axes (x, y, z) stand among its (depth, z, u).
BRANCHES = (("view1Model", (2, 0, 1)), ("view2Model", (0, 2, 1)))
MAIN_AXES = (2, 1, 0)  # the same for the main decoder's (z, y, x)
STAGE_LAYERS = (4, 8, 16, 8, 4)
ENCODER_CHANNELS = (64, 96, 176, 344, 300)
DECODER_CHANNELS = {4: 256, 3: 128, 2: 64, 1: 32, 0: 16, -1: 16}
GROWTH, BOTTLENECK = 32, 128
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")

# A transposed conv's weight has its inputs first. Here alone all decoders read one input, and join along the outputs.
SHARED_UP = "scales.0.up.weight"

Shapes = dict[str, tuple[int, ...]]


def read_published(path: str | Path, spatial_size: int) -> dict[str, Tensor]:
    """The state dict of a released checkpoint (``<epoch>_net_G.pth``), every name and shape checked.

    Only tensors and plain containers are unpickled (``weights_only``), so an untrusted file cannot run code.

    Raises:
        InputError: no such file, no checkpoint of this network, or one of another size; names the first entry that
            differs.
    """
    path = Path(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # torch.load raises many kinds
        raise InputError(f"{path}: not a PyTorch checkpoint that can be read safely (weights only)") from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: has no 'state_dict' of tensors; give a released '<epoch>_net_G.pth'")
    expected = published_shapes(spatial_size)
    for name, shape in expected.items():
        if name not in state:
            raise InputError(f"{path}: not the published generator: has no entry '{name}'")
        if tuple(state[name].shape) != shape:
            found, wanted = ("x".join(map(str, of)) for of in (state[name].shape, shape))
            hint = "; give the spatial size that it was trained at" if "base_link" in name else ""
            raise InputError(f"{path}: '{name}' is {found}, but {wanted} at spatial size {spatial_size}{hint}")
    for name in state:
        if name not in expected and not name.endswith(BUFFERS):
            raise InputError(f"{path}: not the published generator: has an unknown entry '{name}'")
    return state


def convert_published(checkpoint_path: str | Path, spatial_size: int) -> dict[str, Tensor]:
    """State dict of ``XReconGenerator(spatial_size)`` from a released checkpoint.

    Args:
        checkpoint_path: the released ``<epoch>_net_G.pth``.
        spatial_size: the size that it was trained at, 224 in the paper.

    Raises:
        InputError: see :func:`read_published`.
    """
    state = read_published(checkpoint_path, spatial_size)
    return convert_state(state, spatial_size)


def convert_state(state: dict[str, Tensor], spatial_size: int) -> dict[str, Tensor]:
    """As :func:`convert_published`, from the released state dict itself."""
    return {
        name: torch.cat([reorder(state[source]) for source, reorder in parts], int(name == SHARED_UP)).contiguous()
        for name, parts in _sources(spatial_size).items()
    }


def unused_entries(names: Iterable[str]) -> dict[str, list[str]]:
    """Those of a released checkpoint's entries that the generator does not need: the reason, and the entries."""
    used = {source for parts in _sources(224).values() for source, _ in parts}
    unused: dict[str, list[str]] = {}
    for name in names:
        if name in used:
            continue
        if name.endswith(BUFFERS):
            reason = "norm buffers: every instance is normalised by its own statistics"
        elif _is_dead(name):
            reason = "layers at full size whose result never reaches the output"
        else:
            reason = "biases that the following instance norm removes"
        unused.setdefault(reason, []).append(name)
    return unused


def published_shapes(spatial_size: int) -> Shapes:
    """Name and shape of every parameter of the released generator at a spatial size."""
    shapes: Shapes = {}

    def add(name: str, weight: tuple[int, ...], bias: int) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = (bias,)

    def conv(name: str, inputs: int, outputs: int, *kernel: int) -> None:
        add(name, (outputs, inputs, *kernel), outputs)

    def up(name: str, inputs: int, outputs: int) -> None:
        add(f"{name}.block.block.0", (inputs, outputs, 3, 3, 3), outputs)

    cube = (3, 3, 3)
    for branch, _ in BRANCHES:
        conv(f"{branch}.encoder_layer.1", 1, ENCODER_CHANNELS[0], 7, 7)
        for stage, (channels, layers) in enumerate(zip(ENCODER_CHANNELS, STAGE_LAYERS, strict=True)):
            name = f"{branch}.encoder_layer{stage}"
            conv(f"{name}.2", channels, channels, 3, 3)
            for layer in range(layers):
                conv(f"{name}.3.conv_block.{layer}.conv1", channels + GROWTH * layer, BOTTLENECK, 1, 1)
                conv(f"{name}.3.conv_block.{layer}.conv2", BOTTLENECK, GROWTH, 3, 3)
            grown = channels + GROWTH * layers
            if stage < 4:
                conv(f"{name}.6", grown, ENCODER_CHANNELS[stage + 1], 1, 1)
            else:
                rows = DECODER_CHANNELS[4] * (spatial_size // 32) ** 3
                add(f"{branch}.base_link.0", (rows, grown), rows)
        for number, channels in enumerate(ENCODER_CHANNELS):
            name, lifted = f"{branch}.linker_layer{number}.0", DECODER_CHANNELS[number - 1]
            conv(f"{name}.compress_block.0", channels, lifted, 1, 1)
            conv(f"{name}.conv_block.0", lifted, lifted, *cube)
        up(f"{branch}.decoder_layer4.0", DECODER_CHANNELS[4], DECODER_CHANNELS[3])
        for scale in (3, 2, 1, 0, -1):
            channels = DECODER_CHANNELS[scale]
            conv(f"{branch}.decoder_compress_layer{scale}.0", 2 * channels, channels, *cube)
            conv(f"{branch}.decoder_layer{scale}.0", channels, channels, *cube)
            if scale >= 0:
                conv(f"{branch}.decoder_layer{scale}.3", channels, channels, *cube)
                up(f"{branch}.decoder_layer{scale}.6", channels, DECODER_CHANNELS[scale - 1])
        conv(f"{branch}.decoder_layer.0", DECODER_CHANNELS[-1], 1, 7, 7, 7)
    up("decoder_layer4.0", DECODER_CHANNELS[4], DECODER_CHANNELS[3])
    for scale in (3, 2, 1, 0, -1):
        channels = DECODER_CHANNELS[scale]
        conv(f"tohu_layer{scale}.0", 2 * channels, 1, 1, 1, 1)
        conv(f"decoder_layer{scale}.0", 2 * channels, channels, *cube)
        conv(f"decoder_layer{scale}.3", channels, channels, *cube)
        if scale >= 0:
            up(f"decoder_layer{scale}.6", channels, DECODER_CHANNELS[scale - 1])
    return shapes


def _is_dead(name: str) -> bool:
    layer = name.split(".")[-3] if name.startswith("view") else name.split(".")[0]
    return layer in ("decoder_layer-1", "decoder_layer")


def _sources(spatial_size: int) -> dict[str, list[tuple[str, Callable[[Tensor], Tensor]]]]:
    """For each of our parameters: the released ones that it joins, and how each is reordered before."""
    sources: dict[str, list[tuple[str, Callable[[Tensor], Tensor]]]] = {}
    size = spatial_size // 32

    def flat(weight: Tensor) -> Tensor:
        return weight.transpose(-1, -2)

    def solid(axes: tuple[int, ...], channels: slice = slice(None)) -> Callable[[Tensor], Tensor]:
        return lambda weight: weight[:, channels].permute(0, 1, *(2 + axis for axis in axes))

    def volume(axes: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
        def reorder(rows: Tensor) -> Tensor:
            cube = rows.unflatten(0, (-1, size, size, size))
            return cube.permute(0, *(1 + axis for axis in axes), *range(4, cube.dim())).flatten(0, 3)

        return reorder

    def keep(tensor: Tensor) -> Tensor:
        return tensor

    for view, (branch, axes) in enumerate(BRANCHES):
        encoder = f"encoders.{view}"
        sources[f"{encoder}.stem.weight"] = [(f"{branch}.encoder_layer.1.weight", flat)]
        for stage, layers in enumerate(STAGE_LAYERS):
            ours, theirs = f"{encoder}.stages.{stage}", f"{branch}.encoder_layer{stage}"
            sources[f"{ours}.down.weight"] = [(f"{theirs}.2.weight", flat)]
            for layer in range(layers):
                for conv in ("conv1", "conv2"):
                    name = f"{theirs}.3.conv_block.{layer}.{conv}"
                    sources[f"{ours}.layers.{layer}.{conv}.weight"] = [(f"{name}.weight", flat)]
                    if stage == 4 and conv == "conv2":
                        sources[f"{ours}.layers.{layer}.{conv}.bias"] = [(f"{name}.bias", keep)]
            if stage < 4:
                sources[f"{ours}.project.weight"] = [(f"{theirs}.6.weight", flat)]
            else:
                sources[f"{ours}.down.bias"] = [(f"{theirs}.2.bias", keep)]
        for kind in ("weight", "bias"):
            sources[f"bases.{view}.linear.{kind}"] = [(f"{branch}.base_link.0.{kind}", volume(axes))]

    decoders = [*((f"{branch}.", axes) for branch, axes in BRANCHES), ("", MAIN_AXES)]
    for index, scale in enumerate((3, 2, 1, 0, -1)):
        ours = f"scales.{index}"
        first, second = slice(DECODER_CHANNELS[scale]), slice(DECODER_CHANNELS[scale], None)
        up = "decoder_layer4.0" if scale == 3 else f"decoder_layer{scale + 1}.6"
        sources[f"{ours}.up.weight"] = [
            (f"{prefix}{up}.block.block.0.weight", solid(axes)) for prefix, axes in decoders
        ]
        sources[f"{ours}.link.weight"] = []
        for view, (branch, axes) in enumerate(BRANCHES):
            linker = f"{branch}.linker_layer{scale + 1}.0"
            compress = f"{branch}.decoder_compress_layer{scale}.0.weight"
            sources[f"{ours}.linkers.{view}.reduce.weight"] = [(f"{linker}.compress_block.0.weight", flat)]
            sources[f"{ours}.linkers.{view}.lift.weight"] = [(f"{linker}.conv_block.0.weight", solid(axes))]
            sources[f"{ours}.linkers.{view}.compress.weight"] = [(compress, solid(axes, second))]
            sources[f"{ours}.link.weight"].append((compress, solid(axes, first)))
        sources[f"{ours}.render_average.weight"] = [(f"tohu_layer{scale}.0.weight", solid(MAIN_AXES, first))]
        sources[f"{ours}.render_average.bias"] = [(f"tohu_layer{scale}.0.bias", keep)]
        sources[f"{ours}.render_main.weight"] = [(f"tohu_layer{scale}.0.weight", solid(MAIN_AXES, second))]
        if scale >= 0:
            # The main decoder's first conv reads the average, as the views' first convs do, and main, as link does.
            joined = [(f"{prefix}decoder_layer{scale}", axes) for prefix, axes in decoders]
            sources[f"{ours}.first.weight"] = [(f"{name}.0.weight", solid(axes, first)) for name, axes in joined]
            sources[f"{ours}.link.weight"].append((f"decoder_layer{scale}.0.weight", solid(MAIN_AXES, second)))
            sources[f"{ours}.second.weight"] = [(f"{name}.3.weight", solid(axes)) for name, axes in joined]
    return sources

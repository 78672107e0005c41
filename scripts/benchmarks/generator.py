"""Time and memory of the generator against a straightforward implementation of the published forward pass.

``python scripts/benchmark.py generator`` measures each in a process of its own, so that a peak is its own.
``python scripts/benchmark.py generator --memory`` counts the memory of a training step instead, without running it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xrecon_bundle.networks import CoordConvPatchDiscriminator, XReconGenerator, build_generator, radiographs_to_volume
from xrecon_bundle.networks.published import convert_state, published_shapes

Weights = dict[str, Tensor]
LAYERS = (4, 8, 16, 8, 4)


class PublishedForward:
    """The published forward pass, written plainly from its description, including all that never reaches the output.

    Parameters go by their published names, arrays by the published axes: images (z, x), (z, y), volume (z, y, x).
    Only as slow as the description makes it: features are permuted and concatenated, norms are PyTorch's own.

    Args:
        weights: the published state dict.
        spatial_size: S.
    """

    def __init__(self, weights: Weights, spatial_size: int) -> None:
        self.weights = weights
        self.base_size = spatial_size // 32

    def __call__(self, pa: Tensor, lateral: Tensor) -> Tensor:
        """Radiographs ``(B, 1, S, S)`` to the volume ``(B, 1, S, S, S)``."""
        # To the common axes (z, y, x) and back: PA branch (depth = y, z, x), lateral branch (depth = x, z, y).
        views = (
            ("view1Model", pa, (0, 1, 3, 2, 4), (0, 1, 3, 2, 4)),
            ("view2Model", lateral, (0, 1, 3, 4, 2), (0, 1, 4, 2, 3)),
        )
        skips, decoded = [], []
        for view, image, _, _ in views:
            features, base = self.encode(view, image)
            skips.append(features)
            decoded.append(base)
        volume = main = None
        for scale in (4, 3, 2, 1, 0, -1):
            if scale < 4:
                for index, (view, *_) in enumerate(views):
                    joined = torch.cat([decoded[index], self.link(view, scale + 1, skips[index][scale + 1])], dim=1)
                    decoded[index] = self.conv_norm_relu(f"{view}.decoder_compress_layer{scale}.0", joined)
            average = sum(x.permute(to_common) for x, (_, _, to_common, _) in zip(decoded, views, strict=True)) / 2
            if scale < 4:
                joined = torch.cat([average, main], dim=1)
                rendered = F.leaky_relu(self.conv(f"tohu_layer{scale}.0", joined, padding=0), 0.01)
                if volume is None:
                    volume = rendered / 2
                else:
                    volume = F.interpolate(volume, scale_factor=2.0, mode="trilinear", align_corners=False)
                    volume = (volume + rendered) / 2
                main = self.decode("decoder_layer", scale, joined)
            else:
                main = self.up("decoder_layer4.0", average)
            for index, (view, _, _, from_common) in enumerate(views):
                mine = average.permute(from_common)
                if scale == 4:
                    decoded[index] = self.up(f"{view}.decoder_layer4.0", mine)
                else:
                    decoded[index] = self.decode(f"{view}.decoder_layer", scale, mine)
        for view, mine in zip(("view1Model", "view2Model"), decoded, strict=True):
            self.conv(f"{view}.decoder_layer.0", mine, padding=3)
        return F.leaky_relu(volume, 0.01)

    def encode(self, view: str, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Features at S, S/2, ..., S/16 and the base volume of a branch."""
        x = self.conv(f"{view}.encoder_layer.1", F.pad(image, (3, 3, 3, 3), mode="reflect"), padding=0)
        features = [F.relu(F.instance_norm(x))]
        for stage, layers in enumerate(LAYERS):
            name = f"{view}.encoder_layer{stage}"
            x = self.conv(f"{name}.2", F.relu(F.instance_norm(features[-1])), stride=2)
            for layer in range(layers):
                new = self.conv(f"{name}.3.conv_block.{layer}.conv1", F.relu(F.instance_norm(x)), padding=0)
                new = self.conv(f"{name}.3.conv_block.{layer}.conv2", F.relu(F.instance_norm(new)))
                x = torch.cat([x, new], dim=1)
            if stage < 4:
                features.append(self.conv(f"{name}.6", F.relu(F.instance_norm(x)), padding=0))
        pooled = x.mean((2, 3))
        name = f"{view}.base_link.0"
        # Dropout does nothing in evaluation.
        base = F.relu(F.linear(pooled, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]))
        return features, base.view(len(image), -1, self.base_size, self.base_size, self.base_size)

    def link(self, view: str, number: int, x: Tensor) -> Tensor:
        """Linker: a 2D feature repeated along the depth axis and convolved."""
        name = f"{view}.linker_layer{number}.0"
        x = F.relu(F.instance_norm(self.conv(f"{name}.compress_block.0", x, padding=0)))
        x = x.unsqueeze(2).repeat(1, 1, x.shape[-1], 1, 1)
        return self.conv_norm_relu(f"{name}.conv_block.0", x)

    def decode(self, prefix: str, scale: int, x: Tensor) -> Tensor:
        """Every conv and up-sampling block that the weights hold for a scale, in order."""
        index = 0
        while f"{prefix}{scale}.{index}.weight" in self.weights:
            x = self.conv_norm_relu(f"{prefix}{scale}.{index}", x)
            index += 3
        return self.up(f"{prefix}{scale}.{index}", x) if scale >= 0 else x

    def up(self, name: str, x: Tensor) -> Tensor:
        """Up-sampling block."""
        weight, bias = self.weights[f"{name}.block.block.0.weight"], self.weights[f"{name}.block.block.0.bias"]
        x = F.conv_transpose3d(x, weight, bias, stride=2, padding=1, output_padding=1)
        return F.relu(F.instance_norm(x))

    def conv_norm_relu(self, name: str, x: Tensor) -> Tensor:
        """Conv, instance norm, ReLU."""
        return F.relu(F.instance_norm(self.conv(name, x)))

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        """Convolution with the named parameters."""
        convolve = F.conv2d if x.dim() == 4 else F.conv3d
        return convolve(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride, padding)


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Weights:
    """PyTorch's own initialisation (Kaiming-uniform, biases not zero) of every parameter: no error can hide."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    bound = 1.0
    for name, shape in shapes.items():
        if len(shape) > 1:  # a weight; its bias follows and has the same bound
            bound = torch.Size(shape[1:]).numel() ** -0.5
        weights[name] = (2 * torch.rand(shape, generator=generator) - 1) * bound
    return weights


def measure(what: str, spatial_size: int, repeats: int = 1, threads: int = 2) -> None:
    """Print one measurement, taken in this process, as JSON: seconds of the fastest run, its CPU's, peak memory in GB.

    Args:
        what: "baseline" or "ours" (inference), "ours-bf16" (under bfloat16 autocast), "baseline-training" or
            "ours-training" (one step of generator and discriminator, forward and backward).
        spatial_size: S.
        repeats: runs.
        threads: PyTorch's threads.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    weights = random_weights(published_shapes(spatial_size))
    image = torch.rand(1, 2, spatial_size, spatial_size)
    implementation, _, variant = what.partition("-")
    training = variant == "training"
    parameters: list[Tensor]
    if implementation == "baseline":
        published = PublishedForward(weights, spatial_size)
        parameters = list(weights.values())

        def generate() -> Tensor:
            pa, lateral = image.transpose(2, 3).split(1, dim=1)
            return published(pa, lateral).permute(0, 1, 4, 3, 2)
    else:
        with torch.device("meta"):
            generator = XReconGenerator(spatial_size)
        generator.load_state_dict(convert_state(weights, spatial_size), assign=True)
        parameters = list(generator.parameters())
        generator.eval()

        def generate() -> Tensor:
            return generator(image)

    del weights
    if training:
        discriminator = CoordConvPatchDiscriminator()
        condition = radiographs_to_volume(image, spatial_size)
        for parameter in parameters:
            parameter.requires_grad_()

    def step() -> None:
        if not training:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=variant == "bf16"):
                generate()
            return
        training_loss(generate(), condition, discriminator).backward()

    times = []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        step()
        times.append((time.perf_counter() - start, time.process_time() - cpu))
    seconds, cpu = min(times)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_gb": peak_gb}))


def training_loss(volume: Tensor, condition: Tensor, discriminator: CoordConvPatchDiscriminator) -> Tensor:
    """Reconstruction and adversarial loss of a generator step; the projection loss adds but the volume's gradient."""
    logits = discriminator(torch.cat([condition, volume], dim=1))
    return volume.float().square().mean() + (logits.float() - 1).square().mean()


class LiveMemory(TorchDispatchMode):
    """Bytes in tensors made while this is active and still alive, and the most there have been.

    Counts every storage once, saved for the backward pass or not. With fake tensors it costs nothing. It does not see
    what a kernel allocates inside, nor what the allocator rounds up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable, types: Sequence[type], args: Sequence = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._alive:
                    self._alive[storage._cdata] = storage.nbytes()
                    self.bytes += storage.nbytes()
                    self.peak = max(self.peak, self.bytes)
                    weakref.finalize(storage, self._forget, storage._cdata)
        return result

    def _forget(self, storage: int) -> None:
        self.bytes -= self._alive.pop(storage)


def training_memory(preset: str, spatial_size: int, activation_checkpointing: bool, dtype: torch.dtype) -> float:
    """Peak gigabytes of a generator step of batch 1 under autocast, with parameters, gradients and Adam's two moments.

    The discriminator's parameters and moments count too. Nothing is computed: the tensors are fake.
    """
    with FakeTensorMode(), LiveMemory() as live:
        networks = [
            build_generator(preset, spatial_size, activation_checkpointing=activation_checkpointing),
            CoordConvPatchDiscriminator(),
        ]
        generator, discriminator = networks
        discriminator.requires_grad_(False)
        moments = [torch.empty(2, *value.shape) for network in networks for value in network.parameters()]
        image = torch.rand(1, 2, spatial_size, spatial_size)
        condition = radiographs_to_volume(image, spatial_size)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = training_loss(generator(image), condition, discriminator)
        loss.backward()
        del moments
    return live.peak / 1e9


def count_memory(spatial_size: int = 224) -> list[dict[str, Any]]:
    """Count the memory of one training step of both presets, print a table and return its rows.

    Args:
        spatial_size: S.
    """
    rows = []
    print(f"One training step, batch 1, {spatial_size}^3, GB\n")
    print("| preset | activation checkpointing | float32 | bfloat16 autocast |\n| --- | --- | ---: | ---: |")
    for preset in ("published", "compact"):
        for checkpointing in (False, True):
            row: dict[str, Any] = {"preset": preset, "activation_checkpointing": checkpointing}
            for dtype in (torch.float32, torch.bfloat16):
                row[str(dtype)] = training_memory(preset, spatial_size, checkpointing, dtype)
            how = "yes" if checkpointing else "no"
            print(f"| {preset} | {how} | {row['torch.float32']:.1f} | {row['torch.bfloat16']:.1f} |", flush=True)
            rows.append(row)
    return rows


def run(
    sizes: Sequence[int] = (64, 128, 224),
    training_sizes: Sequence[int] = (64, 128),
    threads: int = 2,
    memory: bool = False,
) -> list[dict[str, Any]]:
    """Measure baseline and ours at each size, print a table and return its rows.

    Every figure is of a fresh process; the time is that of the fastest of two runs (one from 200 up, and in training).

    Args:
        sizes: of inference.
        training_sizes: of one training step.
        threads: PyTorch's threads.
        memory: count the memory of a training step at 224 instead, see :func:`training_memory`.
    """
    if memory:
        return count_memory()
    rows = []
    print("| | size | plain | ours | faster | smaller | ours, bfloat16 |\n| --- " + "| ---: " * 6 + "|")
    for task, of_task in (("inference", sizes), ("training", training_sizes)):
        for size in of_task:
            row: dict[str, Any] = {"task": task, "size": size}
            whats = ("baseline", "ours", "ours-bf16") if task == "inference" else ("baseline-training", "ours-training")
            repeats = 2 if task == "inference" and size < 200 else 1
            baseline, ours, *bf16 = (measure_apart(what, size, repeats, threads) for what in whats)
            row.update(zip(("baseline", "ours", "ours-bf16"), (baseline, ours, *bf16), strict=False))
            figures = [f"{of['seconds']:.2f} s, {of['peak_gb']:.2f} GB" for of in (baseline, ours, *bf16)]
            faster, smaller = (baseline[key] / ours[key] for key in ("seconds", "peak_gb"))
            ratios = [f"{ratio:.1f}x" for ratio in (faster, smaller)]
            print(f"| {' | '.join([task, str(size), *figures[:2], *ratios, *figures[2:]])} |", flush=True)
            rows.append(row)
    return rows


def measure_apart(what: str, size: int, repeats: int, threads: int) -> dict[str, float]:
    """:func:`measure` in a process of its own."""
    command = [sys.executable, __file__, "measure", what, str(size), str(repeats), str(threads)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout)


if __name__ == "__main__":
    from xrecon_bundle.cli import start

    start({"run": run, "measure": measure, "memory": count_memory})

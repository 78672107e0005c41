"""Time and memory of a training step as configs/train.yaml takes it, and how much of it the projection loss is.

``python scripts/benchmark.py training`` measures each row in a process of its own, so that a peak is its own. The
baseline of every row is the first: float32 at the smallest size.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import AdversarialTrainer
from monai.losses import PatchAdversarialLoss

from xrecon_bundle.engines import (
    DiscriminatorAdversarialLoss,
    GeneratorAdversarialLoss,
    ReconstructionLoss,
    conditional_adversarial_iteration,
)
from xrecon_bundle.networks import CoordConvPatchDiscriminator, build_generator
from xrecon_bundle.projection import MultiAngleProjectionLoss


def measure(
    spatial_size: int,
    bfloat16: bool = False,
    activation_checkpointing: bool = False,
    preset: str = "compact",
    steps: int = 3,
    threads: int = 2,
) -> None:
    """Print as JSON the median seconds of a step and of its projection loss, and the peak memory in GB.

    A step is one of the generator and one of the discriminator, batch size 1. On a GPU the memory is the GPU's.

    Args:
        spatial_size: S.
        bfloat16: mixed precision.
        activation_checkpointing: see :class:`xrecon_bundle.networks.XReconGenerator`.
        preset: of the generator.
        steps: that are timed, after one that is not.
        threads: PyTorch's threads.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = build_generator(preset, spatial_size, activation_checkpointing=activation_checkpointing).to(device)
    discriminator = CoordConvPatchDiscriminator().to(device)
    projection_loss = MultiAngleProjectionLoss()
    case = {"image": torch.rand(2, *(spatial_size,) * 2), "label": torch.rand(1, *(spatial_size,) * 3)}
    adversarial = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
    trainer = AdversarialTrainer(
        device=device,
        max_epochs=1,
        train_data_loader=DataLoader(Dataset([case] * (steps + 1)), batch_size=1),
        g_network=generator,
        g_optimizer=torch.optim.Adam(generator.parameters()),
        g_loss_function=GeneratorAdversarialLoss(adversarial),
        recon_loss_function=ReconstructionLoss(projection_loss),
        d_network=discriminator,
        d_optimizer=torch.optim.Adam(discriminator.parameters()),
        d_loss_function=DiscriminatorAdversarialLoss(adversarial),
        iteration_update=conditional_adversarial_iteration,
        decollate=False,
        amp=bfloat16,
        amp_kwargs={"dtype": torch.bfloat16},
    )
    clock: list[float] = []
    for event in (Events.ITERATION_STARTED, Events.ITERATION_COMPLETED):
        trainer.add_event_handler(event, lambda: clock.append(_now(device)))
    trainer.run()
    step = statistics.median(end - start for start, end in zip(clock[2::2], clock[3::2], strict=True))
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    prediction = torch.rand(1, 1, *(spatial_size,) * 3, device=device, requires_grad=True)
    label = case["label"][None].to(device)
    projection = _median_seconds(lambda: projection_loss(prediction, label).backward(), steps, device)
    print(json.dumps({"seconds": step, "peak_gb": peak / 1e9, "projection_seconds": projection}))


def run(
    sizes: Sequence[int] = (64, 128),
    preset: str = "compact",
    activation_checkpointing: bool = False,
    steps: int = 3,
    threads: int = 2,
) -> list[dict[str, Any]]:
    """Measure a training step at each size in float32 and in bfloat16, print a table and return its rows.

    Args:
        sizes: of the volume.
        preset: of the generator.
        activation_checkpointing: less memory, more time.
        steps: that are timed at each size.
        threads: PyTorch's threads.
    """
    rows: list[dict[str, Any]] = []
    print("| size | precision | a step | to the first | peak memory | projection loss, share of a step |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for size in sizes:
        for bfloat16 in (False, True):
            row = _measure_apart(size, bfloat16, activation_checkpointing, preset, steps, threads)
            row |= {"size": size, "precision": "bfloat16" if bfloat16 else "float32"}
            row["projection_share"] = row["projection_seconds"] / row["seconds"]
            rows.append(row)
            print(
                f"| {size} | {row['precision']} | {row['seconds']:.2f} s | {row['seconds'] / rows[0]['seconds']:.1f}x "
                f"| {row['peak_gb']:.2f} GB | {row['projection_share']:.1%} |",
                flush=True,
            )
    return rows


def _measure_apart(*arguments: object) -> dict[str, float]:
    command = [sys.executable, __file__, "measure", *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _median_seconds(function: Callable[[], None], times: int, device: torch.device) -> float:
    seconds = []
    for _ in range(times):
        start = _now(device)
        function()
        seconds.append(_now(device) - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    from xrecon_bundle.cli import start

    start({"run": run, "measure": measure})

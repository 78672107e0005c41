"""The training step of the fine generator: its coarse volume, with a block of the fine one or without."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from ignite.engine import Engine
from monai.engines import AdversarialTrainer, SupervisedTrainer
from monai.utils import CommonKeys
from torch import Tensor, nn

from ..networks.fine import LABELS, CoarseRendering, FineGenerator, Rendering, block_condition
from .adversarial import adversarial_steps, learn

UNDISTURBED, DISTURBED_VOXELS, DISTURBED_SCALE = 0.25, 1.5, 0.015  # of coarse volumes
LUNG_WINDOW = 0.25  # of the network's scale: -1024 to -399 HU
DETAIL_VOXELS, DETAIL_GAIN = 5, 10.0  # of half size: what differs from an average over so many, for a discriminator


class BlockLoss(nn.Module):
    """``10 MSE`` as published, and what a pneumothorax needs.

    The coarse generator was trained on projections too. Here they are left out: with them 500 steps taught the labels
    no free air, without them 600 steps taught it (docs/results/fine.md).

    Args:
        volume_weight: of the mean squared error of block and coarse volume.
        lung_weight: of the mean absolute error of ``4 * clip(u, 0, 0.25)``, which stretches the lung window.
        cavity_weight: by how much more a voxel of the pleural cavities counts in it.
        label_weight: of the labels' cross-entropy.
        deviation_weight: of the Gaussian negative log-likelihood of the error, through which no gradient reaches the
            volume.
    """

    def __init__(
        self,
        volume_weight: float = 10.0,
        lung_weight: float = 0.25,
        cavity_weight: float = 3.0,
        label_weight: float = 0.6,
        deviation_weight: float = 0.01,
    ) -> None:
        super().__init__()
        self.volume_weight = volume_weight
        self.lung_weight = lung_weight
        self.cavity_weight = cavity_weight
        self.label_weight = label_weight
        self.deviation_weight = deviation_weight

    def forward(self, rendering: Rendering | CoarseRendering | Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Scalar loss; ``batch`` as :class:`xrecon_bundle.datasets.blocks.StoreBlocks` gives it.

        A tensor is a coarse volume alone, without labels.
        """
        labels = batch["coarse_segmentation"]
        if isinstance(rendering, Tensor):
            return self._of_grey(rendering, batch["coarse"], labels)
        loss = self._of_volume(rendering.coarse, rendering.coarse_labels, batch["coarse"], labels, labels)
        if isinstance(rendering, CoarseRendering):
            return loss
        half = batch["segmentation"][:, ::2, ::2, ::2]
        loss = loss + self._of_volume(rendering.volume, rendering.labels, batch["label"], batch["segmentation"], half)
        error = F.avg_pool3d((rendering.volume.detach().float() - batch["label"]).square(), 2)
        log_variance = rendering.log_variance.float().clamp(-12, 2)
        return loss + self.deviation_weight * 0.5 * (log_variance + error * (-log_variance).exp()).mean()

    def _of_volume(
        self, volume: Tensor, logits: Tensor, truth: Tensor, labels: Tensor, labels_of_logits: Tensor
    ) -> Tensor:
        entropy = F.cross_entropy(logits.float(), labels_of_logits.clamp(0, LABELS - 1))
        return self._of_grey(volume, truth, labels) + self.label_weight * entropy

    def _of_grey(self, volume: Tensor, truth: Tensor, labels: Tensor) -> Tensor:
        volume = volume.float()
        stretched = (volume.clamp(0, LUNG_WINDOW) - truth.clamp(0, LUNG_WINDOW)).abs() / LUNG_WINDOW
        weight = 1 + self.cavity_weight * (labels > 0)[:, None]
        return self.volume_weight * F.mse_loss(volume, truth) + self.lung_weight * (weight * stretched).mean()


def like_another_chest(volume: Tensor) -> Tensor:
    """A coarse volume ``(B, 1, c, c, c)`` that is wrong as one of an unknown person is, in three of four steps.

    The frozen generator does better for people it learnt from than for others, and what rests on it would learn to
    believe it. So its surfaces are moved smoothly, by up to a voxel and a half.
    """
    if torch.rand(()) < UNDISTURBED:
        return volume
    size = volume.shape[2:]
    noise = torch.randn(len(volume), 3, 4, 4, 4, device=volume.device)
    smooth = F.interpolate(noise, size=size, mode="trilinear", align_corners=True)
    moved = smooth / smooth.square().mean().sqrt() * (DISTURBED_VOXELS * torch.rand(()) * 2 / size[0])
    along = (torch.arange(size[0], device=volume.device) + 0.5) * 2 / size[0] - 1
    place = torch.stack(torch.meshgrid(along, along, along, indexing="ij"))
    scale = 1 + DISTURBED_SCALE * torch.randn(len(volume), 3, 1, 1, 1, device=volume.device)
    grid = (place * scale + moved).flip(1).movedim(1, -1)
    return F.grid_sample(volume, grid, mode="bilinear", padding_mode="border", align_corners=False)


def block_iteration(engine: SupervisedTrainer, batchdata: dict[str, Any], gradient_clip: float = 1.0) -> dict:
    """One step of the part that learns, on a block if the batch has one.

    For ``SupervisedTrainer(iteration_update=...)``.

    Args:
        engine: the trainer; its loss function is a :class:`BlockLoss`.
        batchdata: a batch of one, see :class:`xrecon_bundle.datasets.blocks.StoreBlocks`.
        gradient_clip: largest norm of the gradient.

    Returns:
        ``loss``.

    Raises:
        FloatingPointError: the loss or its gradient is not finite; the weights are not touched by it.
    """
    batch = _tensors(batchdata, engine.state.device)
    network = cast(FineGenerator, engine.network.train())
    with torch.autocast(engine.state.device.type, enabled=engine.amp, **engine.amp_kwargs):
        rendering: Rendering | CoarseRendering | Tensor
        if network.learning == "first":
            rendering = network.first_volume(batch["image"])
        elif "start" in batch:
            rendering = render_block(engine, network, batch)
        else:
            rendering = network.render_coarse(batch["image"], like_another_chest)
    loss = engine.loss_function(rendering, batch)
    learn("generator", loss, engine.optimizer, gradient_clip)
    engine.state.output = {CommonKeys.LOSS: loss.detach()}
    return engine.state.output


def adversarial_block_iteration(
    engine: AdversarialTrainer, batchdata: dict[str, Any], gradient_clip: float = 1.0
) -> dict:
    """A step on one block with a discriminator of blocks; for ``AdversarialTrainer(iteration_update=...)``.

    As :func:`~.adversarial.conditional_adversarial_iteration` with whole volumes. The discriminator takes what
    :func:`look_closely` gives.

    Args:
        engine: the trainer; its reconstruction loss is a :class:`BlockLoss`.
        batchdata: a batch of one, with a block.
        gradient_clip: largest norm of each network's gradient.

    Returns:
        see :func:`~.adversarial.adversarial_steps`.

    Raises:
        FloatingPointError: a loss or a gradient is not finite; the network's weights are not touched by it.
    """
    state = engine.state
    batch = _tensors(batchdata, state.device)
    network = cast(FineGenerator, state.g_network)
    condition = F.avg_pool3d(block_condition(batch["image"], *_place(batch)), 2)

    def generate() -> tuple[Tensor, Tensor]:
        rendering = render_block(engine, network, batch)
        return rendering.volume, state.recon_loss_function(rendering, batch)

    def discriminate(network: nn.Module, volume: Tensor) -> Tensor:
        return network(look_closely(volume, condition))

    state.output = adversarial_steps(engine, generate, discriminate, batch["label"], gradient_clip)
    return state.output


def look_closely(volume: Tensor, condition: Tensor) -> Tensor:
    """What a discriminator is shown of a block: at half size, and its fine detail once more.

    At full size it would tell the noise of a CT, which no radiograph shows, and the network could not make. The detail
    is a hundredth of the scale of places and radiographs; as it is, a discriminator did not find it.

    Args:
        volume: ``(B, 1, edge, edge, edge)`` in network units.
        condition: ``(B, C, edge/2, edge/2, edge/2)``, :func:`~xrecon_bundle.networks.fine.block_condition`, averaged.

    Returns:
        ``(B, 2 + C, edge/2, edge/2, edge/2)``.
    """
    half = F.avg_pool3d(volume.float(), 2)
    mean = F.avg_pool3d(half, DETAIL_VOXELS, 1, DETAIL_VOXELS // 2, count_include_pad=False)
    return torch.cat([half, DETAIL_GAIN * (half - mean), condition], dim=1)


def render_block(engine: Engine, network: FineGenerator, batch: dict[str, Tensor]) -> Rendering:
    """The block of a batch; what it rests on, which is frozen, is not computed again while the radiographs stay."""
    image, state = batch["image"], cast(Any, engine.state)
    if not hasattr(state, "seen") or not torch.equal(state.seen[0], image):
        with torch.no_grad():
            state.seen = image, network.coarse_part(image)
    return network.render_fine(image, state.seen[1], *_place(batch))


def _tensors(batch: dict[str, Any], device: torch.device) -> dict[str, Tensor]:
    """All of a batch but the name of its case."""
    return {name: value.to(device) for name, value in batch.items() if isinstance(value, Tensor)}


def _place(batch: dict[str, Tensor]) -> tuple[tuple[int, int, int], int]:
    """First voxel of a batch's block, and its edge."""
    x, y, z = (int(first) for first in batch["start"][0])
    return (x, y, z), batch["label"].shape[-1]

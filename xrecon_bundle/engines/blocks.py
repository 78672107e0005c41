"""The training step of the fine generator: its coarse volume and a block of the fine one."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from monai.engines import SupervisedTrainer
from monai.utils import CommonKeys
from torch import Tensor, nn

from ..networks.fine import LABELS, FineGenerator, Rendering

LUNG_WINDOW = 0.25  # of the network's scale: -1024 to -399 HU


class BlockLoss(nn.Module):
    """``10 MSE`` as published, and what a pneumothorax needs.

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
        label_weight: float = 0.05,
        deviation_weight: float = 0.01,
    ) -> None:
        super().__init__()
        self.volume_weight = volume_weight
        self.lung_weight = lung_weight
        self.cavity_weight = cavity_weight
        self.label_weight = label_weight
        self.deviation_weight = deviation_weight

    def forward(self, rendering: Rendering, batch: dict[str, Tensor]) -> Tensor:
        """Scalar loss of a block; ``batch`` as :class:`xrecon_bundle.datasets.blocks.StoreBlocks` gives it."""
        loss = self._of_volume(rendering.volume, rendering.labels, batch["label"], batch["segmentation"])
        loss = loss + self._of_volume(
            rendering.coarse, rendering.coarse_labels, batch["coarse"], batch["coarse_segmentation"]
        )
        error = (rendering.volume.detach().float() - batch["label"]).square()
        log_variance = rendering.log_variance.float().clamp(-12, 2)
        return loss + self.deviation_weight * 0.5 * (log_variance + error * (-log_variance).exp()).mean()

    def _of_volume(self, volume: Tensor, logits: Tensor, truth: Tensor, labels: Tensor) -> Tensor:
        volume = volume.float()
        stretched = (volume.clamp(0, LUNG_WINDOW) - truth.clamp(0, LUNG_WINDOW)).abs() / LUNG_WINDOW
        weight = 1 + self.cavity_weight * (labels > 0)[:, None]
        entropy = F.cross_entropy(logits.float(), labels.clamp(0, LABELS - 1))
        return (
            self.volume_weight * F.mse_loss(volume, truth)
            + self.lung_weight * (weight * stretched).mean()
            + self.label_weight * entropy
        )


def block_iteration(engine: SupervisedTrainer, batchdata: dict[str, Tensor], gradient_clip: float = 1.0) -> dict:
    """One step on one block; for ``SupervisedTrainer(iteration_update=...)``.

    Args:
        engine: the trainer; its loss function is a :class:`BlockLoss`.
        batchdata: a batch of one, see :class:`xrecon_bundle.datasets.blocks.StoreBlocks`.
        gradient_clip: largest norm of the gradient.

    Returns:
        ``loss``.

    Raises:
        FloatingPointError: the loss is not finite; the weights are not touched by it.
    """
    batch = {name: value.to(engine.state.device) for name, value in batchdata.items()}
    x, y, z = (int(first) for first in batch["start"][0])
    network = cast(FineGenerator, engine.network.train())
    with torch.autocast(engine.state.device.type, enabled=engine.amp, **engine.amp_kwargs):
        rendering = network.render(batch["image"], (x, y, z), batch["label"].shape[-1])
    loss = engine.loss_function(rendering, batch)
    if not loss.isfinite():
        raise FloatingPointError(f"a loss of {loss.item()}")
    engine.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), gradient_clip)
    engine.optimizer.step()
    engine.state.output = {CommonKeys.LOSS: loss.detach()}
    return engine.state.output


def parameter_groups(network: FineGenerator, learning_rate: float, coarse_learning_rate: float) -> list[dict]:
    """Groups for an optimizer: the coarse generator, which is trained already, apart from the rest.

    With a rate of 0 for it no gradient is computed there.
    """
    coarse = list(network.coarse.parameters())
    known = {id(parameter) for parameter in coarse}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in known]
    network.coarse.requires_grad_(coarse_learning_rate > 0)
    return [{"params": coarse, "lr": coarse_learning_rate}, {"params": rest, "lr": learning_rate}]

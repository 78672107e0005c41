"""The conditional adversarial training iteration and its reconstruction loss (X-Recon, arXiv 2407.15356)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.engines import AdversarialTrainer
from monai.utils import AdversarialKeys, CommonKeys, convert_to_tensor
from torch import Tensor, nn

from ..networks import radiographs_to_volume

Keys = AdversarialKeys


class ReconstructionLoss(nn.Module):
    """``volume_weight * MSE + projection_weight * projection_loss``; defaults as in the paper.

    Args:
        projection_loss: of ``(prediction, target)``: :class:`xrecon_bundle.projection.MultiAngleProjectionLoss`.
        volume_weight: weight of the mean squared error between the volumes.
        projection_weight: weight of ``projection_loss``.
    """

    def __init__(self, projection_loss: nn.Module, volume_weight: float = 10.0, projection_weight: float = 0.1) -> None:
        super().__init__()
        self.projection_loss = projection_loss
        self.volume_weight = volume_weight
        self.projection_weight = projection_weight

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Loss of two volumes ``(B, 1, X, Y, Z)`` in network units; a scalar."""
        volume_mse = nn.functional.mse_loss(prediction, target)
        projection_l1 = self.projection_loss(prediction, target)
        return self.volume_weight * volume_mse + self.projection_weight * projection_l1


class GeneratorAdversarialLoss(nn.Module):
    """How far the discriminator's logits of generated volumes are from "real"; wraps ``PatchAdversarialLoss``."""

    def __init__(self, adversarial_loss: Callable[..., Tensor], weight: float = 1.0) -> None:
        super().__init__()
        self.adversarial_loss = adversarial_loss
        self.weight = weight

    def forward(self, fake_logits: Tensor) -> Tensor:
        """Scalar loss of ``fake_logits``, any shape."""
        return self.weight * self.adversarial_loss(fake_logits, target_is_real=True, for_discriminator=False)


class DiscriminatorAdversarialLoss(nn.Module):
    """Loss of the discriminator: real volumes towards "real" plus generated ones towards "fake"."""

    def __init__(self, adversarial_loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.adversarial_loss = adversarial_loss

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Scalar loss of the logits of real and of generated volumes."""
        real = self.adversarial_loss(real_logits, target_is_real=True, for_discriminator=True)
        return real + self.adversarial_loss(fake_logits, target_is_real=False, for_discriminator=True)


def conditional_adversarial_iteration(engine: AdversarialTrainer, batchdata: dict[str, Tensor]) -> dict[str, Tensor]:
    """One generator step with the discriminator frozen, then one discriminator step on the same volume, detached.

    For ``AdversarialTrainer(iteration_update=...)``. MONAI's own iteration takes the network's input for the real
    image; here the input is the radiograph pair ``image`` ``(B, 2, S, S)``, the real image is the CT ``label``
    ``(B, 1, S, S, S)``, and the discriminator sees either volume together with the radiographs spread through it.

    Returns:
        ``engine.state.output`` with the keys of ``CommonKeys`` and ``AdversarialKeys``: image, label, pred, the three
        losses and the total generator loss under ``loss``.
    """
    batch = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
    image, label = (convert_to_tensor(tensor, track_meta=False) for tensor in batch)
    state = engine.state
    condition = radiographs_to_volume(image, label.shape[-1])

    def discriminate(volume: Tensor) -> Tensor:
        return engine.d_inferer(torch.cat([condition, volume], dim=1), state.d_network)

    def autocast() -> torch.autocast:
        return torch.autocast(state.device.type, enabled=engine.amp, **engine.amp_kwargs)

    state.g_network.train()
    state.d_network.train().requires_grad_(False)
    state.g_optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
    with autocast():
        fake = engine.g_inferer(image, state.g_network)
        reconstruction_loss = state.recon_loss_function(fake.float(), label)
        generator_loss = state.g_loss_function(discriminate(fake).float())
        loss = reconstruction_loss + generator_loss
    _step(loss, state.g_optimizer, state.g_scaler)

    state.d_network.requires_grad_(True)
    state.d_optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
    with autocast():
        real_logits = discriminate(label)
        fake_logits = discriminate(fake.detach())
        discriminator_loss = state.d_loss_function(real_logits.float(), fake_logits.float())
    _step(discriminator_loss, state.d_optimizer, state.d_scaler)

    return {
        CommonKeys.IMAGE: image,
        CommonKeys.LABEL: label,
        CommonKeys.PRED: fake.detach(),
        CommonKeys.LOSS: loss.detach(),
        Keys.RECONSTRUCTION_LOSS: reconstruction_loss.detach(),
        Keys.GENERATOR_LOSS: generator_loss.detach(),
        Keys.DISCRIMINATOR_LOSS: discriminator_loss.detach(),
    }


def _step(loss: Tensor, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None) -> None:
    if scaler is None:
        loss.backward()
        optimizer.step()
        return
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()

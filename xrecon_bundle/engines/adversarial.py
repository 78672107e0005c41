"""The conditional adversarial training iteration and its reconstruction loss (X-Recon, arXiv 2407.15356)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.engines import AdversarialTrainer
from monai.engines.utils import IterationEvents
from monai.utils import AdversarialKeys, CommonKeys, convert_to_tensor
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..networks import radiographs_to_volume
from ..networks.generator import VIEWS

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
    """How far the discriminator's logits of generated volumes are from "real"; wraps ``PatchAdversarialLoss``.

    With ``weight`` 0, :func:`conditional_adversarial_iteration` leaves the discriminator out.
    """

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


def conditional_adversarial_iteration(
    engine: AdversarialTrainer,
    batchdata: dict[str, Tensor],
    condition_views: Sequence[str] = VIEWS,
    gradient_clip: float | None = None,
    accumulation_steps: int = 1,
) -> dict[str, Tensor]:
    """One generator step with the discriminator frozen, then one discriminator step on the same volume, detached.

    For ``AdversarialTrainer(iteration_update=...)``. MONAI's own iteration takes the network's input for the real
    image; here the input is the radiograph pair ``image`` ``(B, 2, S, S)``, the real image is the CT ``label``
    ``(B, 1, S, S, S)``, and the discriminator sees either volume together with the radiographs spread through it.
    Mixed precision is meant for bfloat16, which has the range of float32: losses are not scaled.

    Args:
        engine: the trainer.
        batchdata: with ``image`` and ``label``.
        condition_views: the views that the discriminator is shown, of "pa" and "lateral"; none: it is unconditional.
        gradient_clip: largest norm of each network's gradient; None: not limited.
        accumulation_steps: iterations whose mean gradient makes one step of the optimizers; the epoch ends a group.

    Returns:
        ``engine.state.output`` with the keys of ``CommonKeys`` and ``AdversarialKeys``: image, label, pred, the three
        losses and the total generator loss under ``loss``. The adversarial losses are 0 without a discriminator.

    Raises:
        FloatingPointError: a loss or a gradient is not finite; the network's weights are not touched by it.
    """
    batch = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
    image, label = (convert_to_tensor(tensor, track_meta=False) for tensor in batch)
    state = engine.state
    condition = radiographs_to_volume(image, label.shape[-1])[:, [VIEWS.index(view) for view in condition_views]]

    def generate() -> tuple[Tensor, Tensor]:
        volume = engine.g_inferer(image, state.g_network)
        return volume, state.recon_loss_function(volume.float(), label)

    def discriminate(network: nn.Module, volume: Tensor) -> Tensor:
        return engine.d_inferer(torch.cat([condition, volume], dim=1), network)

    learnt = adversarial_steps(engine, generate, discriminate, label, gradient_clip, accumulation_steps)
    state.output = {CommonKeys.IMAGE: image, CommonKeys.LABEL: label, **learnt}
    engine.fire_event(IterationEvents.MODEL_COMPLETED)  # decollates, if the trainer is told to
    return state.output


def adversarial_steps(
    engine: AdversarialTrainer,
    generate: Callable[[], tuple[Tensor, Tensor]],
    discriminate: Callable[[nn.Module, Tensor], Tensor],
    real: Tensor,
    gradient_clip: float | None = None,
    accumulation_steps: int = 1,
) -> dict[str, Tensor]:
    """One generator step with the discriminator frozen, then one discriminator step on the same volume, detached.

    Args:
        engine: the trainer.
        generate: makes the generator's volume, and its reconstruction loss.
        discriminate: the logits that a discriminator gives a volume.
        real: the true volume.
        gradient_clip: see :func:`conditional_adversarial_iteration`.
        accumulation_steps: likewise.

    Returns:
        the volume and the losses, by ``CommonKeys`` and ``AdversarialKeys``.

    Raises:
        FloatingPointError: a loss or a gradient is not finite; the network's weights are not touched by it.
    """
    state = engine.state
    group = _accumulation_group(engine, accumulation_steps)

    def autocast() -> torch.autocast:
        return torch.autocast(state.device.type, enabled=engine.amp, **engine.amp_kwargs)

    adversarial = state.g_loss_function.weight > 0
    generator_loss = discriminator_loss = real.new_zeros(())
    state.g_network.train()
    state.d_network.train().requires_grad_(False)
    with autocast():
        fake, reconstruction_loss = generate()
        if adversarial:
            generator_loss = state.g_loss_function(discriminate(_module(state.d_network), fake).float())
        loss = reconstruction_loss + generator_loss
    learn("generator", loss, state.g_optimizer, gradient_clip, group)

    state.d_network.requires_grad_(True)
    if adversarial:
        with autocast():
            real_logits = discriminate(state.d_network, real)
            fake_logits = discriminate(state.d_network, fake.detach())
            discriminator_loss = state.d_loss_function(real_logits.float(), fake_logits.float())
        learn("discriminator", discriminator_loss, state.d_optimizer, gradient_clip, group)

    return {
        CommonKeys.PRED: fake.detach(),
        CommonKeys.LOSS: loss.detach(),
        Keys.RECONSTRUCTION_LOSS: reconstruction_loss.detach(),
        Keys.GENERATOR_LOSS: generator_loss.detach(),
        Keys.DISCRIMINATOR_LOSS: discriminator_loss.detach(),
    }


def learn(
    name: str,
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    gradient_clip: float | None = None,
    group: tuple[bool, bool, int] = (True, True, 1),
) -> None:
    """Learn from a loss.

    Args:
        name: of the network.
        loss: a scalar.
        optimizer: of the network.
        gradient_clip: largest norm of the gradient; None: not limited.
        group: of batches whose mean gradient makes one step: does this one start it, does it end it, how many are they?

    Raises:
        FloatingPointError: the loss or its gradient is not finite; the weights are not touched by it.
    """
    if not loss.isfinite():
        raise FloatingPointError(f"a {name} loss of {loss.item()}")
    starts, ends, batches = group
    if starts:
        optimizer.zero_grad()
    (loss / batches).backward()
    if ends:
        _step(name, optimizer, gradient_clip)


def _accumulation_group(engine: AdversarialTrainer, steps: int) -> tuple[bool, bool, int]:
    """The ``group`` of :func:`learn` that this iteration is in."""
    if steps == 1:
        return True, True, 1
    state = engine.state
    place = (state.iteration - 1) % state.epoch_length
    first = place - place % steps
    size = min(steps, state.epoch_length - first)
    return place == first, place == first + size - 1, size


def _module(network: nn.Module) -> nn.Module:
    """The network itself: while it is frozen, DistributedDataParallel would wait for gradients that never come."""
    return network.module if isinstance(network, DistributedDataParallel) else network


def _step(name: str, optimizer: torch.optim.Optimizer, gradient_clip: float | None) -> None:
    parameters = [weight for group in optimizer.param_groups for weight in group["params"] if weight.grad is not None]
    norm = nn.utils.get_total_norm([weight.grad for weight in parameters])
    if not norm.isfinite():
        raise FloatingPointError(f"a {name} gradient of norm {norm.item()}")
    if gradient_clip is not None:
        nn.utils.clip_grads_with_norm_(parameters, gradient_clip, norm)
    optimizer.step()

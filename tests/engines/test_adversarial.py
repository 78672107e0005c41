"""The adversarial iteration: which network learns from what, and what the discriminator is shown."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import AdversarialTrainer
from monai.losses import PatchAdversarialLoss
from monai.utils import set_determinism
from torch import nn

from xrecon_bundle.engines import (
    ConstantThenLinearLR,
    DiscriminatorAdversarialLoss,
    GeneratorAdversarialLoss,
    ReconstructionLoss,
    conditional_adversarial_iteration,
)

SIZE = 8


class TinyGenerator(nn.Module):
    """Spreads a weighted mean of the two views through the volume."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, 0.2]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pa, lateral = image.unbind(1)
        volume = self.weight[0] * pa[:, :, None] + self.weight[1] * lateral[:, None]
        return volume[:, None]


class Recorder(nn.Conv3d):
    """A discriminator that remembers what it was shown."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__(channels, 1, 1)
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.detach().clone())
        return super().forward(x)


def trained(
    iterations: int = 1,
    seed: int = 0,
    batch_size: int = 1,
    weight: float = 1.0,
    optimizer: type = torch.optim.Adam,
    **how,
) -> tuple[AdversarialTrainer, nn.Module, Recorder, dict]:
    """A training of so many cases; ``how`` goes to the iteration."""
    set_determinism(seed)
    generator, discriminator = TinyGenerator(), Recorder(1 + len(how.get("condition_views", "12")))
    before = copy.deepcopy(generator.state_dict()), copy.deepcopy(discriminator.state_dict())
    data = [{"image": torch.rand(2, SIZE, SIZE), "label": torch.rand(1, SIZE, SIZE, SIZE)} for _ in range(iterations)]
    adversarial = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
    trainer = AdversarialTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=DataLoader(Dataset(data), batch_size=batch_size),
        g_network=generator,
        g_optimizer=optimizer(generator.parameters(), lr=0.01),
        g_loss_function=GeneratorAdversarialLoss(adversarial, weight),
        recon_loss_function=ReconstructionLoss(nn.L1Loss()),
        d_network=discriminator,
        d_optimizer=optimizer(discriminator.parameters(), lr=0.01),
        d_loss_function=DiscriminatorAdversarialLoss(adversarial),
        iteration_update=partial(conditional_adversarial_iteration, **how),
        decollate=False,
    )
    trainer.run()
    return trainer, generator, discriminator, {"before": before, "data": data}


def test_both_networks_learn_and_the_discriminator_is_free_again() -> None:
    _, generator, discriminator, record = trained()
    for network, before in zip((generator, discriminator), record["before"], strict=True):
        assert all(not torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_discriminator_sees_each_volume_under_its_radiographs() -> None:
    trainer, _, discriminator, record = trained()
    image, label = record["data"][0]["image"], record["data"][0]["label"]
    judged_for_generator, real, fake = discriminator.seen
    for seen in discriminator.seen:
        assert torch.equal(seen[0, 0], image[0][:, None].expand(SIZE, SIZE, SIZE))  # PA (x, z), along y
        assert torch.equal(seen[0, 1], image[1][None].expand(SIZE, SIZE, SIZE))  # lateral (y, z), along x
    assert torch.equal(real[0, 2:], label)
    assert torch.equal(fake, judged_for_generator)
    assert torch.equal(fake[:, 2:], trainer.state.output["pred"])


def test_losses_are_the_papers_sum() -> None:
    trainer, _, discriminator, record = trained()
    output, label = trainer.state.output, record["data"][0]["label"][None]
    fake = output["pred"]
    mse, l1 = nn.functional.mse_loss(fake, label), nn.functional.l1_loss(fake, label)
    assert output["reconstruction_loss"].item() == pytest.approx((10 * mse + 0.1 * l1).item(), rel=1e-6)
    before = Recorder()
    before.load_state_dict(record["before"][1])
    fooled = (before(discriminator.seen[0]) - 1).square().mean()
    assert output["generator_loss"].item() == pytest.approx(fooled.item(), rel=1e-6)
    told_apart = (before(discriminator.seen[1]) - 1).square().mean() + before(discriminator.seen[2]).square().mean()
    assert output["discriminator_loss"].item() == pytest.approx(told_apart.item(), rel=1e-6)
    assert output["loss"].item() == pytest.approx((10 * mse + 0.1 * l1 + fooled).item(), rel=1e-6)


def test_the_same_seed_gives_the_same_training() -> None:
    _, first, _, _ = trained(iterations=3, seed=5)
    _, second, _, _ = trained(iterations=3, seed=5)
    assert torch.equal(first.weight, second.weight)


def test_two_accumulated_batches_are_one_batch_of_two() -> None:
    # Neither network has batch statistics; with the projection loss each batch would draw poses of its own.
    accumulated = trained(iterations=4, accumulation_steps=2)
    together = trained(iterations=4, batch_size=2)
    for one, other in zip(accumulated[1:3], together[1:3], strict=True):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-5, atol=1e-7)


def test_the_last_group_of_an_epoch_is_stepped_with_its_own_mean() -> None:
    # Gradients of SGD add up: three batches by twos are a step of the first two and one of the last alone.
    _, generator, _, record = trained(iterations=3, accumulation_steps=2, weight=0.0, optimizer=torch.optim.SGD)
    expected = TinyGenerator()
    for group in (record["data"][:2], record["data"][2:]):
        loss = sum(
            ReconstructionLoss(nn.L1Loss())(expected(case["image"][None]), case["label"][None]) for case in group
        ) / len(group)
        expected.zero_grad()
        loss.backward()
        with torch.no_grad():
            expected.weight -= 0.01 * expected.weight.grad
    torch.testing.assert_close(generator.weight, expected.weight)


def test_the_gradients_norm_is_limited() -> None:
    _, generator, _, record = trained(gradient_clip=0.5, optimizer=torch.optim.SGD)
    assert (generator.weight - record["before"][0]["weight"]).norm().item() == pytest.approx(0.01 * 0.5, rel=1e-4)


def test_a_limit_that_is_not_reached_changes_nothing() -> None:
    _, limited, _, _ = trained(iterations=3, gradient_clip=1e6)
    _, free, _, _ = trained(iterations=3)
    assert torch.equal(limited.weight, free.weight)


def test_without_adversarial_weight_the_discriminator_is_left_out() -> None:
    trainer, generator, discriminator, record = trained(weight=0.0)
    assert not discriminator.seen
    assert torch.equal(discriminator.weight, record["before"][1]["weight"])
    assert not torch.equal(generator.weight, record["before"][0]["weight"])
    assert trainer.state.output["discriminator_loss"].item() == 0


@pytest.mark.parametrize("views", [[], ["pa"], ["lateral"], ["pa", "lateral"]])
def test_the_discriminator_sees_the_views_asked_for(views: list[str]) -> None:
    _, _, discriminator, record = trained(condition_views=views)
    image = record["data"][0]["image"]
    spread = {"pa": image[0][:, None].expand(SIZE, SIZE, SIZE), "lateral": image[1][None].expand(SIZE, SIZE, SIZE)}
    for seen in discriminator.seen:
        assert seen.shape[1] == len(views) + 1
        assert all(torch.equal(seen[0, channel], spread[view]) for channel, view in enumerate(views))


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    generators: list[TinyGenerator] = []
    remember = TinyGenerator.__init__
    monkeypatch.setattr(TinyGenerator, "__init__", lambda self: (remember(self), generators.append(self))[0])
    monkeypatch.setattr(nn.L1Loss, "forward", lambda self, prediction, target: prediction.sum() * float("inf"))
    with pytest.raises(FloatingPointError, match="a generator loss of inf"):
        trained()
    assert torch.equal(generators[0].weight, torch.tensor([0.3, 0.2]))


@pytest.mark.parametrize(("epoch", "factor"), [(0, 1.0), (99, 1.0), (100, 1.0), (101, 0.99), (150, 0.5), (200, 0.0)])
def test_learning_rate_is_constant_then_falls_linearly_to_zero(epoch: int, factor: float) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = ConstantThenLinearLR(optimizer, decay_start=100, max_epochs=200)
    for _ in range(epoch):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2.0 * factor)

"""A step with a discriminator of blocks: who learns from what."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from monai.losses import PatchAdversarialLoss
from monai.utils import AdversarialKeys
from torch import nn

from xrecon_bundle.engines import DiscriminatorAdversarialLoss, GeneratorAdversarialLoss
from xrecon_bundle.engines.blocks import BlockLoss, adversarial_block_iteration, block_iteration, look_closely
from xrecon_bundle.networks.fine import LABELS, Rendering

SIZE, EDGE = 64, 16


class Grey(nn.Module):
    """Renders every block in one grey, which is all that it can learn."""

    learning = "fine"

    def __init__(self) -> None:
        super().__init__()
        self.grey = nn.Parameter(torch.tensor(0.3))
        self.looked_at: list[torch.Tensor] = []

    def coarse_part(self, image: torch.Tensor) -> torch.Tensor:
        self.looked_at.append(image)
        return 2 * image

    def render_fine(self, image: torch.Tensor, part: torch.Tensor, start: tuple[int, int, int], edge: int) -> Rendering:
        assert torch.equal(part, 2 * image)
        assert (start, edge) == ((8, 16, 24), EDGE)
        volume = self.grey.expand(1, 1, edge, edge, edge)
        half, coarse = (torch.zeros(1, LABELS, n, n, n) for n in (edge // 2, 4))
        return Rendering(volume, half, half[:, :1], coarse[:, :1], coarse)


@pytest.fixture
def engine():
    def make(weight: float) -> SimpleNamespace:
        torch.manual_seed(0)
        network, discriminator = Grey(), nn.Sequential(nn.Conv3d(7, 4, 3), nn.LeakyReLU(0.2), nn.Conv3d(4, 1, 2))
        optimizers = [torch.optim.SGD(part.parameters(), lr=0.01) for part in (network, discriminator)]
        adversarial = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
        state = SimpleNamespace(
            device=torch.device("cpu"),
            g_network=network,
            g_optimizer=optimizers[0],
            g_loss_function=GeneratorAdversarialLoss(adversarial, weight),
            recon_loss_function=BlockLoss(),
            d_network=discriminator,
            d_optimizer=optimizers[1],
            d_loss_function=DiscriminatorAdversarialLoss(adversarial),
        )
        shared = {"network": network, "optimizer": optimizers[0], "loss_function": BlockLoss()}
        return SimpleNamespace(state=state, amp=False, amp_kwargs={}, **shared)

    return make


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    labels = torch.zeros(1, EDGE, EDGE, EDGE, dtype=torch.int64)
    return {
        "image": torch.rand(1, 2, SIZE, SIZE),
        "label": torch.rand(1, 1, EDGE, EDGE, EDGE),
        "segmentation": labels,
        "start": torch.tensor([[8, 16, 24]]),
        "coarse": torch.zeros(1, 1, 4, 4, 4),
        "coarse_segmentation": labels[:, :4, :4, :4],
    }


def test_without_weight_the_generator_learns_as_without_a_discriminator(engine, batch):
    alone, both = engine(0.0), engine(0.0)
    block_iteration(alone, batch)
    output = adversarial_block_iteration(both, batch)
    torch.testing.assert_close(both.state.g_network.grey, alone.network.grey)
    assert output[AdversarialKeys.GENERATOR_LOSS] == 0
    assert output["loss"] == output[AdversarialKeys.RECONSTRUCTION_LOSS]


def test_each_learns_from_its_own_loss(engine, batch):
    """The generator moves towards what the discriminator takes for real, the discriminator tells both apart better."""
    both = engine(5.0)
    before = copy.deepcopy(both.state.d_network)
    losses = [adversarial_block_iteration(both, batch) for _ in range(30)]
    assert any(
        not torch.equal(a, b) for a, b in zip(before.parameters(), both.state.d_network.parameters(), strict=True)
    )
    assert losses[-1][AdversarialKeys.DISCRIMINATOR_LOSS] < losses[0][AdversarialKeys.DISCRIMINATOR_LOSS]
    alone = engine(0.0)
    for _ in range(30):
        adversarial_block_iteration(alone, batch)
    assert both.state.g_network.grey != alone.state.g_network.grey


def test_a_discriminator_sees_fine_detail_as_well_as_places():
    """Of an edge of 100 HU, which is 0.04; the noise of single voxels is averaged."""
    torch.manual_seed(0)
    place = torch.linspace(-0.3, 0.3, 24).expand(1, 5, 24, 24, 24)
    volume = torch.full((1, 1, 48, 48, 48), 0.4)
    volume[:, :, 24:] += 0.04
    shown = look_closely(volume, place)
    assert shown.shape == (1, 7, 24, 24, 24)
    torch.testing.assert_close(shown[0, 0, :, 0, 0], torch.tensor([0.4] * 12 + [0.44] * 12))
    detail = shown[0, 1]
    assert (detail[11:13].abs() > 0.1).all()
    assert detail[[0, 5, 9, 14, 18, 23]].abs().max() < 1e-5
    noisy = look_closely(volume + 0.02 * torch.randn_like(volume), place)
    assert (noisy[0, 0] - shown[0, 0]).std() < 0.02 / 2.5
    torch.testing.assert_close(shown[:, 2:], place)


def test_the_same_radiographs_are_looked_at_once(engine, batch):
    alone = engine(0.0)
    other = {**batch, "image": batch["image"].flip(0, 1)}
    for one in (batch, batch, {**batch, "image": batch["image"].clone()}, other, batch):
        block_iteration(alone, one)
    looked_at = alone.network.looked_at
    assert [torch.equal(image, batch["image"]) for image in looked_at] == [True, False, True]


def test_a_loss_that_is_not_finite_touches_no_weight(engine, batch):
    both = engine(1.0)
    before = copy.deepcopy(both.state.g_network.state_dict())
    batch["label"][0, 0, 0, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="generator"):
        adversarial_block_iteration(both, batch)
    torch.testing.assert_close(dict(both.state.g_network.state_dict()), dict(before))

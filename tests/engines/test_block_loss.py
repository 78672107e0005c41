from __future__ import annotations

import math

import pytest
import torch

from xrecon_bundle.engines.blocks import DISTURBED_VOXELS, BlockLoss, like_another_chest
from xrecon_bundle.networks.fine import LABELS, CoarseRendering, FineGenerator, Rendering


def case(error: float = 0.0, log_variance: float = 0.0, label: int = 0) -> tuple[Rendering, dict[str, torch.Tensor]]:
    """A block of 0.1 (-774 HU), found with an error; labels undecided."""
    truth = torch.full((1, 1, 4, 4, 4), 0.1)
    labels = torch.full((1, 4, 4, 4), label)
    undecided = torch.zeros(1, LABELS, 4, 4, 4)
    half = torch.zeros(1, LABELS, 2, 2, 2)
    found = (truth + error).requires_grad_()
    spread = torch.full((1, 1, 2, 2, 2), log_variance, requires_grad=True)
    rendering = Rendering(found, half, spread, truth, undecided)
    batch = {"label": truth, "segmentation": labels, "coarse": truth, "coarse_segmentation": labels}
    return rendering, batch


ALONE = {
    "volume_weight": 0.0,
    "lung_weight": 0.0,
    "label_weight": 0.0,
    "deviation_weight": 0.0,
}


@pytest.mark.parametrize(
    ("weights", "arguments", "expected"),
    [
        ({"volume_weight": 10}, {"error": 0.05}, 10 * 0.05**2),
        ({"volume_weight": 10}, {"error": 0.0}, 0),
        ({"lung_weight": 1}, {"error": 0.05}, 4 * 0.05),
        ({"lung_weight": 1, "cavity_weight": 3}, {"error": 0.05, "label": 3}, 4 * 4 * 0.05),
        ({"lung_weight": 1}, {"error": 0.5}, 4 * 0.15),  # beyond the lung window it does not count
        ({"label_weight": 1}, {}, 2 * math.log(LABELS)),
        ({"deviation_weight": 1}, {"error": 0.1, "log_variance": math.log(0.01)}, 0.5 * (math.log(0.01) + 1)),
    ],
)
def test_each_part_by_hand(weights, arguments, expected):
    rendering, batch = case(**arguments)
    loss = BlockLoss(**{**ALONE, **weights})(rendering, batch)
    torch.testing.assert_close(loss, torch.tensor(float(expected)), atol=1e-6, rtol=1e-4)


def test_a_volume_alone_is_judged_by_its_grey_values():
    """As a coarse volume with labels is, but for what the labels cost."""
    _, batch = case(label=2)
    volume = batch["coarse"] + 0.03
    undecided = torch.zeros(1, LABELS, 4, 4, 4)
    both = BlockLoss()(CoarseRendering(volume, undecided), batch)
    torch.testing.assert_close(BlockLoss()(volume, batch), both - 0.6 * math.log(LABELS))


def test_the_deviation_learns_from_the_error_but_does_not_change_the_volume():
    rendering, batch = case(error=0.1, log_variance=-2.0)
    BlockLoss(**{**ALONE, "deviation_weight": 1.0})(rendering, batch).backward()
    assert rendering.volume.grad is None or not rendering.volume.grad.any()
    # d/ds of (s + e^2 exp(-s)) / 2, over 8 voxels
    expected = 0.5 * (1 - 0.01 * math.exp(2.0)) / 8
    torch.testing.assert_close(rendering.log_variance.grad, torch.full_like(rendering.log_variance, expected))


def test_a_disturbed_volume_is_the_same_chest_with_surfaces_elsewhere():
    """Smooth volumes whose voxels say where they come from: how far each has moved can be read."""
    n = 32
    x, y, z = torch.meshgrid(*[torch.arange(n) / n] * 3, indexing="ij")
    torch.manual_seed(0)
    moved = torch.stack(
        [n * (like_another_chest(part[None, None]) - part)[0, 0] for part in (x, y, z) for _ in range(20)]
    )
    inner = moved[:, 6:-6, 6:-6, 6:-6]
    root_mean_square = inner.square().mean((1, 2, 3)).sqrt()
    assert 0.1 < (root_mean_square == 0).float().mean() < 0.45
    assert 0.3 < root_mean_square.max() < 2 * DISTURBED_VOXELS
    assert inner.diff(dim=1).abs().max() < 1  # nothing folds


def test_what_is_disturbed_is_what_the_frozen_generator_says():
    torch.manual_seed(0)
    network = FineGenerator(32).eval()
    for layer in network.modules_that_start_at_zero():
        torch.nn.init.normal_(layer.weight, 0, 0.05)
    image, given = torch.rand(1, 2, 32, 32), []
    with torch.no_grad():
        plain = network.render_coarse(image)
        same = network.render_coarse(image, lambda coarse: given.append(coarse) or coarse)
        other = network.render_coarse(image, lambda coarse: 0 * coarse)
        frozen = network.coarse(torch.nn.functional.interpolate(image, 64, mode="area"))
    torch.testing.assert_close(given[0], frozen, atol=1e-4, rtol=0)
    torch.testing.assert_close(same.coarse, plain.coarse)
    assert (other.coarse - plain.coarse).abs().max() > 0.01

"""Our generator is the published one: it equals a plain implementation of it that uses the released names and axes."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from xrecon_bundle.files import InputError
from xrecon_bundle.networks import XReconGenerator, published
from xrecon_bundle.networks.published import convert_published, convert_state, published_shapes, unused_entries

# The published structure with few channels: quick in double precision, where convolutions are slow.
FEW_CHANNELS = {
    "stem_channels": 4,
    "stage_layers": (1, 1, 2, 1, 1),
    "growth_rate": 4,
    "decoder_channels": (16, 8, 8, 4, 4, 4),
}


def ours_and_baseline(baseline, size: int, dtype: torch.dtype, **arguments):
    """Both networks with the same random weights, and an image."""
    weights = {name: value.to(dtype) for name, value in baseline.random_weights(published_shapes(size)).items()}
    generator = XReconGenerator(size, **arguments).to(dtype).eval()
    generator.load_state_dict(convert_state(weights, size))
    forward = baseline.PublishedForward(weights, size)
    image = torch.rand(1, 2, size, size, dtype=dtype, generator=torch.Generator().manual_seed(1))

    def baseline_in_our_axes(image: torch.Tensor) -> torch.Tensor:
        pa, lateral = image.transpose(2, 3).split(1, dim=1)
        return forward(pa, lateral).permute(0, 1, 4, 3, 2)

    return generator, baseline_in_our_axes, image, weights


@pytest.fixture
def few_channels(baseline, monkeypatch) -> dict:
    """Give the release's description the channels of ``FEW_CHANNELS``."""
    encoder_channels, layers = [FEW_CHANNELS["stem_channels"]], FEW_CHANNELS["stage_layers"]
    for count in layers[:-1]:
        encoder_channels.append((encoder_channels[-1] + count * FEW_CHANNELS["growth_rate"]) // 2)
    monkeypatch.setattr(published, "ENCODER_CHANNELS", tuple(encoder_channels))
    monkeypatch.setattr(
        published, "DECODER_CHANNELS", dict(zip((4, 3, 2, 1, 0, -1), FEW_CHANNELS["decoder_channels"], strict=True))
    )
    monkeypatch.setattr(published, "STAGE_LAYERS", layers)
    monkeypatch.setattr(published, "GROWTH", FEW_CHANNELS["growth_rate"])
    monkeypatch.setattr(published, "BOTTLENECK", 4 * FEW_CHANNELS["growth_rate"])
    monkeypatch.setattr(baseline, "LAYERS", layers)
    return FEW_CHANNELS


def test_names_and_shapes_are_those_of_the_release():
    lines = Path(__file__).with_name("published_generator_keys.tsv").read_text().splitlines()[1:]
    released = dict(line.split("\t") for line in lines)
    assert {name: "x".join(map(str, shape)) for name, shape in published_shapes(224).items()} == released


@pytest.mark.parametrize(
    "size", [64, *(pytest.param(size, marks=pytest.mark.slow) for size in (96, 128, 224))], ids=str
)
def test_single_precision_is_nearer_to_the_truth_than_the_baseline(baseline, size):
    """The truth is ours in double precision, which equals the baseline's there (below).

    They agree to 1e-4 where the baseline is accurate to it: what parts them is the baseline's rounding.
    """
    generator, plain, image, _ = ours_and_baseline(baseline, size, torch.float32)
    with torch.inference_mode():
        ours, theirs = generator(image), plain(image)
        truth = generator.double()(image.double())
    error, baseline_error = ((found - truth).abs().max().item() for found in (ours, theirs))
    apart = (ours - theirs).abs().max().item()
    print(f"{size}: ours {error:.1e} off the truth, baseline {baseline_error:.1e}, {apart:.1e} apart")
    assert error < 0.5 * baseline_error
    assert apart < max(1e-4, 1.1 * baseline_error)


@pytest.mark.slow
def test_all_channels_are_equal_in_double_precision(baseline):
    generator, plain, image, _ = ours_and_baseline(baseline, 64, torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(generator(image), plain(image), rtol=0, atol=1e-10)


def test_output_and_gradients_are_equal_in_double_precision(baseline, few_channels):
    """The algebra is exact. Gradients are those of the image and, taken through the conversion, of the weights."""
    size = 64
    generator, plain, image, weights = ours_and_baseline(baseline, size, torch.float64, **few_channels)
    image.requires_grad_()
    loss_weights = torch.randn(1, 1, size, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    parameters = dict(generator.named_parameters())
    volume = generator(image)
    *ours, image_gradient = torch.autograd.grad((volume * loss_weights).sum(), [*parameters.values(), image])
    for weight in weights.values():
        weight.requires_grad_()
    expected_volume = plain(image)
    torch.testing.assert_close(volume, expected_volume, rtol=0, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(generator(image), expected_volume, rtol=0, atol=1e-10)
    *theirs, expected = torch.autograd.grad(
        (expected_volume * loss_weights).sum(), [*weights.values(), image], allow_unused=True
    )
    torch.testing.assert_close(image_gradient, expected, rtol=1e-8, atol=1e-8)
    theirs = {
        name: torch.zeros_like(weight) if gradient is None else gradient
        for (name, weight), gradient in zip(weights.items(), theirs, strict=True)
    }
    converted = convert_state(theirs, size)
    for name, gradient in zip(parameters, ours, strict=True):
        torch.testing.assert_close(gradient, converted[name], rtol=1e-7, atol=1e-7, msg=name)
    for entries in unused_entries(theirs).values():  # what we do not build has no gradient in theirs
        assert all(theirs[name].abs().max() < 1e-8 for name in entries)


@pytest.fixture(scope="module")
def released(baseline) -> dict:
    """A stand-in for the released pickle, at 64."""
    state = OrderedDict(baseline.random_weights(published_shapes(64)))
    state["view1Model.encoder_layer.2.running_mean"] = torch.zeros(64)
    state["view1Model.encoder_layer.2.running_var"] = torch.ones(64)
    state["view1Model.encoder_layer.2.num_batches_tracked"] = torch.tensor(7)
    return {"iters": 1000, "epoch": 100, "state_dict": state, "lr": 5e-5}


def test_convert_a_checkpoint_file(released, tmp_path):
    path = tmp_path / "100_net_G.pth"
    torch.save(released, path)
    XReconGenerator(64).load_state_dict(convert_published(path, 64))
    unused = unused_entries(released["state_dict"])
    dead = next(entries for reason, entries in unused.items() if "never reaches" in reason)
    assert sum(released["state_dict"][name].numel() for name in dead) == 45_602
    assert {reason.split()[0]: len(entries) for reason, entries in unused.items()} == {
        "norm": 3,
        "layers": 12,
        "biases": 239,
    }


def _without(name):
    return lambda state: state.pop(name)


@pytest.mark.parametrize(
    ("spoil", "size", "message"),
    [
        (_without("decoder_layer2.0.bias"), 64, "no entry 'decoder_layer2.0.bias'"),
        (lambda state: state.update(extra=torch.ones(1)), 64, "unknown entry 'extra'"),
        (lambda state: state.update({"tohu_layer0.0.bias": torch.ones(2)}), 64, "'tohu_layer0.0.bias' is 2, but 1"),
        (lambda state: None, 96, "'view1Model.base_link.0.weight' is 2048x428, but 6912x428 .* give the spatial size"),
    ],
)
def test_a_checkpoint_that_differs_is_refused_by_the_first_key(released, tmp_path, spoil, size, message):
    state = dict(released["state_dict"])
    spoil(state)
    path = tmp_path / "net_G.pth"
    torch.save({**released, "state_dict": state}, path)
    with pytest.raises(InputError, match=message):
        convert_published(path, size)


class Malicious:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"not a pickle", "cannot be read|can be read safely"),
        ({"state_dict": Malicious()}, "can be read safely"),
        ({"weights": {}}, "no 'state_dict'"),
        ([1, 2], "no 'state_dict'"),
    ],
)
def test_no_checkpoint(tmp_path, capsys, content, message):
    path = tmp_path / "net_G.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError, match=message):
        convert_published(path, 64)
    assert "code ran" not in capsys.readouterr().out

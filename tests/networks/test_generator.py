from __future__ import annotations

import io
import json

import pytest
import torch

from xrecon_bundle.files import InputError
from xrecon_bundle.networks import XReconGenerator, build_generator
from xrecon_bundle.networks.export import METADATA, export_generator

TINY = {
    "stem_channels": 4,
    "stage_layers": (1, 1, 2, 1, 1),
    "growth_rate": 4,
    "decoder_channels": (16, 8, 8, 4, 4, 4),
}
VARIANTS = {
    "default": {},
    "no_fusion": {"fusion": False},
    "pa": {"views": ("pa",)},
    "lateral": {"views": ("lateral",)},
    "lateral_no_fusion": {"views": ("lateral",), "fusion": False},
    "fixed_base": {"base_grid": 4},
}


def tiny(seed: int = 0, **arguments) -> XReconGenerator:
    torch.manual_seed(seed)
    generator = XReconGenerator(64, **{**TINY, **arguments}).eval()
    for parameter in generator.parameters():  # normal(0, 0.02) lets the output vanish
        torch.nn.init.normal_(parameter, std=0.2)
    return generator


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 2, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("preset", "size", "millions"),
    [("published", 64, 25.16), ("published", 224, 98.8), ("compact", 64, 6), ("compact", 224, 6), ("compact", 320, 6)],
)
def test_size_of_the_presets(preset, size, millions):
    with torch.device("meta"):
        generator = build_generator(preset, size)
    assert sum(value.numel() for value in generator.parameters()) <= millions * 1e6
    if preset == "compact":
        assert sum(value.nbytes for value in generator.state_dict().values()) < 25e6


@pytest.mark.parametrize("size", [0, 32, 63, 80, 100])
def test_sizes_that_the_scales_do_not_divide_are_refused(size):
    with pytest.raises(ValueError, match="multiple of 32 and at least 64"):
        XReconGenerator(size)


@pytest.mark.parametrize("views", [(), ("lateral", "pa"), ("pa", "pa"), ("ap",)])
def test_unknown_views_are_refused(views):
    with pytest.raises(ValueError, match="views must be"):
        XReconGenerator(64, views=views)


def test_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="published, compact"):
        build_generator("tiny", 64)


@pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)
def test_every_parameter_reaches_the_output(arguments, image):
    generator = tiny(**arguments)
    generator(image).square().mean().backward()
    assert [name for name, value in generator.named_parameters() if not value.grad.abs().max() > 0] == []


@pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)
def test_streamed_inference_equals_training_and_a_batch_its_samples(arguments):
    generator = tiny(**arguments).double()  # in float32 rounding alone gives 1e-4
    image = torch.rand(2, 2, 64, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.enable_grad():
        plain = generator(image).detach()
    with torch.inference_mode():
        torch.testing.assert_close(generator(image), plain, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(generator(image[-1:]), plain[-1:], rtol=1e-9, atol=1e-9)
    assert plain.shape == (2, 1, 64, 64, 64)
    assert plain.std() > 0.01


@pytest.mark.parametrize(("view", "used"), [("pa", 0), ("lateral", 1)])
def test_a_single_view_ignores_the_other(view, used, image):
    generator = tiny(views=(view,))
    changed = image.clone()
    changed[:, 1 - used] = 0
    with torch.no_grad():
        torch.testing.assert_close(generator(changed), generator(image), rtol=0, atol=0)
        changed[:, used, 3:20, 5:9] = 1
        assert not generator(changed).allclose(generator(image))


def test_compact_weights_serve_every_size():
    small, large = build_generator("compact", 64), build_generator("compact", 96)
    large.load_state_dict(small.state_dict())


def test_initialisation_is_that_of_the_paper():
    generator = build_generator("compact", 64)
    weights = torch.cat([value.flatten() for name, value in generator.named_parameters() if name.endswith("weight")])
    assert weights.mean().abs() < 1e-4
    assert abs(weights.std() - 0.02) < 1e-4
    assert all(not value.any() for name, value in generator.named_parameters() if name.endswith("bias"))


def test_checkpointing_changes_no_gradient(image):
    gradients = []
    for checkpointing in (False, True):
        generator = tiny(activation_checkpointing=checkpointing, dropout=0.0).train()
        generator(image).square().mean().backward()
        gradients.append([value.grad for value in generator.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("arguments", [{}, {"views": ("lateral",), "fusion": False}], ids=["default", "ablated"])
def test_torchscript_as_ckpt_export_makes_it(arguments, image):
    generator = tiny(**arguments)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(generator), file)
    file.seek(0)
    exported = torch.jit.load(file)
    with torch.enable_grad():  # not streamed, as in TorchScript: the same operations
        expected = generator(image).detach()
    with torch.inference_mode():
        torch.testing.assert_close(exported(image), expected, rtol=0, atol=1e-5)


def test_trace(image):
    generator = tiny()
    with torch.no_grad():
        traced = torch.jit.trace(generator, image)
    other = image.flip(2)
    torch.testing.assert_close(traced(other), generator(other), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_onnx(image, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    generator = tiny()
    export_generator(generator, tmp_path / "generator.onnx")
    session = runtime.InferenceSession(tmp_path / "generator.onnx")
    (found,) = session.run(["pred"], {"image": image.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), generator(image).detach(), rtol=0, atol=1e-4)


def test_exported_program(image, tmp_path):
    generator = tiny()
    export_generator(generator, tmp_path / "generator.pt2")
    beside = {METADATA: ""}
    program = torch.export.load(tmp_path / "generator.pt2", extra_files=beside)
    torch.testing.assert_close(program.module()(image), generator(image), rtol=0, atol=1e-4)
    assert json.loads(beside[METADATA]) == {"spatial_size": 64, "unknown": generator.unknown}


@pytest.mark.parametrize("name", ["generator.pt", "generator", "pt2"])
def test_a_name_that_says_no_format_is_refused(name, tmp_path):
    with pytest.raises(InputError, match=r"\.onnx or \.pt2"):
        export_generator(tiny(), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("gradient", [False, True])
def test_torch_compile_takes_the_whole_graph(image, gradient):
    generator = tiny()
    compiled = torch.compile(generator, backend="aot_eager", fullgraph=True)
    with torch.set_grad_enabled(gradient):
        torch.testing.assert_close(compiled(image), generator(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradient", [False, True])
def test_autocast(image, gradient):
    generator = tiny()
    with torch.set_grad_enabled(gradient):
        expected = generator(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = generator(image)
        if gradient:
            found.float().square().mean().backward()
            assert all(value.grad.isfinite().all() for value in generator.parameters())
    correlation = torch.corrcoef(torch.stack([found.float().flatten(), expected.flatten()]).detach())[0, 1]
    assert correlation > 0.95


def test_channels_last_weights(image):
    generator = tiny()
    with torch.no_grad():
        expected = generator(image)
        for value in generator.parameters():
            if value.dim() == 5:
                value.data = value.data.contiguous(memory_format=torch.channels_last_3d)
        found = generator(image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

"""The fine generator: what the coarse weights give until it has learnt more, block by block the same volume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from xrecon_bundle.networks.fine import FineGenerator, lift, upsample, warm_start
from xrecon_bundle.networks.generator import build_generator
from xrecon_bundle.networks.weights import load_fine, load_generator, save_weights
from xrecon_bundle.projection import ConeBeamGeometry, Projector
from xrecon_bundle.workflows.predictor import predict

SIZE = 64


@pytest.fixture(scope="module")
def coarse():
    torch.manual_seed(0)
    return build_generator("compact", 64).eval()


@pytest.fixture
def network(coarse):
    torch.manual_seed(1)
    return warm_start(FineGenerator(SIZE), coarse).eval()


@pytest.fixture
def trained(network):
    """As if it had learnt something: no layer is zero."""
    for layer in network.modules_that_start_at_zero():
        torch.nn.init.normal_(layer.weight, 0, 0.05)
    return network


def test_before_training_it_gives_the_up_sampled_coarse_volume(coarse):
    network = warm_start(FineGenerator(96), coarse).eval()
    image = torch.rand(1, 2, 96, 96)
    with torch.inference_mode():
        wanted = coarse(F.interpolate(image, size=(64, 64), mode="area"))
        wanted = F.interpolate(wanted, size=(96, 96, 96), mode="trilinear", align_corners=False)
        torch.testing.assert_close(network(image), wanted, atol=1e-4, rtol=0)


def test_a_block_is_that_part_of_the_whole(trained):
    image = torch.rand(1, 2, SIZE, SIZE)
    image[:, :, :9] = trained.unknown
    with torch.no_grad():
        whole, block = trained.render(image), trained.render(image, (12, 20, 36), 16)
    assert whole.volume.shape == (1, 1, SIZE, SIZE, SIZE)
    assert whole.labels.shape == (1, 5, SIZE // 2, SIZE // 2, SIZE // 2)
    for name, step in {"volume": 1, "labels": 2, "log_variance": 2}.items():
        part = (..., *(slice(first // step, (first + 16) // step) for first in (12, 20, 36)))
        torch.testing.assert_close(getattr(block, name), getattr(whole, name)[part], atol=1e-5, rtol=1e-4)


def test_every_weight_learns(trained):
    rendering = trained.train().render(torch.rand(1, 2, SIZE, SIZE), (0, 8, 48), 16)
    sum(part.square().mean() for part in rendering).backward()
    assert [name for name, weight in trained.named_parameters() if weight.grad is None] == []


def test_what_the_film_does_not_show_is_not_taken_for_black(trained):
    dark, unknown = torch.rand(1, 2, SIZE, SIZE), None
    dark[:, :, 20:40] = 0
    unknown = dark.clone()
    unknown[:, :, 20:40] = trained.unknown
    with torch.no_grad():
        assert (trained(dark) - trained(unknown)).abs().max() > 1e-3
        assert (trained.render_coarse(dark).coarse - trained.render_coarse(unknown).coarse).abs().max() > 1e-3


def test_the_coarse_part_alone_is_that_of_the_whole(trained):
    image = torch.rand(1, 2, SIZE, SIZE)
    with torch.no_grad():
        whole, alone = trained.render(image, (0, 0, 0), 16), trained.render_coarse(image)
    torch.testing.assert_close(alone.coarse, whole.coarse)
    torch.testing.assert_close(alone.coarse_labels, whole.coarse_labels)
    assert alone.coarse.shape == (1, 1, 64, 64, 64)


@pytest.mark.parametrize("view", [0, 1])
def test_a_voxel_reads_the_pixel_that_its_shadow_falls_on(view):
    """The projector casts the shadow, the lifting finds it again; asymmetric places, near and far from the detector."""
    geometry = (ConeBeamGeometry.chest_pa, ConeBeamGeometry.chest_lateral)[view](128)
    for voxel in ((10, 40, 20), (50, 12, 33), (30, 55, 51)):
        volume = torch.zeros(1, 1, SIZE, SIZE, SIZE)
        volume[0, 0][voxel] = 1
        shadow = Projector(geometry)(volume)[:, :, 0]
        seen = lift(shadow, view, [torch.arange(SIZE)] * 3, SIZE)[0, 0]
        depth = (1, 0)[view]
        plane = seen.select(depth, voxel[depth])  # magnification differs from plane to plane
        brightest = (plane == plane.amax()).nonzero().float().mean(0)
        wanted = torch.tensor([float(place) for axis, place in enumerate(voxel) if axis != depth])
        assert (brightest - wanted).abs().max() <= 1


def test_up_sampling_is_the_trilinear_one_and_goes_on_beyond_the_edge():
    volume = torch.rand(1, 2, 8, 8, 8)
    whole = F.interpolate(volume, size=(28, 28, 28), mode="trilinear", align_corners=False)
    at = [torch.arange(3, 9), torch.arange(0, 28), torch.arange(20, 28)]
    torch.testing.assert_close(upsample(volume, at, 28), whole[:, :, 3:9, :, 20:28])
    beyond = upsample(volume, [torch.tensor([-3]), *at[1:]], 28)
    torch.testing.assert_close(beyond, whole[:, :, :1, :, 20:28])


def test_its_weights_are_known_by_their_file_also_in_half_precision(trained, tmp_path):
    save_weights(trained.state_dict(), tmp_path / "fine.pt", half=True)
    loaded = load_generator(tmp_path / "fine.pt")
    assert isinstance(loaded, FineGenerator)
    assert loaded.spatial_size == SIZE
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    image = torch.rand(2, SIZE, SIZE)
    image[:, 5] = torch.nan
    assert abs(predict(image, loaded).astype(int) - predict(image, trained)).mean() < 3


def test_training_starts_from_weights_of_either_kind(trained, coarse, tmp_path):
    save_weights(coarse.state_dict(), tmp_path / "coarse.pt")
    save_weights(trained.state_dict(), tmp_path / "fine.pt")
    assert load_fine(tmp_path / "coarse.pt").spatial_size == 224
    torch.testing.assert_close(load_fine(tmp_path / "fine.pt").head.weight, trained.head.weight)


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="multiple of 32"):
        FineGenerator(100)


def test_the_weights_for_films_are_known_by_their_file():
    network = load_generator(Path(__file__).parents[2] / "models" / "fine.pt")
    assert isinstance(network, FineGenerator)
    assert network.spatial_size == 224
    with torch.no_grad():
        coarse = network.render_coarse(torch.rand(1, 2, 224, 224))
    assert coarse.coarse.isfinite().all()

"""The fine generator: what the coarse weights give until it has learnt more, block by block the same volume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from xrecon_bundle.files import InputError
from xrecon_bundle.frame import unit_to_hu
from xrecon_bundle.networks.export import export_generator
from xrecon_bundle.networks.fine import (
    NOT_SHOWN,
    PLACE_GAIN,
    CoarsePart,
    FineGenerator,
    block_condition,
    lift,
    upsample,
    warm_start,
)
from xrecon_bundle.networks.generator import build_generator
from xrecon_bundle.networks.thickness import REDUCED, ThicknessNet, bone_net
from xrecon_bundle.networks.weights import load_fine, load_generator, save_weights
from xrecon_bundle.projection import ConeBeamGeometry, Projector
from xrecon_bundle.workflows.predictor import predict

SIZE = 64


@pytest.fixture(scope="module")
def coarse():
    torch.manual_seed(0)
    return build_generator("compact", 64).eval()


@pytest.fixture(scope="module")
def thickness():
    torch.manual_seed(2)
    return ThicknessNet().eval()


@pytest.fixture(scope="module")
def bones():
    torch.manual_seed(3)
    return bone_net().eval()


@pytest.fixture
def network(coarse, thickness, bones):
    torch.manual_seed(1)
    return warm_start(FineGenerator(SIZE), coarse, thickness, bones).eval()


@pytest.fixture
def trained(network):
    """As if it had learnt something: no layer is zero."""
    for layer in network.modules_that_start_at_zero():
        torch.nn.init.normal_(layer.weight, 0, 0.05)
    return network


def test_before_training_it_gives_the_up_sampled_coarse_volume(coarse, thickness, bones):
    network = warm_start(FineGenerator(96), coarse, thickness, bones).eval()
    image = torch.rand(1, 2, 96, 96)
    with torch.inference_mode():
        wanted = coarse(F.interpolate(image, size=(64, 64), mode="area"))
        wanted = F.interpolate(wanted, size=(96, 96, 96), mode="trilinear", align_corners=False)
        torch.testing.assert_close(network(image), wanted, atol=1e-4, rtol=0)


def test_a_block_is_that_part_of_the_whole(trained):
    """The whole is rendered slab by slab, a block at once; one lies across slabs, one at two faces of the cube."""
    image = torch.rand(1, 2, SIZE, SIZE)
    image[:, :, :9] = trained.unknown
    with torch.no_grad():
        part = trained.coarse_part(image)
        whole = trained.render_fine(image, part)
        blocks = {place: trained.render_fine(image, part, *place) for place in (((12, 20, 36), 16), ((0, 44, 4), 20))}
    assert whole.volume.shape == (1, 1, SIZE, SIZE, SIZE)
    assert whole.labels.shape == (1, 5, SIZE // 2, SIZE // 2, SIZE // 2)
    for (start, edge), block in blocks.items():
        for name, step in {"volume": 1, "labels": 2, "log_variance": 2}.items():
            inside = (..., *(slice(first // step, (first + edge) // step) for first in start))
            torch.testing.assert_close(getattr(block, name), getattr(whole, name)[inside], atol=1e-5, rtol=1e-4)


def test_the_fine_part_of_224_takes_less_than_400_mb(baseline):
    """Counted with tensors that hold nothing; 1.7 GB if it were rendered at once."""
    with FakeTensorMode(), torch.no_grad():
        network, image = FineGenerator(224).eval(), torch.zeros(1, 2, 224, 224)
        shapes = ((1, 64), (5, 64), (16, 64), (3, 112))  # channels and edge
        volumes = (torch.zeros(1, channels, *(edge,) * 3) for channels, edge in shapes)
        part = CoarsePart(*volumes, [torch.zeros(1, channels, 112, 112) for channels in network.bones.channels])
        with baseline.LiveMemory() as live:
            network.render_fine(image, part)
    assert live.peak < 0.4e9


@pytest.mark.slow
def test_an_exported_program_gives_the_same_volume(coarse, thickness, bones):
    network = warm_start(FineGenerator(32), coarse, thickness, bones).eval()
    for layer in network.modules_that_start_at_zero():
        torch.nn.init.normal_(layer.weight, 0, 0.05)
    image = torch.rand(1, 2, 32, 32)
    with torch.no_grad():
        program = torch.export.export(network, (torch.zeros_like(image),))
        torch.testing.assert_close(program.module()(image), network(image), atol=1e-3, rtol=0)


def test_every_weight_learns_but_those_of_the_frozen_parts(trained):
    rendering = trained.train().render(torch.rand(1, 2, SIZE, SIZE), (0, 8, 48), 16)
    sum(part.square().mean() for part in rendering).backward()
    without = {name.split(".")[0] for name, weight in trained.named_parameters() if weight.grad is None}
    assert without == {"coarse", "thickness", "bones"}
    assert not trained.coarse.training
    assert not trained.thickness.training
    assert not trained.bones.training


@pytest.mark.parametrize(
    ("part", "learning", "frozen"),
    [
        ("first", {"coarse"}, {"thickness", "bones", "join", "refine_head", "images", "middle", "head"}),
        ("coarse", {"join", "join_norm", "join_head", "refine", "refine_head"}, {"coarse", "thickness", "images"}),
        ("fine", {"images", "bones_to_middle", "middle", "lacking_to_middle", "head"}, {"coarse", "join", "refine"}),
    ],
)
def test_one_part_learns_alone(trained, part, learning, frozen):
    trained.learn(part).train()
    image = torch.rand(1, 2, SIZE, SIZE)
    if part == "first":
        trained.first_volume(image).square().mean().backward()
    elif part == "coarse":
        sum(of.square().mean() for of in trained.render_coarse(image)).backward()
    else:
        trained.render(image, (0, 8, 48), 16).volume.square().mean().backward()
    found = {name.split(".")[0] for name, weight in trained.named_parameters() if weight.grad is not None}
    assert learning <= found
    assert not found & frozen
    assert {name.split(".")[0] for name, weight in trained.named_parameters() if weight.requires_grad} >= found


def test_the_first_volume_is_the_coarse_generators(trained):
    """It is told apart what a film does not show and what lies beside a body, and all else is handed to it as it is."""
    image = torch.rand(1, 2, 128, 128)
    given = []
    trained.coarse.forward = lambda small: given.append(small) or torch.zeros(1, 1, 64, 64, 64)
    image[:, :, 40:60] = trained.unknown
    image[:, :, 80:100] = 0
    assert trained.first_volume(image).shape == (1, 1, 64, 64, 64)
    assert (given[0][:, :, 20:30] == NOT_SHOWN).all()
    assert (given[0][:, :, 40:50] == 0).all()
    torch.testing.assert_close(given[0][:, :, :20], F.avg_pool2d(image, 2)[:, :, :20])


@pytest.mark.parametrize(("bands", "share"), [((0, 0, 0), 0.0), ((0.5, 0.5, 0.5), 0.5), ((1, 1, 1), 1.0)])
def test_the_volume_takes_up_what_it_lacks_as_far_as_it_is_believed(network, bands, share):
    """Of all bands alike: coarse and fine detail add up to the whole, and bones to that."""
    pixels = SIZE // 2
    network.coarse.forward = lambda small: torch.full((1, 1, 64, 64, 64), 0.4)  # a body, in which there can be bones
    network.bones.look = lambda image: (
        [torch.full((1, parts, pixels, pixels), 0.5) for parts in (2, 3)],
        [torch.zeros(1, 16, pixels, pixels)] * 2,
    )
    image = torch.rand(1, 2, SIZE, SIZE)
    with torch.no_grad():
        without, part = network.render(image), network.coarse_part(image)
        network.middle_head.bias[-3:] = torch.tensor(bands)
        gained = network.render(image).volume - without.volume
    wanted = F.interpolate(part.lacking.sum(1, keepdim=True), size=(SIZE,) * 3, mode="trilinear")
    assert wanted.abs().max() > 0.01
    assert part.lacking[:, 2].max() > 0
    inside = (..., *(slice(2, -2),) * 3)
    torch.testing.assert_close(gained[inside], share * wanted[inside], atol=1e-5, rtol=1e-4)


def test_free_air_that_the_maps_show_reaches_the_labels_of_that_place(network):
    """A spot in either view's map, and weights that ask for both: the label lies where their rays meet."""
    spots = {0: (50, 30), 1: (35, 30)}  # of 80 x 80: x or y, and z
    maps = [torch.zeros(1, channels, 80, 80) for channels in (4, 2)]
    maps[0][0, 3, slice(*(spots[0][0] - 2, spots[0][0] + 2)), 28:33] = 1
    maps[1][0, 1, slice(*(spots[1][0] - 2, spots[1][0] + 2)), 28:33] = 1
    network.thickness.look = lambda image: (maps, [torch.zeros(1, 16, 80, 80)] * 2)
    seen = []
    network.join.stem.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        network.render_coarse(torch.rand(1, 2, SIZE, SIZE))
    both = seen[0][0, 1 + 3] * seen[0][0, 1 + 20 + 1]
    found = (both > 0.5).nonzero().float().mean(0)
    # The detector is wider than the cube and magnifies: 1.126 at the cube's middle plane.
    wanted = [((spot + 0.5) / 80 - 0.5) * REDUCED * 64 + 31.5 for spot in (50 - 0.5, 35 - 0.5, 30)]
    assert (found - torch.tensor(wanted)).abs().max() < 2


@pytest.mark.parametrize(("label", "filled"), [(0, False), (1, False), (2, False), (3, True), (4, True)])
def test_where_the_labels_say_free_air_it_is_in_the_volume(trained, label, filled):
    with torch.no_grad():
        trained.join_head.bias[1 + label] = 20
        rendering = trained.render(torch.rand(1, 2, SIZE, SIZE))
    for volume, labels in ((rendering.volume, rendering.labels), (rendering.coarse, rendering.coarse_labels)):
        assert (labels.argmax(1) == label).all()
        if filled:
            torch.testing.assert_close(unit_to_hu(volume), torch.full_like(volume, -1000), atol=1, rtol=0)
        else:
            assert (unit_to_hu(volume) + 1000).abs().mean() > 20


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


def test_a_discriminator_of_blocks_is_told_what_the_films_show_there_and_where_it_is():
    """A column of rays through one pixel of PA is bright, in either view by itself; the places are the cube's."""
    image = torch.zeros(1, 2, SIZE, SIZE)
    image[0, 0, 40, 32] = 1.0
    image[0, 1, 24:27] = FineGenerator(SIZE).unknown
    start, edge = (28, 4, 20), 24
    told = block_condition(image, start, edge)
    assert told.shape == (1, 5, edge, edge, edge)
    whole = block_condition(image, (0, 0, 0), SIZE)
    inside = (..., *(slice(first, first + edge) for first in start))
    torch.testing.assert_close(told, whole[inside])
    brightest = whole[0, 0].amax(dim=1).flatten().argmax()  # over the depth
    x, z = divmod(int(brightest), SIZE)
    assert abs((x - 31.5) * REDUCED - (40 - 31.5)) < 3  # the cube is magnified by 1.126 at its middle, by 1.0 to 1.3
    assert abs(z - 32) <= 1
    assert (whole[0, 0].amax(dim=(0, 2)) > 0.2).all()  # at every depth
    assert (whole[0, 1] == 0).all()  # unknown is not -1
    torch.testing.assert_close(whole[0, 2:, 5, 9, 60], PLACE_GAIN * (torch.tensor([5.5, 9.5, 60.5]) / (SIZE / 2) - 1))


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


def test_weights_without_a_factor_of_the_deviation_still_load(trained, tmp_path):
    older = {name: value for name, value in trained.state_dict().items() if name != "deviation_factor"}
    save_weights(older, tmp_path / "older.pt", SIZE)
    assert load_generator(tmp_path / "older.pt").deviation_factor == 1
    resumed = nn.ModuleDict({"network": FineGenerator(SIZE)})
    resumed.load_state_dict({f"network.{name}": value for name, value in older.items()})
    assert "deviation_factor" not in older
    trained.deviation_factor.fill_(1.25)
    save_weights(trained.state_dict(), tmp_path / "newer.pt", half=True)
    trained.deviation_factor.fill_(1)
    assert load_generator(tmp_path / "newer.pt").deviation_factor == 1.25


def test_training_starts_from_weights_of_either_kind(trained, coarse, thickness, bones, tmp_path):
    parts = {"coarse": coarse, "thickness": thickness, "bones": bones}
    for name, network in {**parts, "fine": trained}.items():
        save_weights(network.state_dict(), tmp_path / f"{name}.pt")
    seeing = tmp_path / "thickness.pt", tmp_path / "bones.pt"
    fresh = load_fine(tmp_path / "coarse.pt", *seeing)
    assert fresh.spatial_size == 224
    frozen = {name.split(".")[0] for name, weight in fresh.named_parameters() if not weight.requires_grad}
    assert frozen == {*parts, "join", "join_norm", "join_head", "refine", "refine_head"}
    for part, wanted in parts.items():
        for name, value in wanted.state_dict().items():
            torch.testing.assert_close(fresh.get_submodule(part).state_dict()[name], value)
    continued = load_fine(tmp_path / "fine.pt", tmp_path / "none.pt", tmp_path / "none.pt")
    torch.testing.assert_close(continued.head.weight, trained.head.weight)


@pytest.mark.parametrize("which", ["thickness", "bones"])
@pytest.mark.parametrize(("content", "why"), [(None, "no weights here"), ("other", "not the weights")])
def test_weights_of_maps_that_cannot_be_used_are_named(coarse, thickness, bones, content, why, which, tmp_path):
    parts = {"coarse": coarse, "thickness": thickness, "bones": bones}
    for name, network in parts.items():
        save_weights(network.state_dict(), tmp_path / f"{name}.pt")
    (tmp_path / f"{which}.pt").unlink()
    if content is not None:
        other = {"thickness": bones, "bones": thickness}[which]
        save_weights(other.state_dict(), tmp_path / f"{which}.pt")
    with pytest.raises(InputError, match=rf"{which}.pt: {why}.*thickness_weights.py"):
        load_fine(*(tmp_path / f"{name}.pt" for name in parts))


def test_fine_weights_that_do_not_say_their_size_are_refused_without_one(trained, tmp_path):
    """They fit any: taken for 64, they once cost a training a quarter of an hour."""
    torch.save(dict(trained.state_dict()), tmp_path / "fine.pt")
    with pytest.raises(InputError, match=r"fine.pt.*--spatial_size"):
        load_generator(tmp_path / "fine.pt")
    assert load_generator(tmp_path / "fine.pt", 96).spatial_size == 96


def test_what_a_film_shows_fades_before_its_end(trained):
    """A film's end is no surface. Where it shows nothing, its features do not reach the volume."""
    image = torch.rand(1, 2, SIZE, SIZE)
    image[:, :, :20] = trained.unknown
    seen = []
    before = trained._features

    def features(joined, images, *others):
        seen.append([of_view.clone() for of_view in images])
        return before(joined, images, *others)

    trained._features = features
    with torch.no_grad():
        trained.render(image, (16, 16, 16), 16)
    for of_view in seen[0]:
        assert (of_view[:, :, :10] == 0).all()
        assert of_view[:, :, 10].abs().max() < 0.3 * of_view[:, :, 16].abs().max()
        assert of_view[:, :, 13:].abs().amax((0, 1, 3)).min() > 0


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


@pytest.mark.slow
def test_onnx(trained, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    export_generator(trained, tmp_path / "fine.onnx")
    image = torch.rand(1, 2, SIZE, SIZE)
    image[:, :, :10] = trained.unknown
    (found,) = runtime.InferenceSession(tmp_path / "fine.onnx").run(["pred"], {"image": image.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), trained(image).detach(), rtol=0, atol=1e-3)


def test_a_part_that_there_is_none_of_is_refused(network):
    with pytest.raises(ValueError, match="first, coarse, fine, not 'foo'"):
        network.learn("foo")
    assert any(weight.requires_grad for weight in network.parameters())

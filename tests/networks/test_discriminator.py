from __future__ import annotations

import pytest
import torch

from xrecon_bundle.networks import CoordConv, CoordConvPatchDiscriminator, radiographs_to_volume
from xrecon_bundle.networks.coordconv import coordinates


def test_coordinates_run_from_minus_one_to_one_along_their_own_axis():
    found = coordinates(torch.zeros(2, 5, 3, 4, 5))
    assert found.shape == (2, 3, 3, 4, 5)
    for axis, size in enumerate((3, 4, 5)):
        line = found[1, axis].movedim(axis, 0)
        torch.testing.assert_close(line.flatten(1).mean(1), torch.linspace(-1, 1, size))
        assert line.flatten(1).std(1).max() == 0


def test_coordconv_sees_where_it_is_and_an_ordinary_convolution_does_not():
    x = torch.zeros(1, 1, 9, 9)
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    arguments = {"kernel_size": 3, "conv_only": True}
    assert CoordConv(2, 1, 4, coord=True, **arguments)(x)[inner].std((2, 3)).min() > 1e-3
    assert CoordConv(2, 1, 4, coord=False, **arguments)(x)[inner].std((2, 3)).max() < 1e-6


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    # 64 (6 4^3) + 64, then 64 128 4^3, 128 256 4^3, 256 512 4^3, and 512 4^3 + 1
    [({}, 24_640 + 524_288 + 2_097_152 + 8_388_608 + 32_769), ({"coord": False}, 12_352 + 11_042_817)],
)
def test_published_layers(arguments, parameters):
    assert sum(value.numel() for value in CoordConvPatchDiscriminator(**arguments).parameters()) == parameters


@pytest.mark.parametrize(("dims", "channels", "size", "patches"), [(3, 3, 64, 11), (2, 1, 64, 11), (3, 3, 32, 7)])
def test_one_logit_a_patch(dims, channels, size, patches):
    # (S + 1 each at stride 2: 33, 17, 9; then + 1 twice.)
    discriminator = CoordConvPatchDiscriminator(dims, channels, channels=4)
    assert discriminator(torch.rand(2, channels, *[size] * dims)).shape == (2, 1, *[patches] * dims)


def test_views_are_repeated_along_the_direction_in_which_they_were_taken():
    image = torch.rand(2, 2, 6, 6)
    volume = radiographs_to_volume(image, 6)
    x, y, z = 1, 4, 2
    torch.testing.assert_close(volume[:, 0, x, :, z], image[:, 0, x, z, None].expand(2, 6))
    torch.testing.assert_close(volume[:, 1, :, y, z], image[:, 1, y, z, None].expand(2, 6))
    torch.testing.assert_close(volume[:, :, x, y, z], torch.stack([image[:, 0, x, z], image[:, 1, y, z]], 1))

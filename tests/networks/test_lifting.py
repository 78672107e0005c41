"""What is constant along depth is computed once, exactly."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from xrecon_bundle.networks.lifting import Base, Linker, add_thin_


def lift_plainly(linker: Linker, x: torch.Tensor) -> torch.Tensor:
    """The same as published: repeat along depth, two 3D convolutions."""
    size = [1, 1, 1, 1, 1]
    size[linker.axis] = x.shape[-1]
    x = F.relu(F.instance_norm(linker.reduce(x))).unsqueeze(linker.axis).repeat(size)
    return linker.compress(F.relu(F.instance_norm(linker.lift(x))))


def lift(linker: Linker, x: torch.Tensor) -> torch.Tensor:
    volume = torch.zeros(len(x), linker.lift.out_channels, *[x.shape[-1]] * 3, dtype=x.dtype)
    add_thin_(volume, linker(x), linker.axis)
    return volume


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("size", [4, 5, 6, 9])
@pytest.mark.parametrize("batch", [1, 2])
def test_linker_equals_plain_convolutions(axis, size, batch):
    torch.manual_seed(0)
    linker = Linker(5, 3, axis).double()
    x = torch.randn(batch, 5, size, size, dtype=torch.float64)
    torch.testing.assert_close(lift(linker, x), lift_plainly(linker, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("axis", [2, 3])
def test_gradcheck(axis):
    torch.manual_seed(0)
    linker = Linker(2, 2, axis).double()
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*linker.named_parameters(), strict=True)

    def function(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        thin = torch.func.functional_call(linker, dict(zip(names, values, strict=True)), (x,))
        volume = torch.zeros(1, 2, 5, 5, 5, dtype=x.dtype)
        add_thin_(volume, thin, axis)
        return volume

    assert torch.autograd.gradcheck(function, (x, *parameters))


def test_base_fills_a_fixed_grid_and_resamples_it():
    base = Base(7, channels=3, spatial_size=5, grid_size=2, dropout=0.5).eval()
    small = Base(7, channels=3, spatial_size=2, grid_size=2, dropout=0.5).eval()
    small.load_state_dict(base.state_dict())
    x = torch.randn(2, 7)
    expected = F.interpolate(small(x), size=(5, 5, 5), mode="trilinear")
    torch.testing.assert_close(base(x), expected)
    assert small(x).shape == (2, 3, 2, 2, 2)

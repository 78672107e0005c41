"""The moving average of the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Engine

from xrecon_bundle.handlers import MovingAverage


def averaged(decay: float, iterations: int) -> float:
    """The average after the network's weight was 1, 2, 3 ... in the iterations."""
    network = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(network.weight, 100.0)  # the initial weight
    average = copy.deepcopy(network)
    engine = Engine(lambda engine, batch: torch.nn.init.constant_(network.weight, batch))
    MovingAverage(network, average, decay).attach(engine)
    engine.run([float(number + 1) for number in range(iterations)])
    return average.weight.item()


def test_it_is_the_exponential_average_with_a_warm_up() -> None:
    expected = 100.0
    for iteration in range(1, 31):
        decay = min(0.6, (1 + iteration) / (10 + iteration))
        expected = decay * expected + (1 - decay) * iteration
    assert averaged(0.6, 30) == pytest.approx(expected, rel=1e-5)


def test_the_initial_weights_are_forgotten_whatever_the_decay() -> None:
    assert averaged(0.9999, 60) < 60


def test_running_statistics_are_averaged_and_counters_copied() -> None:
    network = torch.nn.BatchNorm1d(1)
    average = copy.deepcopy(network)
    engine = Engine(lambda engine, batch: network(torch.full((2, 1), batch)))
    MovingAverage(network, average, 0.9).attach(engine)
    engine.run([10.0, 10.0, 10.0])
    assert average.num_batches_tracked == 3
    assert 0 < average.running_mean.item() < network.running_mean.item()


def test_an_average_that_is_the_network_is_left_alone() -> None:
    network = torch.nn.Linear(1, 1)
    engine = Engine(lambda engine, batch: None)
    before = network.weight.item()
    MovingAverage(network, network, 0.0).attach(engine)
    engine.run([0])
    assert network.weight.item() == before


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        MovingAverage(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), decay)

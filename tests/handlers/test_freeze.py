import pytest
import torch
from ignite.engine import Engine

from disinr_monai.handlers import FreezeShared
from tests.problems import small_naive, small_network


def engine(step=lambda e, b: None) -> Engine:
    return Engine(step)


def test_freezes_all_seven_tensors_of_the_pair():
    network = small_network()
    run = engine(lambda e, b: [p.requires_grad for p in network.shared.parameters()])
    FreezeShared(network).attach(run)
    run.run([0])
    assert run.state.output == [False] * 7
    assert all(p.requires_grad for p in network.subjects.parameters())


def test_a_network_that_shares_nothing_runs():
    run, network = engine(), small_naive()
    FreezeShared(network).attach(run)
    run.run([0])
    assert all(p.requires_grad for p in network.parameters())


def test_one_changed_bit_is_found():
    network = small_network()

    def step(_, __):
        with torch.no_grad():
            weight = network.shared["decoder"].weights[1]
            weight[3, 2] = torch.nextafter(weight[3, 2], torch.tensor(9.0))

    run = engine(step)
    FreezeShared(network).attach(run)
    with pytest.raises(RuntimeError, match=r"frozen pair changed.*decoder\.weights\.1"):
        run.run([0])

"""The server's training steps: keyed by the round, measured, refused if not finite."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedvtc.errors import ServerError
from fedvtc.learning.models.weights import load_optimizer, load_weights, optimizer_arrays, weights_of
from fedvtc.learning.server import Server


@pytest.fixture
def line():
    module = nn.Linear(1, 1)
    load_weights(module, {"weight": torch.tensor([[1.0]]).numpy(), "bias": torch.tensor([0.0]).numpy()})
    return module


def square(module):
    return lambda x_B1, y_B1: functional.mse_loss(module(x_B1), y_B1)


def test_a_step_of_the_server_by_hand(line):
    server = Server(seed=0, round=4)
    batch = torch.tensor([[1.0], [1.0]]), torch.tensor([[3.0], [3.0]])
    with server.phase("line"):
        terms = server.fit(line, [batch], square(line), torch.optim.SGD(line.parameters(), lr=0.25))
    # (1 - 3)^2; the gradient is -4 for the weight and the bias.
    assert terms == {"loss": 4.0}
    assert (line.weight.item(), line.bias.item()) == (2.0, 1.0)
    assert server.scalars["loss/server/line"] == 4.0
    assert server.scalars["time/server/line"] > 0
    assert server.scalars["cpu/server/line"] > 0
    # Forward and gradient of the weight: a multiplication and an addition for each of two rows.
    assert server.scalars["flops/server/line"] == 2 * (2 + 2)


def test_draws_of_the_server_depend_on_seed_round_and_phase():
    def drawn(seed, round, name):
        with Server(seed, round).phase(name):
            return torch.rand(1).item()

    state = torch.get_rng_state()
    assert drawn(0, 1, "a") == drawn(0, 1, "a")
    assert len({drawn(0, 1, "a"), drawn(1, 1, "a"), drawn(0, 2, "a"), drawn(0, 1, "b")}) == 4
    assert torch.equal(torch.get_rng_state(), state)


def test_training_outside_of_a_phase_or_to_infinity_is_refused(line, golden):
    server, batch = Server(0, 2), (torch.tensor([[torch.inf]]), torch.zeros(1, 1))
    for _ in range(2):
        with pytest.raises(RuntimeError) as refused:
            server.fit(line, [batch], square(line), torch.optim.SGD(line.parameters(), lr=1.0))
        with pytest.raises(ServerError) as broken, server.phase("line"):
            server.fit(line, [batch], square(line), torch.optim.SGD(line.parameters(), lr=1.0))
    golden(f"{refused.value}\n{broken.value}")


@pytest.mark.parametrize("make", [torch.optim.Adam, lambda weights, lr: torch.optim.SGD(weights, lr, momentum=0.9)])
def test_training_that_continues_from_arrays_has_the_same_bits(make):
    def steps(module, optimizer, number):
        for _ in range(number):
            optimizer.zero_grad()
            module(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()

    def new():
        torch.manual_seed(0)
        module = nn.Linear(3, 2)
        return module, make(module.parameters(), lr=0.1)

    whole, optimizer = new()
    assert optimizer_arrays(optimizer) == {}
    steps(whole, optimizer, 2)
    weights, state = weights_of(whole), optimizer_arrays(optimizer)
    steps(whole, optimizer, 2)

    resumed, other = new()
    load_weights(resumed, weights)
    load_optimizer(other, state)
    steps(resumed, other, 2)
    assert torch.equal(resumed.weight, whole.weight)
    assert {name.split("/")[0] for name in state} == {"0", "1"}


def test_the_first_step_updates_a_batch_norm_once():
    norm = nn.BatchNorm1d(2)
    server = Server(seed=1, round=1)
    with server.phase("train"):
        batch = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
        server.fit(norm, [(batch,)], lambda rows: norm(rows).sum(), torch.optim.SGD(norm.parameters(), lr=0.1))
    assert int(norm.num_batches_tracked) == 1
    # A tenth of the batch's mean, because the running mean starts at 0.
    assert torch.equal(norm.running_mean, torch.tensor([0.1, 0.2]))

"""Costs of phases: operations worked out by hand, added up, and counted without a trace in the results."""

import torch
from torch import nn

from fedvtc.learning.costs import FlopCounts, measured


def test_operations_of_a_step_worked_by_hand_and_scaled_to_other_batches():
    layer, counts, scalars, calls = nn.Linear(3, 2), FlopCounts(), {}, []

    def step(num_rows):
        calls.append(num_rows)
        layer(torch.ones(num_rows, 3)).sum().backward()

    for num_rows in (4, 2, 4):
        counts.counted(scalars, "train", "linear", num_rows, lambda num_rows=num_rows: step(num_rows))
    # Forward and gradient of the weights: 3 x 2 multiplications with their additions for each of ten rows.
    assert scalars == {"flops/train": 10 * (2 * 3 * 2 + 2 * 3 * 2)}
    assert calls == [4, 4, 2, 4]


def test_the_counted_run_of_a_step_takes_no_random_numbers():
    counts, scalars = FlopCounts(), {}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        drawn = [counts.counted(scalars, "train", "draw", 1, lambda: torch.rand(1).item()) for _ in range(2)]
        torch.manual_seed(3)
        assert drawn == torch.rand(2).tolist()


def test_times_of_blocks_of_one_name_add_up():
    scalars = {"cpu/train": 5.0}
    for _ in range(2):
        with measured(scalars, "train"):
            sum(range(1000))
    assert scalars["time/train"] > 0
    assert scalars["cpu/train"] > 5.0

"""Which state of Ray Tune is gone on with, and which is not."""

import pytest

from fedvtc.commands.sweep import load_sweep, tuning


@pytest.fixture
def digest(write):
    """A function: the name of Tune's folder, for a sweep with these words."""
    file = write("mine.yaml", "grid: {run.seed: [0, 1]}")
    return lambda *words, rooms=1: tuning._digest(load_sweep(file, words), {"seed0": rooms, "seed1": rooms})


def test_a_sweep_that_is_started_again_finds_its_state(digest):
    assert digest() == digest()
    assert digest("data.root=elsewhere", "tracking.wandb.project=other") == digest()


@pytest.mark.parametrize(
    "word", ["placement.wait_timeout_s=600", "run.output_dir=moved", "run.rounds=20", "training.epochs=2"]
)
def test_what_tune_would_restore_as_it_was_begins_anew(digest, word):
    assert digest(word) != digest()


def test_rooms_of_a_cluster_of_another_size_begin_anew(digest):
    assert digest(rooms=2) != digest()

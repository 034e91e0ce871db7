"""The digest that decides if Ray Tune restores the state of an earlier start."""

import pytest

from fedvtc.commands.sweep import experiment, load_sweep
from fedvtc.errors import RunFolderError


@pytest.fixture
def digest(write):
    """A function: the name of Tune's folder for a sweep with these overrides."""
    file = write("mine.yaml", "grid: {run.seed: [0, 1]}")
    return lambda *words, group=1: experiment.digest(load_sweep(file, words), {"seed0": group, "seed1": group})


def test_a_restarted_sweep_finds_its_state(digest):
    assert digest() == digest()
    assert digest("data.root=elsewhere", "tracking.wandb.project=other") == digest()


@pytest.mark.parametrize(
    "word", ["placement.wait_timeout_s=600", "run.output_dir=moved", "run.rounds=20", "training.epochs=2"]
)
def test_a_change_that_tune_would_not_restore_gets_a_new_folder(digest, word):
    assert digest(word) != digest()


def test_other_placement_groups_get_a_new_folder(digest):
    assert digest(group=2) != digest()


def test_a_full_disk_is_one_line(tmp_path, no_room, keys_of, golden):
    folder = tmp_path / "tune/0a1b2c3d"
    experiment.check_writable(folder)
    assert list(folder.iterdir()) == []

    with no_room(), pytest.raises(RunFolderError) as refused:
        experiment.check_writable(folder)

    assert keys_of(refused.value) == [str(folder)]
    golden(refused.value)

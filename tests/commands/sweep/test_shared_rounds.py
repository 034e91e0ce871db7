"""Which trials of a sweep start from the rounds of another trial."""

import pytest

from fedvtc.commands.sweep import load_sweep
from fedvtc.commands.sweep.experiment import trial_tasks
from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.shared_rounds import sources
from fedvtc.config import to_dict
from fedvtc.storage.run_folder import RunFolder

GRID = "grid: {run.seed: [0, 1], method.finetune.epochs: [1, 2]}"


@pytest.fixture
def folder_of(write):
    """A function that makes the folder of a sweep, and the runs of some trials with the given statuses."""

    def make(text, **statuses):
        folder = SweepFolder(load_sweep(write("mine.yaml", text)))
        for trial in folder.sweep.trials:
            if trial.name in statuses:
                run = RunFolder.create(trial.config.run.output_dir, trial.name, to_dict(trial.config))
                run.set_status(statuses[trial.name])
        return folder

    return make


def named(folder):
    return {name: source.name for name, source in sources(folder).items()}


def test_the_first_trial_of_equal_rounds_is_the_source_of_the_others(folder_of):
    folder = folder_of(GRID)

    assert named(folder) == {"seed0-epochs2": "seed0-epochs1", "seed1-epochs2": "seed1-epochs1"}
    assert {task.start_from for task in trial_tasks(folder).values()} == {None}


def test_a_finished_trial_is_the_source_and_a_trial_that_has_begun_needs_none(folder_of):
    statuses = {"seed0-epochs2": "finished", "seed1-epochs1": "finished", "seed1-epochs2": "interrupted"}
    folder = folder_of(GRID, **statuses)

    assert named(folder) == {"seed0-epochs1": "seed0-epochs2"}
    starts = {name: task.start_from for name, task in trial_tasks(folder).items() if task.start_from}
    assert starts == {"seed0-epochs1": folder.path / "seed0-epochs2"}


def test_methods_with_the_rounds_of_local_share_them_whatever_their_labels(folder_of):
    names = ["{method.name: local}", "{method.name: fedcvae}", "{method.name: fedproto}"]
    folder = folder_of(f"list: [{', '.join(names)}, {{method.name: ccvr, method.base: local, method.label: Head}}]")

    trials = [trial.name for trial in folder.sweep.trials]
    assert named(folder) == {trials[1]: trials[0], trials[3]: trials[0]}


@pytest.mark.parametrize(
    "text",
    [
        "grid: {method.generator.epochs: [1, 2]}",
        "grid: {method.finetune.epochs: [1, 2]}\nset: {method.finetune.when: both}",
        # The records of a source have the evaluations of its own rounds only.
        "list: [{method.finetune.epochs: 1, evaluate.every: 1}, {method.finetune.epochs: 2, evaluate.every: 2}]",
        f"{GRID}\nset: {{checkpoint.every: null}}",
        f"{GRID}\nasha: {{}}",
    ],
    ids=["other rounds", "rounds that fine-tune", "other evaluations", "no checkpoints", "stopped early"],
)
def test_other_trials_have_no_source(folder_of, text):
    assert sources(folder_of(text)) == {}

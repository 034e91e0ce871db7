"""`fedvtc sweep` where it starts no cluster."""

import shlex
import signal

import pytest

from fedvtc.commands.main import main
from fedvtc.commands.sweep import load_sweep, tuning
from fedvtc.config import load, to_dict
from fedvtc.errors import Interrupted
from fedvtc.learning.methods import config_classes
from fedvtc.storage.run_folder import RunFolder


@pytest.fixture
def mine(write):
    return write("mine.yaml", "set: {run.rounds: 2}\ngrid: {run.seed: [0, 1]}")


def run(capsys, *words):
    code = main(["sweep", "mine.yaml", *words])
    printed = capsys.readouterr()
    return code, printed.out.splitlines(), printed.err.splitlines()


def test_print_gives_a_command_for_each_trial_and_starts_nothing(mine, capsys, tmp_path):
    code, lines, errors = run(capsys, "--print", "data.path=a b")

    assert (code, errors) == (0, [])
    sweep = load_sweep(mine, ["data.path=a b"])
    for line, trial in zip(lines, sweep.trials, strict=True):
        program, command, *words = shlex.split(line)
        assert (program, command) == ("fedvtc", "run")
        assert load([], words, methods=config_classes()) == trial.config
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_results_of_a_sweep_that_has_not_begun(mine, capsys):
    code, lines, errors = run(capsys, "--results")

    assert (code, lines) == (2, [])
    (error,) = errors
    assert error.endswith("outputs/mine: no such folder, the sweep has not begun. Leave --results out to run it.")


def test_results_as_markdown(mine, capsys, tmp_path):
    for trial in load_sweep(mine).trials:
        RunFolder.create(trial.config.run.output_dir, trial.name, to_dict(trial.config)).set_status("failed")

    code, lines, errors = run(capsys, "--results", "--plain")

    assert (code, errors, lines[0]) == (0, [], "# mine")
    assert "| 0/2 | - | - | - | - |" in lines
    folder = tmp_path / "outputs/mine"
    assert lines[-1] == f"table: {folder / 'results.csv'}, {folder / 'results.md'}"


def test_results_of_other_configs_are_refused_as_running_them_would_be(mine, capsys, tmp_path):
    for trial in load_sweep(mine).trials:
        RunFolder.create(trial.config.run.output_dir, trial.name, to_dict(trial.config)).set_status("finished")
    before = sorted(path.name for path in (tmp_path / "outputs/mine").iterdir())

    code, lines, errors = run(capsys, "--results", "partition.alpha=0.5")

    assert (code, lines) == (2, [])
    assert errors[0].partition(": ")[2].startswith(f"{tmp_path}/outputs/mine/seed0: partition.alpha: is 0.1 in this")
    assert sorted(path.name for path in (tmp_path / "outputs/mine").iterdir()) == before
    assert run(capsys, "partition.alpha=0.5") == (2, [], errors)


def test_a_sweep_with_nothing_left_to_do_needs_no_cluster(mine, capsys):
    for trial in load_sweep(mine).trials:
        folder = RunFolder.create(trial.config.run.output_dir, trial.name, to_dict(trial.config))
        (folder.path / "metrics.jsonl").write_text('{"round": 2, "phase": "final", "test/accuracy/mean": 0.5}\n')
        folder.set_status("finished")

    code, lines, errors = run(capsys, "cluster.address=127.0.0.1:9")

    assert (code, errors) == (0, [])
    assert lines[0].startswith("mine: 2 trials, 2 done, in ")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "run.output_dir: must be an absolute path in a job, which runs in a temporary folder, not 'outputs'."),
        (("run.output_dir={}",), "http://127.0.0.1:9: no cluster answers"),
    ],
)
def test_jobs_that_would_lose_their_output_or_have_no_cluster(mine, capsys, tmp_path, words, problem):
    given = [word.format(tmp_path / "there") for word in words]

    code, _, errors = run(capsys, "--executor", "jobs", "--address", "http://127.0.0.1:9", *given)

    assert (code, len(errors)) == (2, 1)
    assert errors[0].startswith(f"fedvtc: {problem}")


@pytest.mark.parametrize("address", ["http://me:word@host", "me:word@host"])
def test_a_password_in_an_address_is_not_said_again(write, capsys, address):
    assert main(["sweep", str(write("mine.yaml", "grid: {run.seed: [0, 1]}")), "--address", address]) == 2
    assert capsys.readouterr().err == "fedvtc: --address: goes with --executor jobs. Give both.\n"


def test_jobs_are_not_stopped_early(write, capsys, tmp_path):
    write("mine.yaml", "grid: {run.seed: [0, 1]}\nasha: {}")

    code, lines, errors = run(capsys, "--executor", "jobs", f"run.output_dir={tmp_path}")

    what = "jobs do not hear of each other, so none can be stopped early"
    assert (code, lines) == (2, [])
    assert errors == [f"fedvtc: mine.yaml: asha: {what}. Take it out, or leave --executor jobs out."]


def test_jobs_need_no_folder_of_this_machine(mine, capsys, tmp_path):
    there = tmp_path / "there"
    words = ("--executor", "jobs", "--address", "http://127.0.0.1:9", f"run.output_dir={there}")

    _, lines, _ = run(capsys, *words)

    what = "is not here, or cannot be written, so the jobs of the cluster say what is done"
    assert lines == [f"mine: 2 trials; {there} {what}"]
    assert not there.exists()
    there.mkdir()
    assert run(capsys, *words)[1] == [f"mine: 2 trials, in {there / 'mine'}"]


@pytest.mark.parametrize("option", ["--address=http://HEAD:8265", "--runtime-env=env.yaml", "--working-dir=."])
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "goes with --executor jobs. Give both."),
        (("--print",), "goes with --executor jobs. Give both."),
        (("--executor", "jobs", "--print"), "is for jobs, and --print starts none. Leave one of them out."),
        (("--executor", "jobs", "--results"), "is for jobs, and --results starts none. Leave one of them out."),
    ],
)
def test_options_of_jobs_go_with_jobs(mine, capsys, tmp_path, option, words, problem):
    code, lines, errors = run(capsys, *words, option, "cluster.address=127.0.0.1:9")

    assert (code, lines) == (2, [])
    assert errors == [f"fedvtc: {option}: {problem}"]
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize("words", [[], ["run.seed=1"], ["a.yaml", "b.yaml"]])
def test_it_takes_one_file(write, capsys, words):
    assert main(["sweep", *words, "run.rounds=1"]) == 2

    assert "a sweep takes one sweep file, not" in capsys.readouterr().err


def test_a_word_may_be_longer_than_a_file_name(mine, capsys):
    word = f"population.backbones=[{'{name: cnn_2x16, share: 0.1}, ' * 10}]"

    code, lines, errors = run(capsys, "--print", word)

    assert (code, errors) == (0, [])
    assert len(lines) == 2


def test_a_cluster_that_is_not_there_is_one_line(mine, capsys):
    code, _, errors = run(capsys, "cluster.address=127.0.0.1:9")

    assert code == 2
    (error,) = errors
    assert error.startswith("fedvtc: cluster.address=127.0.0.1:9: no Ray cluster answers")


def test_a_sweep_that_is_broken_off_says_from_where_it_goes_on(mine, capsys, monkeypatch):
    """In place of Ray Tune stands a signal that comes at once."""

    def broken_off(folder, tell):
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(tuning, "run_trials", broken_off)

    code, lines, errors = run(capsys, "checkpoint.every=2")

    assert (code, errors) == (143, ["fedvtc: interrupted."])
    # Not that rounds are saved: those since the checkpoint are not.
    again = "fedvtc sweep mine.yaml checkpoint.every=2"
    assert lines[1:] == [f"each trial goes on from its newest checkpoint with: {again}"]

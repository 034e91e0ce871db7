"""`fedvtc sweep` without a cluster."""

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


def test_results_of_a_sweep_that_has_not_started_are_refused(mine, capsys, keys_of, golden, tmp_path):
    code, lines, errors = run(capsys, "--results")

    assert (code, lines, keys_of("\n".join(errors))) == (2, [], [f"{tmp_path}/outputs/mine"])
    golden(errors[0])


@pytest.mark.parametrize("more", [[], ["--results"]])
def test_an_output_folder_whose_name_is_too_long_is_one_line(mine, capsys, keys_of, tmp_path, more):
    name = "x" * 300

    code, lines, errors = run(capsys, f"run.output_dir={name}", *more)

    assert (code, lines, keys_of("\n".join(errors))) == (2, [], [f"{tmp_path}/{name}/mine"])


def test_results_as_markdown(mine, capsys, golden, tmp_path):
    for trial in load_sweep(mine).trials:
        RunFolder.create(trial.config.run.output_dir, trial.name, to_dict(trial.config)).set_status("failed")

    code, lines, errors = run(capsys, "--results", "--plain")

    assert (code, errors, lines[0]) == (0, [], "# mine")
    assert "| 0/2 | - | - | - | - | - | - | - |" in lines
    folder = tmp_path / "outputs/mine"
    assert str(folder / "results.csv") in lines[-1]
    assert str(folder / "results.md") in lines[-1]
    golden(lines[-1])


def test_a_folder_with_other_configs_is_refused_for_results_and_for_a_run(mine, capsys, keys_of, tmp_path):
    for trial in load_sweep(mine).trials:
        RunFolder.create(trial.config.run.output_dir, trial.name, to_dict(trial.config)).set_status("finished")
    before = sorted(path.name for path in (tmp_path / "outputs/mine").iterdir())

    code, lines, errors = run(capsys, "--results", "partition.alpha=0.5")

    folder = tmp_path / "outputs/mine"
    assert (code, lines) == (2, [])
    assert keys_of("\n".join(errors)) == [str(folder / "seed0"), str(folder / "seed1"), "mine.yaml"]
    assert "seed0: partition.alpha: " in errors[0]
    assert sorted(path.name for path in (tmp_path / "outputs/mine").iterdir()) == before
    assert run(capsys, "partition.alpha=0.5") == (2, [], errors)


def test_a_finished_sweep_needs_no_cluster(mine, capsys):
    for trial in load_sweep(mine).trials:
        folder = RunFolder.create(trial.config.run.output_dir, trial.name, to_dict(trial.config))
        (folder.path / "metrics.jsonl").write_text('{"round": 2, "phase": "final", "test/accuracy/mean": 0.5}\n')
        folder.set_status("finished")

    code, lines, errors = run(capsys, "cluster.address=127.0.0.1:9")

    assert (code, errors) == (0, [])
    assert lines[0].startswith("mine: 2 trials, 2 done, in ")


@pytest.mark.parametrize(
    ("words", "key"), [((), "run.output_dir"), (("run.output_dir={}",), "http://127.0.0.1:9")], ids=["lost", "absent"]
)
def test_jobs_without_a_lasting_folder_or_a_cluster_are_refused(mine, capsys, keys_of, tmp_path, words, key):
    given = [word.format(tmp_path / "there") for word in words]

    code, _, errors = run(capsys, "--executor", "jobs", "--address", "http://127.0.0.1:9", *given)

    assert (code, keys_of("\n".join(errors))) == (2, [key])


@pytest.mark.parametrize("address", ["http://me:word@host", "me:word@host"])
def test_a_password_in_an_address_is_not_printed(mine, capsys, keys_of, address):
    code, lines, (error,) = run(capsys, "--address", address)

    assert (code, lines, keys_of(error)) == (2, [], ["--address"])
    assert "word" not in error


def test_early_stopping_of_jobs_is_refused(write, capsys, keys_of, golden, tmp_path):
    write("mine.yaml", "grid: {run.seed: [0, 1]}\nasha: {}")

    code, lines, errors = run(capsys, "--executor", "jobs", f"run.output_dir={tmp_path}")

    assert (code, lines, keys_of("\n".join(errors))) == (2, [], ["mine.yaml"])
    assert errors[0].startswith("fedvtc: mine.yaml: asha: ")
    golden(errors[0])


def test_jobs_need_no_folder_on_this_machine(mine, capsys, golden, tmp_path):
    there = tmp_path / "there"
    words = ("--executor", "jobs", "--address", "http://127.0.0.1:9", f"run.output_dir={there}")

    _, (line,), _ = run(capsys, *words)

    assert line.startswith("mine: 2 trials; ")
    assert not there.exists()
    golden(line)
    there.mkdir()
    _, (line,), _ = run(capsys, *words)
    assert line.startswith("mine: 2 trials, in ")
    golden(line)


@pytest.mark.parametrize("option", ["--address=http://HEAD:8265", "--runtime-env=env.yaml", "--working-dir=."])
@pytest.mark.parametrize(
    "words", ["", "--print", "--executor jobs --print", "--executor jobs --results"], ids=lambda words: words or "alone"
)
def test_an_option_of_jobs_without_jobs_is_refused(mine, capsys, keys_of, golden, tmp_path, option, words):
    code, lines, errors = run(capsys, *words.split(), option, "cluster.address=127.0.0.1:9")

    assert (code, lines, keys_of("\n".join(errors))) == (2, [], [option])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
    golden(errors[0])


@pytest.mark.parametrize(
    ("words", "key"), [([], "FILE"), (["run.seed=1"], "FILE"), (["a.yaml", "b.yaml"], "a.yaml b.yaml")]
)
def test_a_sweep_needs_exactly_one_file(write, capsys, keys_of, golden, words, key):
    assert main(["sweep", *words, "run.rounds=1"]) == 2

    error = capsys.readouterr().err
    assert keys_of(error) == [key]
    golden(error)


def test_an_override_may_be_longer_than_a_file_name(mine, capsys):
    word = f"population.backbones=[{'{name: cnn_2x16, share: 0.1}, ' * 10}]"

    code, lines, errors = run(capsys, "--print", word)

    assert (code, errors) == (0, [])
    assert len(lines) == 2


def test_an_absent_cluster_is_one_line(mine, capsys, keys_of):
    code, _, errors = run(capsys, "cluster.address=127.0.0.1:9")

    assert (code, keys_of("\n".join(errors))) == (2, ["cluster.address=127.0.0.1:9"])


def test_an_interrupted_sweep_prints_the_command_that_resumes_it(mine, capsys, golden, monkeypatch):
    """A function that raises at once replaces Ray Tune."""

    def interrupted(folder, notify):
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(tuning, "run_trials", interrupted)

    code, lines, errors = run(capsys, "checkpoint.every=2")

    assert (code, len(errors)) == (143, 1)
    (line,) = lines[1:]
    assert line.endswith(": fedvtc sweep mine.yaml checkpoint.every=2")
    golden(line)

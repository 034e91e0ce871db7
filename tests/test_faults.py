"""What benchmarks/chaos.py relies on: each fault strikes where it was told to, once, and what differs is seen."""

import json
import os
import signal
import subprocess
import sys
import uuid
from functools import reduce
from importlib import import_module
from pathlib import Path
from random import Random

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from faults import damage, residue
from faults.compare import Result, differences
from faults.kinds import KINDS
from faults.trial import Setting

ROOT = Path(__file__).parents[1]
SETTING = Setting(words=(), rounds=6, num_clients=10, evaluate_every=3)
# Three calls, the count printed after each; what is raised is printed by its name and the program goes on.
PROGRAM = """
from fedvtc import errors
for call in (1, 2, 3):
    try:
        errors.first_line(ValueError("a"))
    except BaseException as error:
        print(type(error).__name__, getattr(error, "errno", ""), flush=True)
    print(call, flush=True)
"""


@pytest.fixture
def python(tmp_path):
    """A function: starts the program, or another, in a process with a fault."""

    def start(program=PROGRAM, *, behind=ROOT, **fault):
        given = {"target": "fedvtc.errors:first_line", "call": 2, "when": "before", "action": "kill"}
        faults = [{**given, "marker": str(tmp_path / "marker"), **fault}]
        search = os.pathsep.join(map(str, (ROOT / "benchmarks/faults", ROOT / "src", behind)))
        environment = {**os.environ, "PYTHONPATH": search, "FEDVTC_FAULT": json.dumps(faults)}
        return subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)

    return start


def ended(process):
    """What the process printed, word by word, and its exit code."""
    printed = process.communicate(timeout=60)[0]
    return printed.split(), process.returncode


@pytest.mark.parametrize(("when", "call", "printed"), [("before", 2, ["1"]), ("after", 2, ["1"]), ("before", 1, [])])
def test_kills_at_the_named_call_and_never_again(python, tmp_path, when, call, printed):
    process = python(when=when, call=call)
    assert ended(process) == (printed, -signal.SIGKILL)
    assert (tmp_path / "marker").read_text() == str(process.pid)
    assert ended(python(when=when, call=call)) == (["1", "2", "3"], 0)


LOUD = """
from fedvtc import errors
class Loud(Exception):
    def __str__(self):
        print("ran", flush=True)
        return "a"
print(errors.first_line(Loud()))
"""


@pytest.mark.parametrize(("when", "printed"), [("before", []), ("after", ["ran"])])
def test_before_the_function_ran_or_after_it(python, when, printed):
    process = python(LOUD, call=1, when=when)
    assert ended(process) == (printed, -signal.SIGKILL)


@pytest.mark.parametrize(("action", "raised"), [("full", ["OSError", "28"]), ("memory", ["MemoryError"])])
def test_raises(python, action, raised):
    assert ended(python(action=action)) == (["1", *raised, "2", "3"], 0)


def test_stops_until_it_is_told_to_go_on(python):
    process = python(action="stop")
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    process.send_signal(signal.SIGCONT)
    assert ended(process) == (["1", "2", "3"], 0)


def test_a_class_method_stays_one(python):
    program = (
        "from fedvtc.learning.exchange.statistics import FeatureStatistics as S\nprint(type(S.empty(2, 'scalar')) is S)"
    )
    fault = {"target": "fedvtc.learning.exchange.statistics:FeatureStatistics.empty", "call": 1}
    assert ended(python(program, **fault)) == ([], -signal.SIGKILL)
    assert ended(python(program, **fault)) == (["True"], 0)


@pytest.mark.parametrize(("process", "code"), [("driver", -signal.SIGKILL), ("actor", 0)])
def test_strikes_only_the_kind_of_process_that_is_meant(python, process, code):
    assert ended(python(process=process))[1] == code


def test_imports_nothing_of_the_program_by_itself(python):
    program = "import sys\nprint(*(name for name in sys.modules if name.startswith('fedvtc')))"
    assert ended(python(program)) == ([], 0)


def test_the_sitecustomize_that_it_hides_runs_too(python, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('other')")
    assert ended(python(behind=tmp_path)) == (["other", "1"], -signal.SIGKILL)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_draws_a_fault_of_a_function_that_exists(kind):
    for seed in range(5):
        trial = KINDS[kind](kind, SETTING, Random(seed))
        again = KINDS[kind](kind, SETTING, Random(seed))
        assert (trial.where, trial.faults, trial.num_actors) == (again.where, again.faults, again.num_actors)
        for fault in json.loads(json.dumps(trial.faults)):
            module, _, path = fault["target"].partition(":")
            assert callable(reduce(getattr, path.split("."), import_module(module)))
            assert fault["call"] >= 1


@pytest.fixture
def run(tmp_path):
    """A run folder of two rounds and one client."""
    records = [{"round": 1, "phase": "round", "loss": 0.5, "time/round": 1.0}]
    records += [{"round": 2, "phase": "round", "loss": 0.25}, {"round": 2, "phase": "final"}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "clients.csv").write_text("round,client,accuracy\n2,0,0.5\n")
    (tmp_path / "checkpoints/final").mkdir(parents=True)
    torch.save({"module": {"weight": torch.zeros(3)}}, tmp_path / "checkpoints/final/client_0000.pt")
    return tmp_path


def test_a_run_is_equal_to_itself_whatever_its_clock_says(run):
    expected = Result.of(run, run)
    file = run / "metrics.jsonl"
    file.write_text(file.read_text().replace('"time/round": 1.0', '"time/round": 2.0, "incidents": ["lost"]'))
    found = Result.of(run, run)
    assert (differences(expected, found), found.weights == expected.weights, found.num_lost(2)) == ([], True, 0)


@pytest.mark.parametrize(
    ("name", "old", "new", "problems", "num_lost"),
    [
        ("metrics.jsonl", "0.25", "0.26", ["record 1: loss"], 0),
        ("metrics.jsonl", '"round": 2, "phase": "round"', '"round": 1, "phase": "round"', ["record 1: round"], 2),
        ("clients.csv", "0.5", "0.6", ["row 0: accuracy"], 0),
        ("clients.csv", "2,0,0.5\n", "", ["0 rows, not 1"], 0),
    ],
)
def test_what_differs_is_named(run, name, old, new, problems, num_lost):
    expected = Result.of(run, run)
    text = (run / name).read_text()
    assert old in text
    (run / name).write_text(text.replace(old, new, 1))
    found = Result.of(run, run)
    assert (differences(expected, found), found.num_lost(2)) == (problems, num_lost)


def test_one_bit_of_a_weight_is_another_weight(run):
    expected = Result.of(run, run)
    weight = torch.zeros(3)
    weight[1] = -0.0
    torch.save({"module": {"weight": weight}}, run / "checkpoints/final/client_0000.pt")
    found = Result.of(run, run)
    assert list(found.weights) == ["client_0000.pt"]
    assert found.weights != expected.weights


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("break_", [damage.truncate, damage.flip_a_bit, damage.remove, damage.tear_the_manifest])
def test_damage_is_done_to_one_file(tmp_path, break_, seed):
    before = {"manifest.json": b'{"round": 1}\n', "client_0000.pt": bytes(50), "server.pt": bytes(9)}
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    damaged = break_(tmp_path, Random(seed))
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.pop(damaged, None) != before.pop(damaged)
    assert after == before


@pytest.mark.parametrize("seed", range(5))
def test_a_torn_line_is_the_last_one(tmp_path, seed):
    file = tmp_path / "lines"
    file.write_text("first\nsecond\n")
    damage.tear_the_last_line(file, Random(seed))
    assert file.read_text().startswith("first\ns")
    assert "second\n".startswith(file.read_text()[6:])
    assert not file.read_text().endswith("\n")


def test_only_processes_with_the_mark_are_left_behind():
    def sleeping(mark):
        return subprocess.Popen(["sleep", "60"], env={**os.environ, residue.MARK: mark})

    mark = uuid.uuid4().hex
    with sleeping(mark) as mine, sleeping(f"{mark}0") as yours:
        try:
            assert residue.orphans(mark, patience_s=0) == {mine.pid: "sleep"}
            residue.kill(residue.processes(mark))
            assert mine.wait(10) == -signal.SIGKILL
            assert residue.orphans(mark, patience_s=0) == {}
            assert yours.poll() is None
        finally:
            yours.kill()

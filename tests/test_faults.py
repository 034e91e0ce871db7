"""The injector of faults that benchmarks/chaos.py relies on: each fault strikes where it was told to, once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Three calls, the count printed after each; what is raised is printed by its name and the program goes on.
PROGRAM = """
from fedvtc import seeding
for call in (1, 2, 3):
    try:
        seeding.derive_seed(0, round=0, client=0, purpose="test")
    except BaseException as error:
        print(type(error).__name__, getattr(error, "errno", ""), flush=True)
    print(call, flush=True)
"""


@pytest.fixture
def python(tmp_path):
    """A function: starts the program, or another, in a process with a fault."""

    def start(program=PROGRAM, *, behind=ROOT, **fault):
        given = {"target": "fedvtc.seeding:derive_seed", "call": 2, "when": "before", "action": "kill"}
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
from fedvtc import seeding
class Loud(float):
    def __add__(self, other):
        print("ran", flush=True)
        return 1.0
print(seeding.round_half_up(Loud()))
"""


@pytest.mark.parametrize(("when", "printed"), [("before", []), ("after", ["ran"])])
def test_before_the_function_ran_or_after_it(python, when, printed):
    process = python(LOUD, target="fedvtc.seeding:round_half_up", call=1, when=when)
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
    program = "from fedvtc.statistics import FeatureStatistics as S\nprint(type(S.empty(2, 'scalar')) is S)"
    fault = {"target": "fedvtc.statistics:FeatureStatistics.empty", "call": 1}
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

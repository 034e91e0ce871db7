"""The program with an output that is unread, full or closed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_pipe_that_closes_early_is_not_an_error():
    command = f"{sys.executable} -m fedvtc run --help | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, "")


CODES = """
import sys
from fedvtc.commands import registry
from fedvtc.commands.main import main
from fedvtc.commands.parsing import Parser

def stub():
    parser = Parser(add_help=False)
    parser.add_argument("code", type=int)
    parser.set_defaults(command=lambda arguments: print("a line") or arguments.code)
    return parser

registry.stub = stub
registry.COMMANDS["stub"] = registry.Command("prints a line", "registry:stub")
sys.exit(main(["stub", sys.argv[1]]))
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["-m", "fedvtc", "list", "methods"], 0),
        (["-u", "-m", "fedvtc", "list"], 0),
        (["-c", CODES, "0"], 0),
        (["-c", CODES, "1"], 1),
    ],
    ids=["table", "unbuffered", "done", "failed"],
)
def test_an_unread_pipe_does_not_change_the_exit_code(unread_pipe, words, code):
    command = [sys.executable, *words]
    done = subprocess.run(command, stdout=unread_pipe, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (code, "")


INTERRUPTED = """
import signal, sys
from fedvtc.reporting.lines import discard_unread_output

def interrupt(signum, frame):
    raise KeyboardInterrupt

discard_unread_output()
signal.signal(signal.SIGALRM, interrupt)
for number in range(3000):
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-6 * (number % 60 + 1))
        print(number, flush=True)
        for _ in range(10_000):
            pass
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        pass
"""


def test_a_signal_while_a_line_is_printed_does_not_print_the_line_again():
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    # An interrupted line may lack its end, and be printed with the next line.
    printed = done.stdout.replace("\n", "")
    assert len(printed) > 1000
    numbers = "".join(map(str, range(3000)))
    rest = iter(numbers)
    # Each character once, in order: a part of the numbers may be missing, and none comes twice.
    assert all(character in rest for character in printed)


def test_a_full_disk_is_an_error():
    command = [sys.executable, "-m", "fedvtc", "list"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr


CLOSED = """
import os
for number in range(3):
    os.close(number)
import sys
sys.stdin = sys.stdout = sys.stderr = None
from fedvtc.commands.main import main
assert [main(["list"]), main(["list", "runs", "absent"])] == [0, 2]
# No file that the program opens takes the number of a stream and with it the output.
os._exit(os.open(os.devnull, os.O_RDONLY) < 3)
"""


def test_a_program_without_standard_streams_runs():
    assert subprocess.run([sys.executable, "-c", CLOSED], env=ENVIRONMENT).returncode == 0

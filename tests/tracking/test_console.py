import io
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fedvtc.config.schema import Config, RunConfig
from fedvtc.tracking import RunInfo
from fedvtc.tracking.console import LiveConsole, PlainConsole, make_console_tracker, plain_line

EVALUATED = {
    "round": 5,
    "phase": "round",
    "test/accuracy/mean": 0.412,
    "test/accuracy/min": 0.201,
    "test/accuracy/held/mean": 0.91,
    "test/accuracy/missing/mean": 0.33,
    "loss/classification": 0.52,
    "loss/kl": 3.25,
    "bytes/up/prototypes": 1_000_000,
    "bytes/up/generator": 200_000,
    "bytes/down/prototypes": 300_000,
    "time/round": 4.1,
}


def make_run(name="run [bold]x", rounds=30):
    config = Config(run=RunConfig(rounds=rounds))
    return RunInfo("id", name, Path("outputs") / name, config, {}, np.ones((3, 2), dtype=np.int64), ["cnn"] * 3)


def live(width):
    screen = io.StringIO()
    return LiveConsole(Console(file=screen, force_terminal=True, width=width, height=40, color_system=None)), screen


def test_a_round_is_one_plain_line():
    assert plain_line(EVALUATED, 30) == (
        "round 5/30  accuracy 0.412 (worst 0.201, held 0.910, missing 0.330)  "
        "loss 0.52  up 1.2 MB  down 300.0 kB  4.1 s"
    )


def test_a_plain_line_tells_the_number_of_clients_of_a_sample():
    assert "  accuracy 0.412 of 20 clients (worst 0.201, " in plain_line(EVALUATED | {"test/clients": 20}, 30)


def test_a_plain_line_leaves_out_missing_metrics():
    assert plain_line({"round": 4, "phase": "round", "loss/classification": None}, 30) == "round 4/30"
    assert plain_line({"round": 30, "phase": "final", "test/accuracy/mean": 0.5}, 30) == "final  accuracy 0.500"


def test_the_plain_console_prints_rounds_summary_and_a_next_command(capsys):
    console = PlainConsole()
    console.start(make_run())
    console.client_done(2, 1, 3)
    console.log(EVALUATED, [])
    console.finish("finished")
    console.summary(EVALUATED, {"processes_lost": 2, "clients_skipped": 1})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run [bold]x: 3 clients, 30 rounds, in outputs/run [bold]x"
    assert lines[1] == plain_line(EVALUATED, 30)
    assert [line.split() for line in lines[2:4]] == [
        ["generalization", "accuracy", "0.412"],
        ["worst", "client", "0.201"],
    ]
    assert lines[-3:] == [
        "incidents: clients skipped 1, processes lost 2",
        "run folder: outputs/run [bold]x",
        "next: fedvtc list runs outputs",
    ]


def test_a_failed_run_prints_its_status(capsys):
    console = PlainConsole()
    console.start(make_run("a"))
    console.finish("failed")
    assert capsys.readouterr().out.splitlines()[-1] == "a: failed"


def test_the_live_table_shows_rounds_progress_and_time_left():
    console, screen = live(width=140)
    console.start(make_run())
    for round in range(1, 16):
        console.log({**EVALUATED, "round": round}, [])
    console.client_done(client=7, num_done=5, num_total=10)
    console.finish("finished")
    lines = screen.getvalue().splitlines()
    last = lines[max(index for index, line in enumerate(lines) if "missing" in line) :]
    assert last[0].split()[-9:] == ["accuracy", "worst", "held", "missing", "loss", "KL", "up", "down", "time"]
    assert [line.split()[0] for line in last if "0.412" in line] == [str(round) for round in range(4, 16)]
    assert "round 16/30, clients 5/10 done, about 62 s left" in "\n".join(last)


def test_the_live_table_of_a_resumed_run_counts_the_rounds_before(capsys):
    console, screen = live(width=140)
    console.start(replace(make_run(), resumed_round=20))
    console.note("client 3 [x] was lost")
    console.client_done(client=7, num_done=5, num_total=10)
    console.finish("interrupted")
    assert "round 21/30, clients 5/10 done" in screen.getvalue()
    assert "client 3 [x] was lost" in screen.getvalue()


def test_the_live_table_fits_a_terminal_of_80_columns():
    console, screen = live(width=80)
    console.start(make_run("a"))
    wide = {"round": 100, "loss/classification": 0.08721, "bytes/up/generator": 987.6e6, "time/round": 1234.5}
    console.log(EVALUATED | wide, [])
    console.finish("finished")
    row = next(line for line in screen.getvalue().splitlines() if "0.412" in line)
    assert " ".join(row.split()) == "100 0.412 0.201 0.910 0.330 0.0872 988.6 MB 300.0 kB 1234.5 s"


def test_square_brackets_survive_the_live_summary():
    console, screen = live(width=40)
    console.start(make_run())
    console.finish("finished")
    console.summary(EVALUATED, {})
    assert "run folder: outputs/run [bold]x\n" in screen.getvalue()


def run_in_terminal(tmp_path, **environment):
    """Names of the trackers that `make_console_tracker` makes in a process whose standard output is a real terminal."""
    script = tmp_path / "probe.py"
    script.write_text(
        "from fedvtc.tracking.console import make_console_tracker\n"
        "print(type(make_console_tracker(plain=False)).__name__)\n"
        "print(type(make_console_tracker(plain=True)).__name__)\n"
    )
    ours, theirs = pty.openpty()
    kept = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    kept |= {"TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    subprocess.run([sys.executable, script], stdout=theirs, env=kept, check=True, timeout=60)
    os.close(theirs)
    printed = os.read(ours, 4096).decode().split()
    os.close(ours)
    return printed


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "LiveConsole"), ({"NO_COLOR": "1"}, "PlainConsole"), ({"TERM": "dumb"}, "PlainConsole")],
)
def test_a_terminal_gets_the_live_table_unless_the_environment_forbids_it(tmp_path, environment, expected):
    assert run_in_terminal(tmp_path, **environment) == [expected, "PlainConsole"]


def test_a_pipe_gets_plain_lines(capsys):
    assert type(make_console_tracker(plain=False)) is PlainConsole

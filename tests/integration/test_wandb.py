"""Whole programs: a silent W&B server harms no run, and a killed run continues its curve."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from fedvtc.tracking.wandb.local_log import logged_values

pytestmark = pytest.mark.integration

SOURCE = Path(__file__).parents[2] / "src"
KEY = "a1b2c3d4" * 5
SETTINGS = (
    "placement.pool=inline",
    "run.name=mine",
    "run.rounds=5",
    "data.name=npz",
    "data.path=tiny.npz",
    "partition.alpha=100",
    "population.num_clients=2",
    "population.backbones=[{name: cnn_2x8, share: 1}]",
    "population.feature_size=6",
    "method.name=local",
    "evaluate.every=1",
    "checkpoint.every=1",
)
KILLER = """
import os, signal, time
from fedvtc.tracking import Tracker
from fedvtc.tracking.wandb.local_log import logged_values

class AtOnce(Tracker):
    def start(self, run):
        self.run = run

    def log(self, record, clients):
        if record["round"] == 3:
            self.wait()
            os.kill(os.getpid(), signal.SIGKILL)

    def wait(self):
        pass

class OnceLogged(AtOnce):
    def wait(self):
        while 3 not in logged_values(self.run.folder / "wandb", self.run.id, "round"):
            time.sleep(0.05)
"""


@pytest.fixture
def program(tiny_folder, zygote):
    """A folder with the tiny data set, and a function that starts `fedvtc` there with environment variables."""
    folder = tiny_folder("program")
    (folder / "killer.py").write_text(KILLER)
    started = []

    def start(*arguments, **environment):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        inherited |= {"PYTHONPATH": f"{SOURCE}:{folder}", "HOME": str(folder)}
        started.append(zygote.start(*arguments, cwd=folder, env=inherited | environment))
        return started[-1]

    yield folder, start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(params=["refuses", "is silent"])
def address(request):
    """Address of a server that is missing, or accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        if request.param == "refuses":
            server.close()
        yield address


def records(folder):
    return [json.loads(line) for line in (folder / "outputs/mine/metrics.jsonl").read_text().splitlines()]


def logged(folder):
    path = folder / "outputs/mine"
    run_id = json.loads((path / "run.json").read_text())["id"]
    return logged_values(path / "wandb", run_id, "round"), logged_values(path / "wandb", run_id, "test/accuracy/mean")


def files_with(folder, text):
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    return [path for path in files if text.encode() in path.read_bytes()]


def services(folder):
    """Returns the ids of W&B's processes that were started in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().strip() == "wandb-core" and os.readlink(entry / "cwd") == str(folder):
                found.append(int(entry.name))
        # The process has ended meanwhile.
        except OSError:
            continue
    return found


def gone(folder):
    until_s = time.monotonic() + 30
    while services(folder) and time.monotonic() < until_s:
        time.sleep(0.1)
    return not services(folder)


def test_a_silent_server_costs_two_lines_and_no_record(program, address):
    folder, start = program
    process = start(
        "run",
        *SETTINGS,
        "tracking.trackers=[wandb]",
        "tracking.wandb.timeout_s=3",
        WANDB_BASE_URL=address,
        WANDB_API_KEY=KEY,
    )
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    about = [line for line in out.splitlines() if "andb" in line or "W&B" in line]
    (offline,) = (folder / "outputs/mine/wandb").glob("offline-run-*")
    assert len(about) == 2
    assert about[0].startswith("tracking.wandb: W&B cannot open the run and now works offline (CommError: ")
    assert about[1] == f"W&B: upload the run with: wandb sync outputs/mine/wandb/{offline.name}"
    assert [record["round"] for record in records(folder)] == [1, 2, 3, 4, 5, 5]
    assert logged(folder)[0] == [1, 2, 3, 4, 5]
    assert gone(folder)
    assert files_with(folder, KEY) == []


def test_without_a_key_the_run_is_offline_and_asks_for_none(program):
    folder, start = program
    process = start("run", *SETTINGS, "tracking.trackers=[wandb]", WANDB_BASE_URL="http://127.0.0.1:9")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "(UsageError: No API key configured. Use `wandb login` to log in)." in out
    assert logged(folder)[0] == [1, 2, 3, 4, 5]


def test_two_signals_end_the_wait_for_the_server_and_the_service(program):
    folder, start = program
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = start(
            "run",
            *SETTINGS,
            "tracking.trackers=[wandb]",
            "tracking.wandb.timeout_s=300",
            WANDB_BASE_URL=f"http://127.0.0.1:{server.getsockname()[1]}",
            WANDB_API_KEY=KEY,
        )
        # Once the service has called the server, W&B waits for the answer.
        server.settimeout(60)
        call, _ = server.accept()
        path = folder / "outputs/mine/metrics.jsonl"
        while not path.exists() or '"final"' not in path.read_text():
            assert process.poll() is None
            time.sleep(0.1)
        with call:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
            assert process.returncode == 130
            assert gone(folder)


@pytest.mark.parametrize("when", ["AtOnce", "OnceLogged"])
def test_a_killed_and_resumed_run_is_one_curve(program, when):
    """The run dies in round 3, before or after W&B has stored the round, so that round 3 is computed again."""
    folder, start = program
    killed = start("run", *SETTINGS, f"tracking.trackers=[wandb, killer:{when}]", WANDB_MODE="offline")
    out, err = killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL, (out, err)
    assert gone(folder)
    held = logged(folder)[0]
    assert held == list(range(1, len(held) + 1))
    assert when == "AtOnce" or held == [1, 2, 3]

    resumed = start("resume", "outputs/mine", "tracking.trackers=[wandb]", WANDB_MODE="offline")
    out, err = resumed.communicate(timeout=120)
    assert (resumed.returncode, err) == (0, "")
    assert re.search(r"resuming after round [12] of 5", out)
    rounds, accuracies = logged(folder)
    assert rounds == [1, 2, 3, 4, 5]
    assert accuracies == [record["test/accuracy/mean"] for record in records(folder) if record["phase"] == "round"]


def test_a_stopped_job_loses_no_round_although_its_service_ends_too(program):
    """`ray job stop` sends SIGTERM to every process of the job."""
    folder, start = program
    process = start("run", *SETTINGS, "run.rounds=1000", "tracking.trackers=[wandb]", WANDB_MODE="offline")
    # A service that ends before its file exists makes W&B, and so the run, wait until the timeout.
    while not (list(folder.glob("outputs/mine/wandb/*/run-*.wandb")) and len(records(folder)) >= 3):
        assert process.poll() is None
        time.sleep(0.1)
    for pid in (*services(folder), process.pid):
        os.kill(pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + signal.SIGTERM, "fedvtc: interrupted.\n")
    assert "failed and is left out" not in out
    rounds = [record["round"] for record in records(folder)]
    assert rounds == list(range(1, len(rounds) + 1))
    assert logged(folder)[0] == rounds
    (sync,) = re.findall("wandb sync (.*)", out)
    assert all((folder / offline).is_dir() for offline in sync.split())
    assert gone(folder)

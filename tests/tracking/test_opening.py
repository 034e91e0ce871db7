import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from fedvtc.config import load
from fedvtc.errors import ConfigError
from fedvtc.federation.launch import run_federation
from fedvtc.federation.resume import resume_federation
from fedvtc.learning.methods import config_classes
from fedvtc.tracking import RunInfo
from fedvtc.tracking.opening import make_trackers
from fedvtc.tracking.wandb.session import MODES

DOCUMENT = Path(__file__).parents[2] / "docs/tracking.md"
SOURCE = """
from fedvtc.tracking import Tracker

calls = []

class Good(Tracker):
    def log(self, record, clients):
        calls.append((record["round"], record["phase"]))

    def finish(self, status):
        calls.append(status)

class Fails(Good):
    def log(self, record, clients):
        super().log(record, clients)
        raise RuntimeError("no more.\\nwith a second line")

class FailsTwice(Fails):
    def finish(self, status):
        super().finish(status)
        raise RuntimeError("nor this")

class Exits(Good):
    def log(self, record, clients):
        super().log(record, clients)
        raise SystemExit(3)

class ExitsAtTheEnd(Good):
    def finish(self, status):
        super().finish(status)
        raise SystemExit

class CannotBeMade(Tracker):
    def __init__(self):
        raise SystemExit("no server")

class ChangesRecords(Tracker):
    def log(self, record, clients):
        record["incidents"].clear()
        record.clear()
        for row in clients:
            row.clear()

class Stops(Tracker):
    def log(self, record, clients):
        raise KeyboardInterrupt

class Needs(Tracker):
    def __init__(self, address):
        pass

class Other:
    pass
"""
CONFIG = load([], [], methods=config_classes())
RUN = RunInfo("id", "run", Path(), CONFIG, {}, np.ones((1, 1), dtype=np.int64), ["cnn"])


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The module with the trackers above, by the name own_trackers."""
    (tmp_path / "own_trackers.py").write_text(SOURCE)
    (tmp_path / "broken_trackers.py").write_text("1 / 0\n")
    (tmp_path / "script.py").write_text("import sys\nsys.exit(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda: sys.modules["own_trackers"].calls
    sys.modules.pop("own_trackers", None)


def trackers_of(*names, report=print):
    config = load([], [f"tracking.trackers=[{','.join(names)}]"], methods=config_classes())
    return make_trackers(config, ["a", "b"], report)


def test_no_tracker_is_the_default():
    assert trackers_of() == []


def test_a_users_own_tracker_gets_every_call(own):
    (tracker,) = trackers_of("own_trackers:Good")
    tracker.start(RUN)
    tracker.log({"round": 1, "phase": "round"}, [])
    tracker.finish("finished")
    assert own() == [(1, "round"), "finished"]


@pytest.mark.parametrize("name", ["Fails", "FailsTwice", "Exits", "ExitsAtTheEnd"])
def test_a_failed_tracker_is_reported_once_and_then_only_finished(own, name, golden, keys_of):
    reported = []
    (tracker,) = trackers_of(f"own_trackers:{name}", report=reported.append)
    tracker.start(RUN)
    for round in (1, 2) if name.startswith("Fails") else (1,):
        tracker.log({"round": round, "phase": "round"}, [])
    tracker.finish("finished")
    assert own() == [(1, "round"), "finished"]
    (line,) = reported
    assert keys_of(line) == ["tracking.trackers"]
    golden(line)


def test_ctrl_c_in_a_tracker_interrupts_the_run(own):
    (tracker,) = trackers_of("own_trackers:Stops")
    with pytest.raises(KeyboardInterrupt):
        tracker.log({"round": 1, "phase": "round"}, [])


def test_a_tracker_gets_copies_of_records(own):
    (tracker,) = trackers_of("own_trackers:ChangesRecords")
    record, clients = {"round": 1, "phase": "round", "incidents": ["x"]}, [{"client": 0}]
    tracker.log(record, clients)
    assert (record, clients) == ({"round": 1, "phase": "round", "incidents": ["x"]}, [{"client": 0}])


@pytest.mark.parametrize("mode", ["junk", "Offline", ""])
def test_an_unknown_mode_of_wandb_is_refused(monkeypatch, mode, golden, keys_of):
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(ConfigError) as caught:
        trackers_of("wandb")
    assert keys_of(caught.value) == [f"WANDB_MODE={mode}"]
    golden(caught.value)
    assert trackers_of() == []


def test_every_mode_of_wandb_is_accepted(monkeypatch):
    from wandb import Settings

    assert get_args(Settings.model_fields["mode"].annotation) == MODES
    for mode in MODES:
        monkeypatch.setenv("WANDB_MODE", mode)
        assert len(trackers_of("wandb")) == 1


@pytest.mark.parametrize(
    "name",
    [
        "no_such_package.trackers:Good",
        "broken_trackers:Good",
        "script:Good",
        "own_trackers:CannotBeMade",
        "own_trackers:Absent",
        "own_trackers:Other",
        "own_trackers:calls",
        "own_trackers:Needs",
    ],
)
def test_a_tracker_that_cannot_be_made_is_refused(own, name, golden, keys_of):
    with pytest.raises(ConfigError) as caught:
        trackers_of(name)
    assert keys_of(caught.value) == ["tracking.trackers"]
    golden(caught.value)


class News(BaseHTTPRequestHandler):
    """Keeps all posted values."""

    def do_POST(self):
        self.server.news.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def test_the_example_in_the_document_works(tiny_folder, monkeypatch):
    (example,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    folder = tiny_folder("webhook")
    with HTTPServer(("127.0.0.1", 0), News) as server:
        server.news = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (folder / "my_trackers.py").write_text(example.replace(":8000/", f":{server.server_port}/"))
        monkeypatch.syspath_prepend(folder)
        config = load([], [*overrides(folder), "tracking.trackers=[my_trackers:Webhook]"], methods=config_classes())
        record = run_federation(config, plain=True).record
        server.shutdown()
    # After the round, and at the end.
    assert server.news == [{"run": "tracked", "round": 1, "accuracy": record["test/accuracy/mean"]}] * 2


def overrides(folder):
    return [
        "placement.pool=inline",
        "run.name=tracked",
        "run.rounds=1",
        "data.name=npz",
        f"data.path={folder}/tiny.npz",
        f"run.output_dir={folder}/outputs",
        "partition.alpha=100",
        "population.num_clients=2",
        "population.backbones=[{name: cnn_2x8, share: 1}]",
        "population.feature_size=6",
        "method.name=local",
    ]


def test_a_run_whose_tracker_cannot_be_made_leaves_no_folder(tiny_folder, keys_of):
    folder = tiny_folder("absent")
    config = load([], [*overrides(folder), "tracking.trackers=[no_such:Tracker]"], methods=config_classes())
    with pytest.raises(ConfigError) as caught:
        run_federation(config, plain=True)
    assert keys_of(caught.value) == ["tracking.trackers"]
    assert list((folder / "outputs").iterdir()) == []


def test_a_resume_imports_the_trackers_of_the_run_folder(own, tiny_folder):
    folder = tiny_folder("own")
    config = load([], [*overrides(folder), "tracking.trackers=[own_trackers:Good]"], methods=config_classes())
    path = run_federation(config, plain=True).folder
    assert own() == [(1, "round"), (1, "final"), "finished"]
    del sys.modules["own_trackers"]

    resume_federation(path, ["run.rounds=2"], plain=True)
    assert own() == [(2, "round"), (2, "final"), "finished"]
    del sys.modules["own_trackers"]
    resume_federation(path, ["run.rounds=3", "tracking.trackers=[]"], plain=True)
    assert "own_trackers" not in sys.modules
    resume_federation(path, ["run.rounds=4"], plain=True)
    assert "own_trackers" not in sys.modules

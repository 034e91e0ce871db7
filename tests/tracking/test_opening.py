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
from fedvtc.tracking.lenient import reason
from fedvtc.tracking.opening import make_trackers
from fedvtc.tracking.wandb.session import MODES

DOCUMENT = Path(__file__).parents[2] / "docs/tracking.md"
SOURCE = """
from fedvtc.tracking import Tracker

heard = []

class Good(Tracker):
    def log(self, record, clients):
        heard.append((record["round"], record["phase"]))

    def finish(self, status):
        heard.append(status)

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

class ExitsInTheEnd(Good):
    def finish(self, status):
        super().finish(status)
        raise SystemExit

class CannotBegin(Tracker):
    def __init__(self):
        raise SystemExit("no server")

class Meddles(Tracker):
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
    yield lambda: sys.modules["own_trackers"].heard
    sys.modules.pop("own_trackers", None)


def trackers_of(*names, say=print):
    config = load([], [f"tracking.trackers=[{','.join(names)}]"], methods=config_classes())
    return make_trackers(config, ["a", "b"], say)


def test_none_is_the_default():
    assert trackers_of() == []


def test_one_of_the_users_own_hears_everything(own):
    (tracker,) = trackers_of("own_trackers:Good")
    tracker.start(RUN)
    tracker.log({"round": 1, "phase": "round"}, [])
    tracker.finish("finished")
    assert own() == [(1, "round"), "finished"]


@pytest.mark.parametrize("name", ["Fails", "FailsTwice"])
def test_one_that_fails_is_told_of_once_and_only_finished_from_then_on(own, name):
    said = []
    (tracker,) = trackers_of(f"own_trackers:{name}", say=said.append)
    tracker.start(RUN)
    for round in (1, 2):
        tracker.log({"round": round, "phase": "round"}, [])
    tracker.finish("finished")
    assert own() == [(1, "round"), "finished"]
    assert said == [
        f"tracking.trackers: own_trackers:{name} failed and is left out from now on (RuntimeError: no more. "
        "with a second line)."
    ]


@pytest.mark.parametrize(("name", "error"), [("Exits", "SystemExit: 3"), ("ExitsInTheEnd", "SystemExit")])
def test_one_that_ends_the_program_is_only_left_out(own, name, error):
    said = []
    (tracker,) = trackers_of(f"own_trackers:{name}", say=said.append)
    tracker.start(RUN)
    tracker.log({"round": 1, "phase": "round"}, [])
    tracker.finish("finished")
    assert own() == [(1, "round"), "finished"]
    assert said == [f"tracking.trackers: own_trackers:{name} failed and is left out from now on ({error})."]


def test_ctrl_c_is_no_failure_of_a_tracker(own):
    (tracker,) = trackers_of("own_trackers:Stops")
    with pytest.raises(KeyboardInterrupt):
        tracker.log({"round": 1, "phase": "round"}, [])


def test_what_one_does_to_a_record_stays_its_own(own):
    (tracker,) = trackers_of("own_trackers:Meddles")
    record, clients = {"round": 1, "phase": "round", "incidents": ["x"]}, [{"client": 0}]
    tracker.log(record, clients)
    assert (record, clients) == ({"round": 1, "phase": "round", "incidents": ["x"]}, [{"client": 0}])


def test_an_error_of_many_lines_is_one_line_that_says_what_is_wrong():
    from pydantic import ValidationError
    from wandb import Settings

    with pytest.raises(ValidationError) as caught:
        Settings(mode="junk")
    assert len(str(caught.value).splitlines()) > 2
    line = reason(caught.value)
    assert line.startswith("ValidationError: 1 validation error for Settings mode Input should be 'online', 'offline',")
    assert (len(line.splitlines()), len(line) < 250) == (1, True)


@pytest.mark.parametrize("mode", ["junk", "Offline", ""])
def test_a_mode_of_wandb_that_it_does_not_know_is_one_line(monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(ConfigError) as caught:
        trackers_of("wandb")
    assert str(caught.value) == (f"WANDB_MODE={mode}: unknown mode. Set online, offline or disabled, or unset it.")
    assert trackers_of() == []


def test_the_modes_are_those_of_wandb(monkeypatch):
    from wandb import Settings

    assert get_args(Settings.model_fields["mode"].annotation) == MODES
    for mode in MODES:
        monkeypatch.setenv("WANDB_MODE", mode)
        assert len(trackers_of("wandb")) == 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "no_such_package.trackers:Good",
            "no_such_package.trackers cannot be imported (ModuleNotFoundError: No module named 'no_such_package'). "
            "Install it, or put its folder on PYTHONPATH.",
        ),
        (
            "broken_trackers:Good",
            "broken_trackers cannot be imported (ZeroDivisionError: division by zero). "
            "Install it, or put its folder on PYTHONPATH.",
        ),
        (
            "script:Good",
            "script cannot be imported (SystemExit: 1). Install it, or put its folder on PYTHONPATH.",
        ),
        (
            "own_trackers:CannotBegin",
            "own_trackers:CannotBegin cannot be made (SystemExit: no server). It is made without arguments.",
        ),
        ("own_trackers:Absent", "own_trackers has no Absent. Name a class of it."),
        (
            "own_trackers:Other",
            "own_trackers:Other is not a tracker. Derive it from fedvtc.tracking.Tracker.",
        ),
        ("own_trackers:heard", "own_trackers:heard is not a tracker. Derive it from fedvtc.tracking.Tracker."),
    ],
)
def test_one_that_cannot_be_had_is_one_line(own, name, line):
    with pytest.raises(ConfigError) as caught:
        trackers_of(name)
    assert str(caught.value) == f"tracking.trackers: {line}"


def test_one_that_needs_arguments_is_one_line(own):
    with pytest.raises(ConfigError, match=r"own_trackers:Needs cannot be made \(TypeError: .*address'\)\. It is made"):
        trackers_of("own_trackers:Needs")


class News(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    def do_POST(self):
        self.server.news.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def test_the_example_of_the_document_works(tiny_folder, monkeypatch):
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
    # After the round, and in the end.
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


def test_a_run_with_one_that_cannot_be_had_leaves_no_folder(tiny_folder):
    folder = tiny_folder("absent")
    config = load([], [*overrides(folder), "tracking.trackers=[no_such:Tracker]"], methods=config_classes())
    with pytest.raises(ConfigError, match="no_such cannot be imported"):
        run_federation(config, plain=True)
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

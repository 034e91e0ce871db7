"""The commands as a user types them, each in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
EXPERIMENT = str(ROOT / "conf/experiment/digits.yaml")
SMALL = [
    "population.num_clients=4",
    "population.backbones=[{name: cnn_2x8, share: 0.5}, {name: cnn_3x16, share: 0.5}]",
    "partition.images_per_client=30",
    "method.generator.width=4",
    "method.finetune.epochs=1",
    "method.finetune.images_per_class=4",
]
INLINE = ["placement.pool=inline", *SMALL]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def fedvtc(*words):
    return subprocess.run([sys.executable, "-m", "fedvtc", *words], capture_output=True, text=True)


def test_run_then_list_then_plan():
    done = fedvtc("run", EXPERIMENT, *INLINE, "run.rounds=3", "run.name=mine", "evaluate.every=2")
    assert (done.returncode, done.stderr) == (0, "")
    first, *rounds, final = done.stdout.splitlines()[:5]
    assert first == "mine: 4 clients, 3 rounds, in outputs/mine"
    assert [line.split("  ")[0] for line in rounds] == ["round 1/3", "round 2/3", "round 3/3"]
    assert ["accuracy" in line for line in rounds] == [False, True, True]
    record = json.loads(Path("outputs/mine/metrics.jsonl").read_text().splitlines()[-1])
    assert final.startswith(f"final  accuracy {record['test/accuracy/mean']:.3f} (worst ")
    assert f"generalization accuracy   {record['test/accuracy/mean']:.3f}" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["run folder: outputs/mine", "next: fedvtc list runs outputs"]

    listed = fedvtc("list", "runs", "outputs")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert re.search(rf"mine.*{record['test/accuracy/mean']:.3f}", listed.stdout)

    planned = fedvtc("plan", EXPERIMENT, "placement.pool=inline")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert "Training images by client" in planned.stdout
    assert [path.parent.name for path in Path("outputs").rglob("run.json")] == ["mine"]


def test_a_client_that_fails_is_named_in_one_line():
    explosive = ["training.epochs=2", "training.optimizer.name=sgd", "training.optimizer.lr=1e30"]
    done = fedvtc("run", *INLINE, "run.name=mine", *explosive)
    assert (done.returncode, done.stderr) == (1, "fedvtc: client 0, round 1, train: loss is nan\n")
    assert json.loads(Path("outputs/mine/run.json").read_text())["status"] == "failed"


def hear_ctrl_c():
    """A job that a script put into the background ignores SIGINT, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def started(words, line):
    """`fedvtc run` in a group of its own, all of which gets Ctrl-C as in a terminal, once a line begins so."""
    with subprocess.Popen(
        [sys.executable, "-m", "fedvtc", "run", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,
    ) as process:
        try:
            assert any(printed.startswith(line) for printed in process.stdout), process.stderr.read()
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("words", "hosts"), [(INLINE, set()), ([*SMALL, "cluster.num_cpus=1"], {"raylet", "gcs_server"})]
)
def test_ctrl_c(words, hosts, processes_below, still_running):
    with started([*words, "run.rounds=100000", "run.name=long"], "round 1/") as process:
        family = processes_below(process.pid)
        assert hosts <= set(family.values())
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "fedvtc: interrupted.\n")
    assert not still_running(family)
    described = json.loads(Path("outputs/long/run.json").read_text())
    assert described["status"] == "interrupted"
    records = [json.loads(line) for line in Path("outputs/long/metrics.jsonl").read_text().splitlines()]
    assert [record["round"] for record in records] == list(range(1, len(records) + 1))
    assert records


def test_a_run_that_waits_for_room_ends_at_sigterm(processes_below, still_running):
    words = [*SMALL, "cluster.num_cpus=1", "placement.cpus_per_actor=2", "placement.wait_timeout_s=300"]
    with started([*words, "run.name=waits"], "waiting up to 300 s for") as process:
        family = processes_below(process.pid)
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (143, "fedvtc: interrupted.\n")
    assert not still_running(family)
    assert json.loads(Path("outputs/waits/run.json").read_text())["status"] == "interrupted"


ASKED_AS_RAY_STARTS = """
import os, signal, threading, time
from fedvtc.__main__ import program

before = signal.getsignal(signal.SIGTERM)

def ask():
    # Until ours, and then Ray's own, are in place.
    known = {before}
    while len(known) < 3:
        known.add(signal.getsignal(signal.SIGTERM))
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=ask, daemon=True).start()
program()
"""


def test_a_run_ends_at_sigterm_while_ray_starts():
    words = ["run", *SMALL, "cluster.num_cpus=1", "run.rounds=100000", "run.name=early"]
    done = subprocess.run([sys.executable, "-c", ASKED_AS_RAY_STARTS, *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, "fedvtc: interrupted.\n")
    assert done.stdout.splitlines()[-1] == "no round is saved yet; resume with: fedvtc resume outputs/early"
    assert json.loads(Path("outputs/early/run.json").read_text())["status"] == "interrupted"


def test_sigterm_where_the_head_of_the_cluster_is_gone(processes_below, still_running):
    """As where a job's processes are all told to end, and Ray's head is quicker: nothing may wait for it."""
    with started([*SMALL, "cluster.num_cpus=1", "run.rounds=100000", "run.name=long"], "round 1/") as process:
        family = {pid: name for pid, name in processes_below(process.pid).items() if not name.startswith("ray::")}
        (head,) = (pid for pid, name in family.items() if name == "gcs_server")
        os.kill(head, signal.SIGKILL)
        process.terminate()
        _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors.splitlines()[-1]) == (143, "fedvtc: interrupted.")
    # But for two of Ray's agents, which wait a minute for the cluster that is gone.
    assert not still_running(family)
    assert json.loads(Path("outputs/long/run.json").read_text())["status"] == "interrupted"


def test_sigterm_is_heard_after_ray_is_left(tmp_path):
    script = """
import os, signal
from fedvtc.config.operation import ClusterConfig
from fedvtc.runtime.actors.cluster import connected
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
with connected(ClusterConfig(num_cpus=1), "left"):
    pass
os.kill(os.getpid(), signal.SIGTERM)
print("goes on")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stdout.split("\n")) == (0, ["heard", "goes on", ""])

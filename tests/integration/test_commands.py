"""Commands as a user types them, each in a separate process: output, exit codes, signals."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from itertools import takewhile
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
    # Nobody can write below a file, not even root: no command needs a home.
    Path("no-folder").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "no-folder/home"))


def test_run_then_list_then_plan(zygote):
    done = zygote.run("run", EXPERIMENT, *INLINE, "run.rounds=3", "run.name=mine", "evaluate.every=2")
    assert (done.returncode, done.stderr) == (0, "")
    first, data, *rounds, final = done.stdout.splitlines()[:6]
    assert first == "mine: 4 clients, 3 rounds, in outputs/mine"
    assert data.startswith("data: ")
    assert [line.split("  ")[0] for line in rounds] == ["round 1/3", "round 2/3", "round 3/3"]
    assert ["accuracy" in line for line in rounds] == [False, True, True]
    record = json.loads(Path("outputs/mine/metrics.jsonl").read_text().splitlines()[-1])
    assert final.startswith(f"final  accuracy {record['test/accuracy/mean']:.3f} (worst ")
    assert f"generalization accuracy   {record['test/accuracy/mean']:.3f}" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["run folder: outputs/mine", "next: fedvtc list runs outputs"]

    listed = zygote.run("list", "runs", "outputs")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert re.search(rf"mine.*{record['test/accuracy/mean']:.3f}", listed.stdout)

    planned = zygote.run("plan", EXPERIMENT, "placement.pool=inline")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert "Training images by client" in planned.stdout
    assert [path.parent.name for path in Path("outputs").rglob("run.json")] == ["mine"]


def test_a_failed_client_is_named_in_one_line(zygote, keys_of):
    explosive = ["training.epochs=2", "training.optimizer.name=sgd", "training.optimizer.lr=1e30"]
    done = zygote.run("run", *INLINE, "run.name=mine", *explosive)
    assert (done.returncode, keys_of(done.stderr)) == (1, ["client 0, round 1, train"])
    assert "nan" in done.stderr
    assert json.loads(Path("outputs/mine/run.json").read_text())["status"] == "failed"


@pytest.fixture
def started(zygote):
    """Starts `fedvtc run` in a process group and waits for a line of output; yields the process.

    A signal to the group reaches all its processes, like Ctrl-C in a terminal.
    """

    @contextmanager
    def start(words, line):
        with zygote.start("run", *words, start_new_session=True) as process:
            try:
                assert any(printed.startswith(line) for printed in process.stdout), process.stderr.read()
                yield process
            finally:
                process.kill()

    return start


LOCAL = [*SMALL, "cluster.num_cpus=1"]


@pytest.mark.parametrize(
    ("words", "ray_processes", "signum", "loses_actor"),
    [
        (INLINE, set(), signal.SIGINT, False),
        (LOCAL, {"raylet", "gcs_server"}, signal.SIGINT, True),
        # No round is saved yet, so the round ends first, in actors that the signal must not end.
        ([*LOCAL, "checkpoint.every=100000"], {"raylet", "gcs_server"}, signal.SIGHUP, False),
    ],
    ids=["inline", "ray", "terminal"],
)
def test_a_signal_to_all_processes_of_a_run_ends_them(
    words, ray_processes, signum, loses_actor, processes_below, still_running, started
):
    # The checkpoint of round 1 is whole before that of round 2 begins, which is before the line of round 3. The
    # loss of an actor before that may cost the checkpoint.
    with started([*words, "run.rounds=100000", "run.name=long"], "round 3/" if loses_actor else "round 1/") as process:
        family = processes_below(process.pid)
        assert ray_processes <= set(family.values())
        if loses_actor:
            (actor, *_) = (pid for pid, name in family.items() if name.startswith("ray::ClientA"))
            os.kill(actor, signal.SIGKILL)
            said = list(takewhile(lambda line: not line.startswith("the process of client"), process.stdout))
            assert not [line for line in said if "raylet" in line]
            family = processes_below(process.pid)
        os.killpg(process.pid, signum)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + signum, "fedvtc: interrupted.\n")
    assert not still_running(family)
    described = json.loads(Path("outputs/long/run.json").read_text())
    assert (described["status"], described["reason"]) == ("interrupted", signum.name)
    assert re.search(r"^round \d+ is saved; resume with: fedvtc resume outputs/long$", output, re.MULTILINE)
    assert loses_actor or "incidents" not in described["attempts"][0]
    records = [json.loads(line) for line in Path("outputs/long/metrics.jsonl").read_text().splitlines()]
    assert [record["round"] for record in records] == list(range(1, len(records) + 1))
    assert records


SIGTERM_DURING_RAY_START = """
import os, signal, threading, time
from fedvtc.__main__ import program

before = signal.getsignal(signal.SIGTERM)

def send():
    # Waits for the handler of fedvtc, then for that of Ray.
    known = {before}
    while len(known) < 3:
        known.add(signal.getsignal(signal.SIGTERM))
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=send, daemon=True).start()
program()
"""


def test_sigterm_ends_a_run_while_ray_starts():
    words = ["run", *SMALL, "cluster.num_cpus=1", "run.rounds=100000", "run.name=early"]
    done = subprocess.run([sys.executable, "-c", SIGTERM_DURING_RAY_START, *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, "fedvtc: interrupted.\n")
    said = done.stdout.splitlines()
    assert said[:2] == ["loading PyTorch and the data set digits", "starting a Ray cluster on this machine"]
    assert said[-1].endswith(": fedvtc resume outputs/early")
    assert json.loads(Path("outputs/early/run.json").read_text())["status"] == "interrupted"


def test_sigterm_ends_a_run_after_the_loss_of_the_head_node(processes_below, still_running, started):
    """The end of a job sends SIGTERM to all processes. Ray's head may end first, and the run must not wait for it."""
    with started([*SMALL, "cluster.num_cpus=1", "run.rounds=100000", "run.name=long"], "round 1/") as process:
        family = {pid: name for pid, name in processes_below(process.pid).items() if not name.startswith("ray::")}
        (head,) = (pid for pid, name in family.items() if name == "gcs_server")
        os.kill(head, signal.SIGKILL)
        process.terminate()
        _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors.splitlines()[-1]) == (143, "fedvtc: interrupted.")
    # `family` lacks the `ray::` agents, which wait a minute for the lost cluster.
    assert not still_running(family)
    assert json.loads(Path("outputs/long/run.json").read_text())["status"] == "interrupted"


def test_a_process_is_as_before_after_disconnecting(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    script = """
import os, signal
from fedvtc.config.operation import ClusterConfig
from fedvtc.runtime.actors.cluster import connected
import ray
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
shutdown = ray.shutdown
with connected(ClusterConfig(num_cpus=1), "left"):
    print(len(os.environ["RAY_AUTH_TOKEN"]), os.environ["RAY_AUTH_MODE"])
    (autoscaler,) = ray._private.worker._global_node.all_processes["monitor"]
    ray.shutdown = lambda: print("autoscaler", autoscaler.process.returncode) or shutdown()
os.kill(os.getpid(), signal.SIGTERM)
print("continues", {name for name in os.environ if "AUTH" in name})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    # Ray would wait a second for the autoscaler.
    lines = ["64 token", "autoscaler -9", "handled", "continues set()"]
    assert (done.returncode, done.stdout.splitlines()) == (0, lines)
    # A token that is left there would be asked for by every cluster that `ray start` starts later.
    assert not (tmp_path / ".ray").exists()

"""Jobs of a real cluster of two nodes, which wants a token: submitted over HTTP, stopped, resumed."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PATIENCE_S = 180


def free_ports(count):
    """Ports that were free a moment ago, all at once so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()


class Cluster:
    """A head and a worker node, one CPU each, in process groups of their own."""

    def __init__(self, folder, processes_below, still_running):
        self.folder, self._below, self._left = folder, processes_below, still_running
        self.nodes = []
        token = folder / "token"
        token.write_text("0123456789abcdef" * 2)
        token.chmod(0o600)
        outside = {"RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "FEDVTC_RUN_ID"}
        self.stranger = {name: value for name, value in os.environ.items() if name not in outside}
        self.stranger |= {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            # No token of whoever runs the tests.
            "HOME": str(folder),
            "RAY_AUTH_MODE": "disabled",
        }
        self.user = self.stranger | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}

    def start(self):
        head, dashboard, client, *agents = free_ports(11)
        self.url = f"http://127.0.0.1:{dashboard}"
        ports = ["--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--metrics-export-port"]
        ports += ["--runtime-env-agent-port"]
        common = ["--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000", "--block", "--disable-usage-stats"]
        common += ["--node-ip-address=127.0.0.1", "--min-worker-port=0", "--max-worker-port=0"]
        for role in (
            ["--head", f"--port={head}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
            + [f"--temp-dir={self.folder / 'ray'}", "--dashboard-host=127.0.0.1"],
            [f"--address=127.0.0.1:{head}"],
        ):
            own = [f"{option}={agents.pop()}" for option in ports]
            with (self.folder / f"node{len(self.nodes)}.log").open("w") as log:
                command = [str(BIN / "ray"), "start", *role, *common, *own]
                self.nodes.append(
                    subprocess.Popen(command, env=self.user, stdout=log, stderr=log, start_new_session=True)
                )
            self._wait(len(self.nodes))

    def _wait(self, num_nodes):
        """Until that many nodes are there."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            listed = self.ray("list", "nodes", "--address", self.url, "--format", "json", timeout=60)
            if listed.returncode == 0:
                nodes = json.loads(listed.stdout[listed.stdout.index("[") :])
                if sum(node["state"] == "ALIVE" for node in nodes) == num_nodes:
                    return
            time.sleep(1)
        logs = "\n".join(file.read_text() for file in self.folder.glob("node*.log"))
        raise AssertionError(f"{num_nodes} nodes did not start: {listed.stderr}\n{logs}")

    def ray(self, *words, timeout=PATIENCE_S):
        command = [str(BIN / "ray"), *words]
        return subprocess.run(command, env=self.user, capture_output=True, text=True, timeout=timeout)

    def fedvtc(self, *words, env=None, cwd=None):
        command = [sys.executable, "-m", "fedvtc", *words]
        return subprocess.run(
            command, env=env or self.user, cwd=cwd or self.folder, capture_output=True, text=True, timeout=PATIENCE_S
        )

    def stop(self):
        families = {}
        for node in self.nodes:
            families |= {node.pid: "ray", **self._below(node.pid)}
        for node in reversed(self.nodes):
            node.terminate()
            node.wait(timeout=PATIENCE_S)
        for pid in self._left({pid: name for pid, name in families.items() if pid not in {n.pid for n in self.nodes}}):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster(processes_below, still_running):
    # A short path, for that of a socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="fj", dir="/tmp"))
    made = Cluster(folder, processes_below, still_running)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def words(tiny_folder):
    """A small federation of two clients, each in an actor of its own that needs a whole node."""
    folder = tiny_folder("jobs")
    return [
        *("data.name=npz", f"data.path={folder / 'tiny.npz'}", "partition.kind=iid", "population.num_clients=2"),
        *("population.backbones=[{name: cnn_2x8, share: 1}]", "population.feature_size=6", "method.name=fedproto"),
        *("placement.clients_per_actor=1", "evaluate.every=1", f"run.output_dir={folder / 'outputs'}"),
    ]


def test_a_job_is_followed_stopped_and_resumed(cluster, words, tiny_folder):
    submit = [sys.executable, "-m", "fedvtc", "submit", *words, "run.name=mine", "--address", cluster.url]
    output_dir = Path(next(word for word in words if word.startswith("run.output_dir=")).partition("=")[2])
    with subprocess.Popen(
        [*submit, "run.rounds=100000"], env=cluster.user, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            head = next(process.stdout)
            job_id = head.split()[1]
            assert job_id.endswith("-1")
            assert head == f"job {job_id} on {cluster.url}: run mine, attempt 1\n"
            assert any(line.startswith("round 3/100000") for line in process.stdout), process.stderr.read()

            listed = cluster.ray(
                "list", "actors", "--address", cluster.url, "--format", "json", "--filter", "state=ALIVE"
            )
            actors = json.loads(listed.stdout[listed.stdout.index("[") :])
            homes = {actor["node_id"] for actor in actors if actor["class_name"] not in ("JobSupervisor",)}
            assert len(homes) == 2, actors

            again = cluster.fedvtc(*submit[3:], "run.rounds=5")
            assert (again.returncode, again.stderr) == (
                2,
                f"fedvtc: run.name=mine: job {job_id} is at it (RUNNING). "
                f"Wait for it, or stop it: ray job stop {job_id} --address {cluster.url}\n",
            )

            stopped = cluster.ray("job", "stop", job_id, "--address", cluster.url)
            assert stopped.returncode == 0, stopped.stderr
            rest, errors = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert "go on with: fedvtc resume" in rest
    assert rest.splitlines()[-1].startswith(f"job {job_id}: STOPPED")
    assert (process.returncode, errors) == (143, "")

    folder = output_dir / "mine"
    described = json.loads((folder / "run.json").read_text())
    assert (described["status"], f"{described['id']}-1") == ("interrupted", job_id)
    num_done = len((folder / "metrics.jsonl").read_text().splitlines())
    assert num_done >= 3
    assert list((folder / "checkpoints").glob("round_*/manifest.json"))

    resumed = cluster.fedvtc(*submit[3:], f"run.rounds={num_done + 2}")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert resumed.stdout.startswith(f"job {described['id']}-2 on {cluster.url}: run mine, attempt 2\n")
    described = json.loads((folder / "run.json").read_text())
    assert (described["status"], len(described["attempts"])) == ("finished", 2)
    assert described["attempts"][1]["resumed_round"] > 0
    rounds = [json.loads(line)["round"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rounds[:-1] == list(range(1, num_done + 3))

    listed = cluster.fedvtc("list", "--cluster", "--address", cluster.url)
    rows = [line.split()[:4] for line in listed.stdout.splitlines()[1:]]
    assert rows == [["mine", described["id"], "1", "STOPPED"], ["mine", described["id"], "2", "SUCCEEDED"]]
    assert "0123456789abcdef" not in (folder / "config.yaml").read_text() + (folder / "run.json").read_text()


def test_without_a_token_one_line_says_so(cluster, words):
    for command in (["submit", *words], ["list", "--cluster"]):
        done = cluster.fedvtc(*command, "--address", cluster.url, env=cluster.stranger)
        assert (done.returncode, done.stderr) == (
            2,
            f"fedvtc: {cluster.url}: the cluster wants a token. "
            "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file that holds it.\n",
        )


def test_a_relative_output_folder_is_refused_in_a_job_too(cluster, words):
    command = ["python", "-m", "fedvtc", "run", *words, "run.output_dir=outputs", "--plain"]
    ran = cluster.ray("job", "submit", "--address", cluster.url, "--", *command)
    assert ran.returncode == 1
    line = "fedvtc: run.output_dir: must be an absolute path in a job, which runs in a temporary folder, not 'outputs'."
    assert line in ran.stdout + ran.stderr


def test_a_job_that_fails_gives_its_exit_code(cluster, words):
    done = cluster.fedvtc("submit", *words, "data.path=/absent/tiny.npz", "--address", cluster.url)
    assert done.returncode == 2
    assert "fedvtc: /absent/tiny.npz: " in done.stdout
    assert "FAILED, exit code 2" in done.stdout.splitlines()[-1]

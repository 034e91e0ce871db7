"""Jobs of a real cluster of two nodes that requires a token: submitted over HTTP, stopped, resumed."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from fedvtc.commands.sweep import load_sweep
from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.results import results
from fedvtc.errors import ClusterError
from fedvtc.runtime.actors.token import variables_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PATIENCE_S = 300


FOLLOW = """
import sys
from fedvtc.commands.submit import follow

sys.exit(follow(sys.argv[1], sys.argv[2], sys.stdout.write, print).exit_code)
"""


def accept_ctrl_c():
    """Restores the default SIGINT handler: processes that a script starts in the background ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def free_ports(count):
    """Different ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()


class Cluster:
    """A head and a worker node with one CPU each, in separate process groups."""

    def __init__(self, folder, processes_below, still_running):
        self.folder, self._below, self._left = folder, processes_below, still_running
        self.nodes = []
        token = folder / "token"
        token.write_text("0123456789abcdef" * 2)
        token.chmod(0o600)
        outside = {"RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "FEDVTC_RUN_ID", "FEDVTC_ATTEMPT"}
        self.without_token = {name: value for name, value in os.environ.items() if name not in outside}
        self.without_token |= {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            # The home of the person who runs the tests may have a token.
            "HOME": str(folder),
            "RAY_AUTH_MODE": "disabled",
        }
        self.user = self.without_token | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}

    def start(self):
        head, dashboard, client, *agents = free_ports(11)
        self.url, self.address = f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{head}"
        ports = ["--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--metrics-export-port"]
        ports += ["--runtime-env-agent-port"]
        common = ["--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000", "--block", "--disable-usage-stats"]
        common += ["--node-ip-address=127.0.0.1", "--min-worker-port=0", "--max-worker-port=0"]
        local = [f"--temp-dir={self.folder / 'ray'}", "--dashboard-host=127.0.0.1"]
        for role in (
            ["--head", f"--port={head}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}", *local],
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
        """Waits until the cluster has that many nodes."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            # While the head starts, connections are refused, and then answers lack a result.
            with contextlib.suppress(OSError, TypeError, KeyError):
                if sum(node["state"] == "ALIVE" for node in self.rows("nodes")) == num_nodes:
                    return
            time.sleep(0.5)
        logs = "\n".join(file.read_text() for file in self.folder.glob("node*.log"))
        raise AssertionError(f"{num_nodes} nodes did not start:\n{logs}")

    def rows(self, kind):
        """The nodes or actors that the dashboard lists."""
        token = Path(self.user["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = urllib.request.Request(f"{self.url}/api/v0/{kind}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]["result"]["result"]

    def jobs(self, sweep):
        """The jobs of a sweep that the dashboard lists, in the order of their start."""
        token = Path(self.user["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = urllib.request.Request(f"{self.url}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            jobs = [job for job in json.load(answer) if (job["metadata"] or {}).get("fedvtc_sweep") == sweep]
        return sorted(jobs, key=lambda job: job["start_time"])

    def ended_jobs(self, sweep):
        """Waits until all jobs of a sweep have ended, and returns them in the order of their start."""
        until_s = time.monotonic() + PATIENCE_S
        while any(job["status"] in ("PENDING", "RUNNING") for job in self.jobs(sweep)):
            assert time.monotonic() < until_s
            time.sleep(0.5)
        return self.jobs(sweep)

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


class Proxy:
    """Forwards connections to a dashboard, and can cut the connections."""

    def __init__(self, url):
        self._there = ("127.0.0.1", int(url.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = []
        self.refuses = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                here = self._listener.accept()[0]
                if self.refuses:
                    here.close()
                    continue
                there = socket.create_connection(self._there)
                self._open += [here, there]
                for source, target in ((here, there), (there, here)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    @staticmethod
    def _pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self):
        """Cuts all open connections."""
        cut, self._open = self._open, []
        for end in cut:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


@pytest.fixture(scope="module")
def cluster(processes_below, still_running):
    # A short path, because the path of a socket has at most 107 bytes.
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
    """The arguments of a small federation of two clients, each in an actor that needs a whole node."""
    folder = tiny_folder("jobs")
    return [
        *("data.name=npz", f"data.path={folder / 'tiny.npz'}", "partition.kind=iid", "population.num_clients=2"),
        *("population.backbones=[{name: cnn_2x8, share: 1}]", "population.feature_size=6", "method.name=fedproto"),
        *("placement.clients_per_actor=1", "evaluate.every=1", f"run.output_dir={folder / 'outputs'}"),
    ]


@pytest.fixture
def proxy(cluster):
    made = Proxy(cluster.url)
    yield made
    made.close()


def test_a_job_is_followed_stopped_and_resumed(cluster, proxy, words, keys_of, golden):
    submit = [sys.executable, "-m", "fedvtc", "submit", *words, "run.name=mine", "--address", proxy.url]
    output_dir = Path(next(word for word in words if word.startswith("run.output_dir=")).partition("=")[2])
    with subprocess.Popen(
        [*submit, "run.rounds=100000"],
        env=cluster.user,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=accept_ctrl_c,
    ) as process:
        try:
            head = next(process.stdout)
            job_id = head.split()[1]
            assert job_id.endswith("-1")
            assert head == f"job {job_id} on {proxy.url}: run mine, attempt 1\n"
            log = read_until(process, "round 3/100000")
            proxy.refuses = True
            proxy.cut()
            golden(process.stderr.readline(), {proxy.url: "URL"})
            proxy.refuses = False
            log += read_until(process, "round 9/100000")
            rounds = [int(line.split()[1].split("/")[0]) for line in log if line.startswith("round ")]
            assert rounds == list(range(1, 10))

            actors = [row for row in cluster.rows("actors") if row["class_name"] != "JobSupervisor"]
            assert len({actor["node_id"] for actor in actors if actor["state"] == "ALIVE"}) == 2, actors

            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert (process.returncode, len(errors.splitlines())) == (130, 1)
    golden(errors, {job_id: "JOB"})

    follow = [sys.executable, "-c", FOLLOW, job_id, cluster.url]
    with subprocess.Popen(
        follow, env=cluster.user, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            read_until(process, "round 9/100000")
            again = cluster.fedvtc(*submit[3:], "run.rounds=5")
            assert (again.returncode, keys_of(again.stderr)) == (2, ["run.name=mine"])
            golden(again.stderr, {job_id: "JOB", proxy.url: "URL"})
            stopped = cluster.ray("job", "stop", job_id, "--address", cluster.url)
            assert stopped.returncode == 0, stopped.stderr
            rest, errors = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert "fedvtc resume" in rest
    assert (process.returncode, errors) == (143, "")

    folder = output_dir / "mine"
    described = json.loads((folder / "run.json").read_text())
    assert (described["status"], f"{described['id']}-1") == ("interrupted", job_id)
    num_done = len((folder / "metrics.jsonl").read_text().splitlines())
    assert num_done >= 3
    assert list((folder / "checkpoints").glob("round_*/manifest.json"))

    # Without actors, which take longer to start than the rounds take.
    resumed = cluster.fedvtc(*submit[3:], f"run.rounds={num_done + 2}", "placement.pool=inline")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert resumed.stdout.startswith(f"job {described['id']}-2 on {proxy.url}: run mine, attempt 2\n")
    described = json.loads((folder / "run.json").read_text())
    assert (described["status"], len(described["attempts"])) == ("finished", 2)
    assert described["attempts"][1]["resumed_round"] > 0
    rounds = [json.loads(line)["round"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rounds[:-1] == list(range(1, num_done + 3))

    listed = cluster.fedvtc("list", "--cluster", "--address", cluster.url)
    rows = [line.split()[:4] for line in listed.stdout.splitlines()[1:]]
    assert rows == [["mine", described["id"], "1", "STOPPED"], ["mine", described["id"], "2", "SUCCEEDED"]]
    assert "0123456789abcdef" not in (folder / "config.yaml").read_text() + (folder / "run.json").read_text()


def read_until(process, start):
    """Reads the output of a process up to the first line with this start."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(start):
            return lines
    raise AssertionError("".join([*lines, process.stderr.read()]))


def test_a_missing_token_is_one_line(cluster, words, keys_of, golden):
    for command in (["submit", *words], ["list", "--cluster"]):
        done = cluster.fedvtc(*command, "--address", cluster.url, env=cluster.without_token)
        assert (done.returncode, keys_of(done.stderr)) == (2, [cluster.url])
        golden(done.stderr, {cluster.url: "URL"})


ATTACH = """
import os, sys
from fedvtc.config.operation import ClusterConfig
from fedvtc.runtime.actors.cluster import all_nodes, connected, nodes_elsewhere

address = sys.argv[1]
with connected(ClusterConfig(address=address), "attached"):
    print(len(all_nodes()), len(nodes_elsewhere(address)[1]))
print("RAY_AUTH_MODE" in os.environ)
"""


def test_the_token_of_the_home_opens_a_cluster_given_by_its_address(cluster, tmp_path, monkeypatch, keys_of, golden):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    token = tmp_path / ".ray/auth_token"
    token.parent.mkdir()

    def refused():
        with pytest.raises(ClusterError) as raised:
            variables_for(cluster.address, "cluster.address")
        assert keys_of(raised.value) == [f"cluster.address={cluster.address}"]
        golden(raised.value, {cluster.address: "HOST:PORT"})

    refused()
    token.write_text("of another cluster")
    refused()
    token.write_text(Path(cluster.user["RAY_AUTH_TOKEN_PATH"]).read_text() + "\n")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    refused()
    monkeypatch.delenv("RAY_AUTH_MODE")
    environment = {name: value for name, value in cluster.without_token.items() if name != "RAY_AUTH_MODE"}
    done = subprocess.run(
        [sys.executable, "-c", ATTACH, cluster.address],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["2", "2", "False"], "")


def test_a_relative_output_folder_is_refused_in_a_job_too(cluster):
    """`run_federation` calls this check first; here the variable by which it knows a job is that of Ray."""
    code = "from fedvtc.config import Config, check_submitted; check_submitted(Config())"
    ran = cluster.ray("job", "submit", "--address", cluster.url, "--", "python", "-c", code)
    assert ran.returncode == 1
    assert "ConfigError: run.output_dir: " in ran.stdout + ran.stderr


def test_submit_returns_the_exit_code_of_a_failed_job(cluster, words):
    done = cluster.fedvtc("submit", *words, "data.path=/absent/tiny.npz", "--address", cluster.url)
    assert done.returncode == 2
    assert "fedvtc: /absent/tiny.npz: " in done.stdout
    assert "FAILED, exit code 2" in done.stdout.splitlines()[-1]


def test_a_working_dir_that_is_too_large_is_one_line(cluster, words, tmp_path, keys_of, golden):
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(101 * 2**20)
    done = cluster.fedvtc("submit", *words, "--working-dir", tmp_path, "--address", cluster.url)
    assert (done.returncode, keys_of(done.stderr)) == (2, ["--working-dir"])
    golden(done.stderr)


def write_sweep(words, **more):
    """Writes a sweep file, `mine.yaml` beside the data: the same small federation with two seeds."""
    keys = dict(word.split("=", 1) for word in words if not word.startswith("placement."))
    set_ = {key: yaml.safe_load(value) for key, value in keys.items()}
    file = Path(keys["data.path"]).with_name("mine.yaml")
    file.write_text(yaml.safe_dump({"set": set_, "grid": {"run.seed": [0, 1]}, **more}))
    return file.parent, Path(keys["run.output_dir"])


def test_a_sweep_of_jobs_finishes_and_resumes_one_job_at_a_time(cluster, words, golden):
    folder, outputs = write_sweep(words)
    command = ["sweep", "mine.yaml", "run.rounds=3", "placement.pool=inline"]
    command += ["--executor", "jobs", "--address", cluster.url]
    outputs.mkdir(exist_ok=True)

    sent = cluster.fedvtc(*command, cwd=folder)

    assert (sent.returncode, sent.stderr) == (0, "")
    # Both jobs start at once, in either order.
    ended = sorted(cluster.ended_jobs("mine"), key=lambda job: job["metadata"]["fedvtc_run"])
    assert [job["status"] for job in ended] == ["SUCCEEDED"] * 2, [job["message"] for job in ended]
    # One upload for all jobs of the sweep.
    assert len({job["runtime_env"]["working_dir"] for job in ended}) == 1
    lines = sent.stdout.splitlines()
    assert lines[-3:-1] == [f"{job['metadata']['fedvtc_run']}: job {job['submission_id']}, attempt 1" for job in ended]
    assert lines[-1].endswith(": fedvtc sweep mine.yaml run.rounds=3 placement.pool=inline --results")
    golden(sent.stdout, {str(outputs): "OUTPUTS"} | {job["submission_id"]: "JOB" for job in ended})

    write_sweep(words, max_concurrent=1)
    command[2] = "run.rounds=4"
    with subprocess.Popen(
        [sys.executable, "-m", "fedvtc", *command],
        env=cluster.user,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            head = read_until(process, "seed0: job ")
            process.send_signal(signal.SIGTERM)
            rest, errors = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert (process.returncode, len(errors.splitlines())) == (143, 1)
    assert len(head) == 3
    golden("".join(head[:-1]), {str(outputs): "OUTPUTS"})
    assert rest.endswith(f": fedvtc {' '.join(command)}\n")
    golden(rest, {cluster.url: "URL"})

    again = cluster.fedvtc(*command, cwd=folder)

    assert (again.returncode, again.stderr) == (0, "")
    first, second = cluster.ended_jobs("mine")[2:]
    assert [job["metadata"]["fedvtc_run"] for job in (first, second)] == ["seed0", "seed1"]
    assert [job["status"] for job in (first, second)] == ["SUCCEEDED"] * 2
    assert first["end_time"] <= second["start_time"]
    for seed in (0, 1):
        lines = (outputs / "mine" / f"seed{seed}" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["round"] for line in lines if json.loads(line)["phase"] == "round"] == [1, 2, 3, 4]
    (group,) = results(SweepFolder(load_sweep(folder / "mine.yaml", ["run.rounds=4"]))).table.groups.values()
    assert (len(group.trials), group.num_finished) == (2, 2)

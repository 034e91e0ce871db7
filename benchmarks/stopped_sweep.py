"""Compares a sweep that is stopped half way and submitted again with a sweep that is not stopped.

    .venv/bin/python benchmarks/stopped_sweep.py --root DATA [--sweep conf/sweep/mnist_methods.yaml] [key=value ...]

Starts a cluster with `ray start --head` on this machine, submits the sweep with `ray job submit`, stops the job with
`ray job stop` when half of the trials are done, and submits the sweep again; then submits the sweep once more with
another folder. Both tables must be equal byte by byte, and all records except measured times and memory. The offline
files of W&B must hold one run for each trial, all in one group, and every round once in each run.
"""

import argparse
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedvtc.learning.metrics import MEASURED
from fedvtc.tracking.wandb.local_log import records

ROOT = Path(__file__).resolve().parents[1]
RAY = Path(sys.executable).parent / "ray"
IGNORED = (*MEASURED, "incidents")
END = ("SUCCEEDED", "FAILED", "STOPPED")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder with the data set")
    parser.add_argument("--sweep", type=Path, default=ROOT / "conf/sweep/mnist_methods.yaml")
    parser.add_argument("--num-cpus", type=int, default=2)
    parser.add_argument(
        "--folder", type=Path, help="folder for the runs; default a temporary folder, removed if all is equal"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    words = parser.parse_args()
    folder = words.folder or Path(tempfile.mkdtemp(prefix="sweep-", dir="/tmp"))
    common = [f"data.root={words.root}", "data.download=false", "tracking.trackers=[wandb]", *words.overrides]
    with cluster(words.num_cpus) as address:
        stopped = Submission(address, words.sweep.resolve(), folder / "stopped", common)
        stopped.submit("first")
        trials = stopped.wait_for_half()
        stopped.stop("first")
        stopped.submit("second")
        stopped.wait("second")
        undisturbed = Submission(address, words.sweep.resolve(), folder / "undisturbed", common)
        undisturbed.submit("undisturbed")
        undisturbed.wait("undisturbed")
    faults = compared(stopped.sweep_folder(), undisturbed.sweep_folder())
    print((stopped.sweep_folder() / "results.csv").read_text(), end="")
    print(f"{trials} trials; tables and records {'equal' if not faults else 'differ: ' + '; '.join(faults)}")
    faults += offline(stopped.sweep_folder(), trials)
    if words.folder is None and not faults:
        shutil.rmtree(folder)
    return 1 if faults else 0


class Submission:
    """A sweep that is submitted as jobs."""

    def __init__(self, address: str, sweep: Path, output: Path, overrides: list[str]) -> None:
        self._address, self._sweep, self._output = address, sweep, output
        self._overrides = [f"run.output_dir={output}", *overrides]

    def submit(self, job: str) -> None:
        variables = {"WANDB_MODE": "offline", "RAY_JOB_STOP_WAIT_TIME_S": "120", "OMP_NUM_THREADS": "1"}
        environment = {"env_vars": variables | {"PYTHONPATH": str(ROOT / "src")}}
        self._ray(
            "submit",
            *("--submission-id", job, "--no-wait", "--runtime-env-json", json.dumps(environment), "--"),
            *(sys.executable, "-m", "fedvtc", "sweep", str(self._sweep), *self._overrides),
        )
        self._began_s = time.monotonic()
        print(f"{job}: submitted", flush=True)

    def wait_for_half(self) -> int:
        """Waits until half of the trials are finished and another has run some rounds; returns the number of trials."""
        while True:
            time.sleep(1)
            if self.status("first") in END:
                raise SystemExit(self._ray("logs", "first"))
            trials = self._num_trials()
            states = [json.loads(file.read_text())["status"] for file in self._output.glob("*/*/run.json")]
            half_done = any(len(lines(file.parent)) >= 3 for file in self._running())
            if trials and states.count("finished") * 2 >= trials and half_done:
                print(f"{states.count('finished')} of {trials} trials done, {self._rounds()}; stopping", flush=True)
                return trials

    def stop(self, job: str) -> None:
        began_s = time.monotonic()
        self._ray("stop", job)
        self.wait(job)
        print(f"{job}: ended {time.monotonic() - began_s:.1f} s after `ray job stop`", flush=True)

    def wait(self, job: str) -> None:
        while (status := self.status(job)) not in END:
            time.sleep(1)
        print(f"{job}: {status} after {time.monotonic() - self._began_s:.0f} s", flush=True)
        if status == "FAILED":
            raise SystemExit(self._ray("logs", job))

    def status(self, job: str) -> str:
        printed = self._ray("status", job).upper()
        return next((state for state in END if state in printed), "RUNNING")

    def sweep_folder(self) -> Path:
        (found,) = self._output.glob("*/results.csv")
        return found.parent

    def _num_trials(self) -> int:
        printed = subprocess.run(
            [sys.executable, "-m", "fedvtc", "sweep", str(self._sweep), *self._overrides, "--print"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        return sum("fedvtc run" in line for line in printed.stdout.splitlines())

    def _running(self) -> Iterator[Path]:
        for file in self._output.glob("*/*/run.json"):
            if json.loads(file.read_text())["status"] == "running":
                yield file

    def _rounds(self) -> str:
        return ", ".join(f"{file.parent.name} in round {len(lines(file.parent)) + 1}" for file in self._running())

    def _ray(self, command: str, *words: str) -> str:
        done = subprocess.run(
            [RAY, "job", command, "--address", self._address, *words], capture_output=True, text=True, check=False
        )
        if "try again later" in done.stderr:  # The cluster has just started.
            time.sleep(2)
            return self._ray(command, *words)
        if done.returncode and command == "submit":
            raise SystemExit(done.stdout + done.stderr)
        return done.stdout + done.stderr


@contextmanager
def cluster(num_cpus: int) -> Iterator[str]:
    """Starts a Ray cluster on this machine until the block ends; yields its address for jobs."""
    port, dashboard, agent = free_port(), free_port(), free_port()
    # A short path, because Ray creates sockets in the folder, and the path of a socket is limited.
    temporary = tempfile.mkdtemp(prefix="r", dir="/tmp")
    token = Path(temporary, "token")
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    head = subprocess.Popen(
        [
            *(RAY, "start", "--head", "--block", f"--num-cpus={num_cpus}", f"--port={port}"),
            *(
                f"--dashboard-port={dashboard}",
                f"--temp-dir={temporary}",
                "--disable-usage-stats",
                f"--dashboard-agent-listen-port={agent}",
            ),
        ],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        until_s = time.monotonic() + 60
        query = [RAY, "job", "list", "--address", address]
        while (answer := subprocess.run(query, capture_output=True, text=True, check=False)).returncode:
            if time.monotonic() > until_s:
                raise SystemExit(f"The cluster does not answer: {answer.stderr}")
            time.sleep(1)
        yield address
    finally:
        head.terminate()
        head.wait(120)
        shutil.rmtree(temporary, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def lines(run: Path) -> list[dict[str, Any]]:
    """The records of a run, without measured times and memory."""
    file = run / "metrics.jsonl"
    written = map(json.loads, file.read_text().splitlines()) if file.exists() else []
    return [{key: value for key, value in record.items() if not key.startswith(IGNORED)} for record in written]


def compared(one: Path, other: Path) -> list[str]:
    """The files that differ between two sweeps."""
    faults = []
    if (one / "results.csv").read_bytes() != (other / "results.csv").read_bytes():
        faults.append("results.csv")
    names = sorted(file.parent.name for file in one.glob("*/run.json"))
    if names != sorted(file.parent.name for file in other.glob("*/run.json")):
        faults.append("the names of the trials")
    for name in names:
        if lines(one / name) != lines(other / name):
            faults.append(f"{name}/metrics.jsonl")
        if (one / name / "clients.csv").read_bytes() != (other / name / "clients.csv").read_bytes():
            faults.append(f"{name}/clients.csv")
    return faults


def offline(sweep: Path, num_trials: int) -> list[str]:
    """The faults of the offline runs of W&B."""
    groups, attempts = defaultdict(set), defaultdict(list)
    rounds: dict[str, list[int]] = defaultdict(list)
    for file in sorted(sweep.glob("*/wandb/offline-run-*/*.wandb")):
        for record in records(file):
            if record.HasField("run"):
                groups[record.run.run_group].add(record.run.run_id)
                attempts[record.run.run_id].append(file.parent.name)
            if record.HasField("history"):
                row = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                if "round" in row and "clients/participating" in row:
                    rounds[file.parents[2].name].append(row["round"])
    resumed = {run: len(set(folders)) for run, folders in attempts.items() if len(set(folders)) > 1}
    num_runs = sum(map(len, groups.values()))
    print(f"W&B: {num_runs} runs in {len(groups)} group, {len(resumed)} of them in more than one attempt")
    faults = [] if len(groups) == 1 and len(attempts) == num_trials else ["W&B's runs"]
    for name, seen in sorted(rounds.items()):
        expected = [record["round"] for record in lines(sweep / name) if record["phase"] == "round"]
        if [round for round in seen if seen.count(round) == 1][: len(expected)] != expected:
            print(f"  {name}: rounds {seen}")
            faults.append(name)
    print(f"W&B: rounds {'once in every run' if not faults else 'wrong: ' + ', '.join(faults)}")
    return faults


if __name__ == "__main__":
    raise SystemExit(main())

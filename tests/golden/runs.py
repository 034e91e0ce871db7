"""Runs six small federations and digests their results.

.venv/bin/python tests/golden/runs.py          # compares with bits.json
.venv/bin/python tests/golden/runs.py --write  # replaces bits.json
"""

import argparse
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from fedvtc.learning.metrics import MEASURED

ROOT = Path(__file__).parents[2]
BITS = Path(__file__).with_name("bits.json")
SMALL = [
    "conf/experiment/digits.yaml",
    "run.rounds=4",
    "population.num_clients=4",
    "partition.images_per_client=60",
    "evaluate.every=2",
    "checkpoint.every=1",
    # The digests are older than this part of the final record.
    "evaluate.memorisation=false",
]
INLINE = ["placement.pool=inline"]
TWO_ACTORS = ["placement.pool=ray", "placement.clients_per_actor=2", "cluster.num_cpus=2"]
FIRST_PLUS = [
    "conf/method/fedvtc.yaml",
    "method.label=FedVTC+",
    "method.statistics.covariance=class_full",
    "method.generator.aggregation=exchange",
    "method.generator.sigma=learned",
    "method.generator.beta=0.01",
    "method.generator.gamma=0",
    "method.finetune.latents=client_mixture",
    "method.finetune.augment=affine",
]
"""The first recipe of FedVTC+, key by key."""
QUICK = ["method.generator.epochs=1", "method.finetune.epochs=1", "method.finetune.images_per_class=20"]
RUNS = {
    "local": ["conf/method/local.yaml", *INLINE],
    # Predicts and sends as the method did when the digests were written.
    "fedproto": ["conf/method/fedproto.yaml", "method.prediction=head", "method.precision=float64", *INLINE],
    "fedvtc": ["conf/method/fedvtc.yaml", *QUICK, *INLINE],
    "fedvtc_plus": [*FIRST_PLUS, *QUICK, *INLINE],
    "fedvtc_plus_two_actors": [*FIRST_PLUS, *QUICK, *TWO_ACTORS],
    "fedvtc_resumed": ["conf/method/fedvtc.yaml", *QUICK, *INLINE, "run.rounds=12"],
}
STOPPED = "fedvtc_resumed"
"""The run that SIGTERM ends during its first rounds, and that is then resumed."""
RUN_COMMANDS = """
import json, sys
from fedvtc.__main__ import main

print("codes", [main(words) for words in json.loads(sys.argv[1])])
"""
"""One process for all commands, because each process imports PyTorch for seconds."""


def libraries() -> dict[str, str]:
    """Versions and the processor, which decide the bits of a result."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": model or platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the records, of clients.csv and of the final weights of a run folder."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in record.items() if not key.startswith(MEASURED)} for record in records]
    weights = hashlib.sha256()
    for file in sorted((folder / "checkpoints/final").glob("client_*")):
        weights.update(file.name.encode())
        _digest_tree(torch.load(file, weights_only=True), file.name, weights)
    return {
        "records": hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest(),
        "clients": hashlib.sha256((folder / "clients.csv").read_bytes()).hexdigest(),
        "weights": weights.hexdigest(),
    }


def run_all() -> dict[str, dict[str, str]]:
    """The digests of every run, by its name.

    Raises:
        RuntimeError: a command did not end as it should.
    """
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            name: ["run", *SMALL, *words, f"run.output_dir={folder}", f"run.name={name}", "--plain"]
            for name, words in RUNS.items()
        }
        # The run that is stopped comes first, its resume last.
        stopped = Path(folder, STOPPED)
        first, last = commands.pop(STOPPED), ["resume", str(stopped), "--plain"]
        process = _start([first, *commands.values(), last])
        _stop_after_records(process, stopped / "metrics.jsonl", 3)
        output, _ = process.communicate(timeout=280)
        if f"codes {[143, *[0] * len(RUNS)]}" not in output:
            raise RuntimeError(f"{process.args} ended with {process.returncode}:\n{output}")
        return {name: digests(Path(folder, name)) for name in RUNS}


def _start(commands: list[list[str]]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "RAY_worker_niceness": "0"}
    command = [sys.executable, "-c", RUN_COMMANDS, json.dumps(commands)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _stop_after_records(process: subprocess.Popen[str], records: Path, num_records: int) -> None:
    while process.poll() is None and not (records.exists() and records.read_bytes().count(b"\n") >= num_records):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)


def _digest_tree(tree: object, path: str, digest: "hashlib._Hash") -> None:
    if isinstance(tree, dict):
        for key in sorted(tree, key=str):
            _digest_tree(tree[key], f"{path}/{key}", digest)
    elif isinstance(tree, torch.Tensor):
        digest.update(f"{path} {tree.dtype} {tuple(tree.shape)}".encode())
        digest.update(tree.contiguous().numpy().tobytes())
    else:
        digest.update(f"{path} {tree!r}".encode())


def main() -> int:
    """Compares the digests of all runs with bits.json, or writes them there."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="replace bits.json")
    found = {"libraries": libraries(), "runs": run_all()}
    if parser.parse_args().write:
        BITS.write_text(json.dumps(found, indent=2) + "\n")
        print(f"{BITS}: {len(RUNS)} runs written")
        return 0
    known = json.loads(BITS.read_text())
    if known["libraries"] != found["libraries"]:
        print(f"other libraries: {known['libraries']}, here {found['libraries']}")
    differ = [name for name in RUNS if known["runs"].get(name) != found["runs"][name]]
    for name in RUNS:
        print(f"{name}: {'DIFFERS' if name in differ else 'equal'}")
    return 1 if differ else 0


if __name__ == "__main__":
    raise SystemExit(main())

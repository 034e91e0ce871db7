"""Measures hundreds of clients on a small machine: seconds to the first round, memory, seconds of a round.

    .venv/bin/python benchmarks/many_clients.py --root DATA [--clients 200] [--rounds 5] [--method local]

Runs the command `fedvtc run`: MNIST over Dir(0.3), two small CNNs and ResNet-8, a tenth of the clients in each round, a
checkpoint after every round. Memory is the proportional set size (PSS) of all processes of the run, including Ray's,
read twice a second. Then one thread repeats the training of each round's participants in a bare PyTorch loop. The last
round evaluates every client, so the last round does not count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from bare import BareClient, bare_model
from processes import descendants, pss_bytes

from fedvtc.config import load
from fedvtc.config.schema import Config
from fedvtc.learning.methods import config_classes
from fedvtc.learning.population import Population
from fedvtc.learning.seeding import choose_participants

CONF = Path(__file__).resolve().parents[1] / "conf"
BACKBONES = "[{name: cnn_2x16, share: 0.4}, {name: cnn_3x16, share: 0.4}, {name: resnet8, share: 0.2}]"
POLL_S = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder with MNIST")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slots", type=int, default=2, help="logical CPUs of the cluster")
    parser.add_argument("--method", default="local")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="many-", dir="/tmp") as folder:
        files = [str(CONF / "data/mnist.yaml"), str(CONF / f"method/{words.method}.yaml")]
        overrides = [
            f"data.root={words.root}",
            "data.download=false",
            "partition.alpha=0.3",
            f"population.num_clients={words.clients}",
            f"population.backbones={BACKBONES}",
            "run.participation=0.1",
            f"run.rounds={words.rounds}",
            f"run.output_dir={folder}",
            "run.name=many",
            f"evaluate.every={words.rounds}",
            f"cluster.num_cpus={words.slots}",
        ]
        config = load(files, overrides, methods=config_classes())
        start_s, peak_bytes, num_processes = watched([*files, *overrides], Path(folder, "many"))
        lines = Path(folder, "many", "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["phase"] == "round"][:-1]
    rounds_s = [record["time/round"] for record in records]
    print(f"{words.clients} clients, {words.slots} slots, {words.method}: first round begins after {start_s:.1f} s")
    print(f"memory: {peak_bytes / 1e9:.2f} GB PSS at most, {num_processes} processes")
    bare_s = bare_seconds(config, [record["round"] for record in records])
    print(f"round  {statistics.mean(rounds_s):6.2f} s (mean of {len(rounds_s)})  {rounded(rounds_s)}")
    print(f"bare   {statistics.mean(bare_s):6.2f} s of training, on one thread  {rounded(bare_s)}")
    ratio = words.slots * sum(rounds_s) / sum(bare_s)
    print(f"ratio  {ratio:6.2f}  slots x round / bare: 1 if {words.slots} slots did nothing but train")


def watched(words: list[str], run: Path) -> tuple[float, int, int]:
    """Runs the command; returns seconds to the first round, peak PSS in bytes, and the number of processes then."""
    began_s, start_s, peak = time.time(), 0.0, (0, 0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "fedvtc", "run", *words, "--plain"], env=environment)
    while process.poll() is None:
        sizes = [pss_bytes(pid) for pid in descendants(process.pid)]
        peak = max(peak, (sum(sizes), len(sizes)))
        metrics = run / "metrics.jsonl"
        if not start_s and metrics.exists() and (text := metrics.read_text()).endswith("\n"):
            start_s = metrics.stat().st_mtime - json.loads(text.splitlines()[0])["time/round"] - began_s
        time.sleep(POLL_S)
    if process.returncode:
        raise SystemExit(process.returncode)
    return start_s, *peak


def bare_seconds(config: Config, rounds: list[int]) -> list[float]:
    """Seconds of pure training of each round's participants, one after another."""
    torch.set_num_threads(1)
    population = Population.of(config)
    clients = {}
    seconds = []
    for round in rounds:
        participants = choose_participants(
            config.run.seed, round=round, num_clients=len(population.specs), participation=config.run.participation
        )
        for client in np.setdiff1d(participants, list(clients)):
            spec = population.specs[client]
            model = bare_model(spec.backbone, config, population.dataset)
            clients[client] = BareClient(spec, config, population.dataset, model)
        began_s = time.perf_counter()
        for client in participants:
            clients[client].train()
        seconds.append(time.perf_counter() - began_s)
    return seconds


def rounded(seconds: list[float]) -> list[float]:
    return [round(value, 2) for value in seconds]


if __name__ == "__main__":
    main()

"""Measures hundreds of clients on a small machine: seconds to the first round, memory, seconds of a round.

    .venv/bin/python benchmarks/many_clients.py [--root DATA] [--clients 200] [--rounds 5] [KEY=VALUE ...]

Runs the command `fedvtc run`: MNIST over Dir(0.3), two small CNNs and ResNet-8, a tenth of the clients in each round, a
checkpoint after every round. Without a folder with MNIST, the images are noise of the same shape, which takes the same
time. Memory is the proportional set size (PSS) of all processes of the run, including Ray's, read every two seconds.
Then one thread repeats the training of each round's participants in a bare PyTorch loop, on one warm model for each
backbone. The run is ended after its rounds, before the evaluation of every client.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from bare import BareClient, bare_model
from watching import watched

from fedvtc.config import load
from fedvtc.config.schema import Config
from fedvtc.learning.methods import config_classes
from fedvtc.learning.population import Population
from fedvtc.learning.seeding import choose_participants

CONF = Path(__file__).resolve().parents[1] / "conf"
MANY_ROUNDS = 1_000_000
BACKBONES = "[{name: cnn_2x16, share: 0.4}, {name: cnn_3x16, share: 0.4}, {name: resnet8, share: 0.2}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder with MNIST")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slots", type=int, default=2, help="logical CPUs of the cluster")
    parser.add_argument("--method", default="local")
    parser.add_argument("--population", help="a file of conf/population/")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="more config keys")
    words = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory(prefix="many-", dir="/tmp") as folder:
        files = [str(CONF / f"method/{words.method}.yaml")]
        if words.population:
            files.append(str(CONF / f"population/{words.population}.yaml"))
        overrides = [
            "partition.kind=dirichlet",
            "partition.alpha=0.3",
            f"population.num_clients={words.clients}",
            *([] if words.population else [f"population.backbones={BACKBONES}"]),
            "run.participation=0.1",
            f"run.rounds={MANY_ROUNDS}",
            f"run.output_dir={folder}",
            "run.name=many",
            f"evaluate.every={MANY_ROUNDS}",
            f"cluster.num_cpus={words.slots}",
            *images(words.root, Path(folder)),
            *words.overrides,
        ]
        config = load(files, overrides, methods=config_classes())
        found = watched([*files, *overrides], Path(folder, "many"), words.rounds)
        print(f"{words.clients} clients, {words.slots} slots, {words.method}: first round after {found.start_s:.1f} s")
        print(f"memory: {found.peak_bytes / 1e9:.2f} GB PSS at most, {found.num_processes} processes")
        by_round = {rounds: round(num_bytes / 1e9, 2) for rounds, (num_bytes, _) in found.samples.items()}
        print(f"memory without mapped files by completed rounds: {by_round}")
        records = found.records[: words.rounds]
        rounds_s = [record["time/round"] for record in records]
        print(f"round  {statistics.mean(rounds_s):6.2f} s (mean of {len(rounds_s)})  {rounded(rounds_s)}")
        cpu_s = [record["cpu/client"] for record in records]
        print(f"client {statistics.mean(cpu_s):6.2f} CPU s of all clients' steps  {rounded(cpu_s)}")
        bare = bare_seconds(config, [record["round"] for record in records])
    for what, seconds, mine in zip(("wall", "CPU"), zip(*bare, strict=True), (rounds_s, cpu_s), strict=True):
        print(f"bare   {statistics.mean(seconds):6.2f} {what} s of training, on one thread  {rounded(seconds)}")
        slots = words.slots if what == "wall" else 1
        print(f"ratio  {slots * sum(mine) / sum(seconds):6.2f}  {slots} x {what} / bare")


def images(root: str | None, folder: Path) -> list[str]:
    """The config keys of MNIST, or of noise of the same shape with few test images."""
    if root:
        return ["data.name=mnist", f"data.root={root}", "data.download=false"]
    rng = np.random.default_rng(0)
    arrays = {}
    for part, num_images in (("train", 60_000), ("test", 100)):
        arrays[f"x_{part}"] = rng.integers(256, size=(num_images, 28, 28), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(num_images) % 10
    np.savez(folder / "noise.npz", **arrays)
    return ["data.name=npz", f"data.path={folder / 'noise.npz'}"]


def bare_seconds(config: Config, rounds: list[int]) -> list[tuple[float, float]]:
    """Wall and CPU seconds of pure training of each round's participants, one after another."""
    torch.set_num_threads(1)
    population = Population.of(config)
    specs, models = population.specs, {}
    seconds = []
    for round in rounds:
        participants = choose_participants(
            config.run.seed, round=round, num_clients=len(specs), participation=config.run.participation
        )
        clients = []
        for client in participants:
            name = specs[client].backbone
            if name not in models:
                models[name] = BareClient(
                    specs[client], config, population.dataset, bare_model(name, config, population.dataset)
                )
                models[name].train()
            clients.append(BareClient(specs[client], config, population.dataset, models[name].model))
            clients[-1].optimizer = models[name].optimizer
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        for client in clients:
            client.train()
        seconds.append((time.perf_counter() - began_s, time.process_time() - began_cpu_s))
    return seconds


def rounded(seconds: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in seconds]


if __name__ == "__main__":
    main()

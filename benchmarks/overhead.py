"""Measures the overhead of a round: clients inline and in Ray actors, against a bare PyTorch loop over the same steps.

    .venv/bin/python benchmarks/overhead.py [--root DATA] [--rounds 9] [--engines bare inline ray] [KEY=VALUE ...]
    .venv/bin/python benchmarks/overhead.py --actors 2 --engines bare one ray

FedAvg: 100 clients of 600 MNIST images, 20 clients a round, cnn_2x8, one epoch of SGD in batches of 32, one thread, one
actor. Small models show the overhead of an engine, which the arithmetic of larger models hides. The rounds of all
engines alternate, and each engine is divided by the bare loop of the same pass, so that other work on the machine
disturbs all equally. The bare loop has a process of its own, with the settings that PyTorch finds. CPU seconds are
those of this process and of its descendants, Ray's daemons among them. Without MNIST in the folder, the images are
noise of the same shape, which takes the same time. All clients are built before.

`one` is a second pool of Ray with one actor, beside which the actors of `ray` are as many times faster as is printed.
With two actors or more, the same number of processes also run the bare loop at once, each a whole round: as many times
faster than one process as all are together, actors can be at most. The bound of a makespan divides the seconds of all
clients evenly among the actors.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from operator import truediv
from pathlib import Path

import numpy as np
import torch
from bare import BareClient, bare_model
from processes import cpu_seconds

from fedvtc.config import load
from fedvtc.config.schema import Config
from fedvtc.errors import DataError
from fedvtc.learning.data import Dataset, ImageArrays, load_dataset, make_partition
from fedvtc.learning.methods import Task, build, config_classes
from fedvtc.learning.methods.base import ServerState
from fedvtc.learning.models.optimizers import build_optimizer
from fedvtc.learning.population import ClientSpec, assign_backbones
from fedvtc.learning.seeding import choose_participants
from fedvtc.learning.server import Server
from fedvtc.runtime.device import limit_threads
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import Lineage
from fedvtc.runtime.opening import open_pool
from fedvtc.runtime.pool import Pool

CONF = Path(__file__).resolve().parents[1] / "conf"
FILES = ("data/mnist.yaml", "method/fedavg.yaml")
WORK = [
    "data.download=false",
    "population.num_clients=100",
    "population.backbones=[{name: cnn_2x8, share: 1}]",
    "partition.kind=iid",
    "partition.images_per_client=600",
    "training.optimizer.name=sgd",
    "training.optimizer.lr=0.01",
    "run.participation=0.2",
    "run.rounds=1000",
]
Round = Callable[[int], ServerState]
"""Runs a round and returns the state of the server, which has the mean models of FedAvg."""
DEFAULT = ["bare", "inline", "ray"]
ONE = "one"
AT_ONCE = "at once"
MAKESPANS: dict[str, tuple[list[float], list[float]]] = {}
"""The bounds and the makespans of all rounds, by pool."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder with data sets; default FEDVTC_DATA")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each engine, after two to warm up")
    engines_help = "bare inline ray, by default"
    parser.add_argument("--engines", nargs="+", default=DEFAULT, choices=[*DEFAULT, ONE], help=engines_help)
    parser.add_argument("--actors", type=int, default=1, help="actors of Ray")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="more config keys")
    words = parser.parse_intermixed_args()
    os.environ.setdefault("RAY_worker_niceness", "0")
    keys = [f"data.root={words.root}"] if words.root else []
    # One slot more, for the actor of `one`.
    keys += [f"cluster.num_cpus={words.actors + (ONE in words.engines)}", *words.overrides]
    config = config_of(keys)
    limit_threads(1)
    dataset = images_of(config)
    specs = specs_of(config, dataset)
    mean_images = statistics.mean(len(spec.indices_N) for spec in specs)
    print(f"{dataset.name}: {len(specs)} clients of {mean_images:.0f} images", flush=True)
    with ExitStack() as stack:
        engines: dict[str, Callable[[int], object]] = {}
        # Forked before Ray starts.
        if words.actors > 1:
            engines[AT_ONCE] = in_processes(stack, bare_engine(config, dataset, specs), words.actors)
        bare = in_processes(stack, bare_engine(config, dataset, specs))
        for name in words.engines:
            if name == "bare":
                engines[name] = bare
            else:
                own = [f"placement.pool={'ray' if name == ONE else name}"]
                own.append(f"placement.max_actors={1 if name == ONE else words.actors}")
                engines[name] = pool_engine(stack, config_of([*keys, *own]), dataset, specs, name)
        found = measured(engines, words.rounds)
    if bounded := found.pop(AT_ONCE, None):
        alone_s, together_s = (statistics.median(wall_s for _, wall_s in rounds) for rounds in (found["bare"], bounded))
        print(f"{words.actors} bare processes at once: {words.actors * alone_s / together_s:.2f} x one")
    report(found, words.engines[0])
    if {ONE, "ray"} <= found.keys():
        walls = zip(found[ONE], found["ray"], strict=True)
        ratios = [one_s / several_s for (_, one_s), (_, several_s) in walls]
        print(f"{words.actors} actors: {statistics.median(ratios):.2f} x one (median of passes)")
    for name, (bounds_s, makespans_s) in MAKESPANS.items():
        ratio = statistics.median(map(truediv, makespans_s, bounds_s))
        print(f"{name:<7}makespan {statistics.median(makespans_s):.3f} s (median), {ratio:.3f} x its bound")


def config_of(keys: Sequence[str]) -> Config:
    return load([CONF / name for name in FILES], [*WORK, *keys], methods=config_classes())


def images_of(config: Config) -> Dataset:
    try:
        return load_dataset(config.data)
    except DataError as error:
        print(f"{error} Training on noise of the same shape instead.")
    rng = np.random.default_rng(0)

    def noise(num_images: int) -> ImageArrays:
        images = rng.integers(256, size=(num_images, 1, 28, 28), dtype=np.uint8)
        return ImageArrays(images, rng.integers(10, size=num_images))

    return Dataset("noise", noise(60_000), noise(1_000), 10, tuple("0123456789"))


def specs_of(config: Config, dataset: Dataset) -> list[ClientSpec]:
    labels_N, num_clients = dataset.train.labels_N, config.population.num_clients
    parts = make_partition(labels_N, dataset.num_classes, num_clients, config.partition, config.run.seed)
    backbones = assign_backbones(config.population)
    return [ClientSpec(client, *made) for client, made in enumerate(zip(backbones, parts, strict=True))]


def participants_of(config: Config, round: int) -> list[int]:
    return choose_participants(
        config.run.seed,
        round=round,
        num_clients=config.population.num_clients,
        participation=config.run.participation,
    )


def bare_engine(config: Config, dataset: Dataset, specs: Sequence[ClientSpec]) -> Round:
    """FedAvg in a loop: one model for each backbone, which the participants train one after another."""
    models = {spec.backbone: bare_model(spec.backbone, config, dataset) for spec in specs}
    means = {name: [weight.detach().clone() for weight in model.parameters()] for name, model in models.items()}
    clients = [BareClient(spec, config, dataset, models[spec.backbone]) for spec in specs]

    def run(round: int) -> ServerState:
        sums = {
            name: [torch.zeros_like(weight, dtype=torch.float64) for weight in mean] for name, mean in means.items()
        }
        counts = dict.fromkeys(means, 0)
        for client in participants_of(config, round):
            name = specs[client].backbone
            weights = [weight.detach() for weight in models[name].parameters()]
            for weight, mean in zip(weights, means[name], strict=True):
                weight.copy_(mean)
            # A client starts each round of FedAvg with a new optimizer.
            clients[client].optimizer = build_optimizer(models[name].parameters(), config.training.optimizer)
            clients[client].train()
            for total, weight in zip(sums[name], weights, strict=True):
                total.add_(weight, alpha=len(clients[client].labels))
            counts[name] += len(clients[client].labels)
        for name, num_images in counts.items():
            if num_images:
                means[name] = [(total / num_images).float() for total in sums[name]]
        return {"models": {name: dict(enumerate(mean)) for name, mean in means.items()}}

    return run


def in_processes(stack: ExitStack, engine: Round, num_processes: int = 1) -> Callable[[int], None]:
    """The same rounds in several forked processes at once, which no setting of a pool in this process reaches."""
    context = multiprocessing.get_context("fork")
    pipes = []
    for _ in range(num_processes):
        here, there = context.Pipe()
        context.Process(target=serve, args=(engine, there), daemon=True).start()
        stack.callback(here.send, None)
        pipes.append(here)

    def run(round: int) -> None:
        for pipe in pipes:
            pipe.send(round)
        for pipe in pipes:
            pipe.recv()

    return run


def serve(engine: Round, pipe: Connection) -> None:
    while (round := pipe.recv()) is not None:
        engine(round)
        pipe.send(round)


def pool_engine(
    stack: ExitStack, config: Config, dataset: Dataset, specs: Sequence[ClientSpec], name: str | None = None
) -> Round:
    """The round of `Federation` without records and checkpoints: the clients in a pool, the server's half here."""
    method = build(config.method, Task.of(config, dataset))
    incidents = Incidents(lambda text: print(text, flush=True))
    name = name or config.placement.pool
    pool: Pool = stack.enter_context(
        open_pool(config, dataset, specs, namespace=f"overhead-{name}", lineage=Lineage(), incidents=incidents)
    )
    state, broadcast = method.start()
    # Builds the clients, as those of the bare loop are built.
    for _ in pool.map(ClientHost.digest, [spec.client for spec in specs]):
        pass
    bounds_s, makespans_s = MAKESPANS.setdefault(name, ([], []))

    def run(round: int) -> ServerState:
        nonlocal state, broadcast
        seconds: list[float] = []
        results = pool.map(ClientHost.run_round, participants_of(config, round), broadcast)
        uploads = (seconds.append(upload.scalars["time/client"]) or upload for upload in results)
        state, broadcast = method.server_round(state, uploads, Server(config.run.seed, round))
        record = pool.record()
        bounds_s.append(max(sum(seconds) / record["placement/actors"], max(seconds)))
        makespans_s.append(record["time/makespan"])
        return state

    return run


def measured(engines: dict[str, Callable[[int], object]], num_rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Runs the rounds of all engines in turn; returns CPU seconds and wall seconds of each round."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    names = list(engines)
    for round in range(1, num_rounds + 3):
        # Each engine follows each other engine equally often.
        for name in names[round % len(names) :] + names[: round % len(names)]:
            began_s, began_cpu_s = time.perf_counter(), cpu_seconds()
            engines[name](round)
            found[name].append((cpu_seconds() - began_cpu_s, time.perf_counter() - began_s))
    return {name: seconds[2:] for name, seconds in found.items()}


def report(found: dict[str, list[tuple[float, float]]], reference: str) -> None:
    for place, kind in enumerate(("CPU", "wall")):
        base = [seconds[place] for seconds in found[reference]]
        for name, rounds in found.items():
            own = [seconds[place] for seconds in rounds]
            ratios = [mine / other for mine, other in zip(own, base, strict=True)]
            print(
                f"{name:<7}{kind:<5}{statistics.median(own):.3f} s a round (median), {statistics.median(ratios):.3f} x "
                f"{reference} (median of passes; {min(ratios):.3f} to {max(ratios):.3f})"
            )


if __name__ == "__main__":
    main()

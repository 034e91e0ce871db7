"""Measures the engine alone: rounds whose clients train nothing and upload statistics of 10 classes x 512 features.

    .venv/bin/python benchmarks/engine.py [--clients 100 1000] [--pools inline ray] [--rounds 7] [--actors 1]
        [--generator-bytes 2000000]

Every client takes part in every round. Reports milliseconds a client of a round, the least and the median of the
rounds, in wall time and in CPU time of this process and its descendants; and the peak memory of the coordinator.
The first round, which builds the clients, is reported alone.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from processes import cpu_seconds

from fedvtc.config import load
from fedvtc.config.schema import MethodConfig
from fedvtc.learning.data import Dataset, ImageArrays
from fedvtc.learning.exchange.messages import Broadcast, Upload, WeightedMean
from fedvtc.learning.methods import Task, build, config_classes
from fedvtc.learning.methods.base import Method, ServerState
from fedvtc.learning.peak_memory import peak_memory_bytes
from fedvtc.learning.population import ClientSpec
from fedvtc.learning.server import Server
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import Lineage
from fedvtc.runtime.opening import open_pool

CONF = Path(__file__).resolve().parents[1] / "conf"
CLASSES, FEATURES = 10, 512
GENERATOR_BYTES = "ENGINE_GENERATOR_BYTES"
"""Variable for the actors: bytes of the weights that a client uploads and receives beside the statistics."""


class NoTraining(Method[MethodConfig]):
    """Uploads constant statistics and a generator, and broadcasts their means."""

    def client_round(self, client, broadcast):
        values = {"mean": np.full((CLASSES, FEATURES), client.id, dtype=np.float32)}
        if num_bytes := int(os.environ.get(GENERATOR_BYTES, "0")):
            values["generator"] = np.full(num_bytes // 4, client.id, dtype=np.float32)
        return Upload(client.id, client.round, client.num_images, {"statistics": values})

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        mean = WeightedMean()
        for upload in uploads:
            mean.add(upload.payload["statistics"], upload.num_images)
        return state, Broadcast(server.round, {"statistics": mean.value()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--pools", nargs="+", default=["inline", "ray"], choices=["inline", "ray"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--generator-bytes", type=int, default=0, help="bytes of weights beside the statistics")
    words = parser.parse_args()
    os.environ[GENERATOR_BYTES] = str(words.generator_bytes)
    os.environ.setdefault("RAY_worker_niceness", "0")
    # A process for each row, because the peak memory of a process never falls.
    spawn = multiprocessing.get_context("spawn")
    for num_clients in words.clients:
        for pool in words.pools:
            row = spawn.Process(target=measure, args=(num_clients, pool, words.rounds, words.actors))
            row.start()
            row.join()


def measure(num_clients: int, pool_name: str, num_rounds: int, num_actors: int) -> None:
    overrides = [
        f"placement.pool={pool_name}",
        f"cluster.num_cpus={num_actors}",
        f"population.num_clients={num_clients}",
        "population.backbones=[{name: cnn_2x8, share: 1}]",
        f"population.feature_size={FEATURES}",
        "method.name=engine:NoTraining",
    ]
    config = load([], overrides, methods=config_classes())
    labels_N = np.arange(num_clients) % CLASSES
    pixels = np.random.default_rng(0).integers(256, size=(num_clients, 1, 8, 8), dtype=np.uint8)
    images = ImageArrays(pixels, labels_N)
    dataset = Dataset("noise", images, images, CLASSES, tuple("0123456789"))
    specs = [ClientSpec(client, "cnn_2x8", np.array([client])) for client in range(num_clients)]
    method = build(config.method, Task.of(config, dataset))
    clients, (state, broadcast) = list(range(num_clients)), method.start()
    seconds = []
    incidents, lineage = Incidents(lambda text: None), Lineage()
    with open_pool(config, dataset, specs, namespace="engine", lineage=lineage, incidents=incidents) as pool:
        for round in range(1, num_rounds + 2):
            began_s, began_cpu_s = time.perf_counter(), cpu_seconds()
            uploads = pool.map(ClientHost.run_round, clients, broadcast)
            state, broadcast = method.server_round(state, uploads, Server(0, round))
            seconds.append((time.perf_counter() - began_s, cpu_seconds() - began_cpu_s))
    first, *others = [(1e3 * wall_s / num_clients, 1e3 * cpu_s / num_clients) for wall_s, cpu_s in seconds]
    walls, cpus = zip(*others, strict=True)
    print(
        f"{num_clients:>6} clients, {pool_name:<6}: wall {min(walls):.3f} ms a client (median"
        f" {statistics.median(walls):.3f}), CPU {min(cpus):.3f} (median {statistics.median(cpus):.3f}),"
        f" first round {first[0]:.2f}, coordinator {peak_memory_bytes() / 1e9:.2f} GB",
        flush=True,
    )


if __name__ == "__main__":
    main()

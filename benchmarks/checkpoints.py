"""Measures the cost of checkpoints: rounds without checkpoints, with asynchronous and with synchronous ones.

    .venv/bin/python benchmarks/checkpoints.py [--clients 50] [--images 64] [--rounds 3] [--backbone resnet18]

Clients of one backbone train on noise of MNIST's shape, one epoch of Adam in batches of 32, in Ray actors on this
machine. Blocks of rounds alternate, such as none, async, none. Each round of a block with checkpoints starts with the
checkpoint of the round before, and the block ends when its last checkpoint is complete, so that all writing counts.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedvtc.config import load
from fedvtc.config.schema import Config
from fedvtc.federation.checkpointer import Checkpointer
from fedvtc.learning.data import Dataset, ImageArrays
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.methods import config_classes
from fedvtc.learning.population import ClientSpec
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import Lineage
from fedvtc.runtime.opening import open_pool
from fedvtc.runtime.pool import Pool
from fedvtc.storage.checkpoints import CheckpointStore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--images", type=int, default=64, help="images of each client")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each block")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--blocks", nargs="+", choices=("none", "async", "sync"), default=["none", "async", "none"])
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="folder for checkpoints; default a temporary folder")
    words = parser.parse_args()
    overrides = [
        "method.name=local",
        f"run.rounds={10**6}",
        f"population.num_clients={words.clients}",
        f"population.backbones=[{{name: {words.backbone}, share: 1}}]",
        f"cluster.num_cpus={words.actors}",
        "checkpoint.keep_best=false",
    ]
    config = load([], overrides, methods=config_classes())
    dataset = noise(words.clients * words.images)
    parts = np.split(np.arange(words.clients * words.images), words.clients)
    specs = [ClientSpec(client, words.backbone, part) for client, part in enumerate(parts)]
    lineage, incidents = Lineage(), Incidents(print)
    folder = Path(tempfile.mkdtemp(prefix="checkpoints-", dir=words.folder))
    try:
        with open_pool(config, dataset, specs, namespace="bench", lineage=lineage, incidents=incidents) as pool:
            store = CheckpointStore(folder)
            parts_of = (config, pool, store, lineage, incidents)
            blocks = {kind: Block(*parts_of, kind) for kind in words.blocks}
            play(pool, config, 0)  # The first round allocates the state of Adam.
            round = 1
            times_s: dict[str, list[float]] = {kind: [] for kind in words.blocks}
            for kind in words.blocks:
                times_s[kind] += blocks[kind].rounds(range(round, round + words.rounds))
                round += words.rounds
            (newest, *_) = store.manifests(print)
            num_bytes = sum(shard.num_bytes for shard in newest.shards)
    finally:
        shutil.rmtree(folder)
    print(f"{words.clients} clients, {words.backbone}, {words.images} images each, {words.actors} actors, ", end="")
    print(f"{words.rounds} rounds a block, {num_bytes / 1e9:.2f} GB a checkpoint")
    base_s = statistics.mean(times_s["none"])
    for kind, seconds in times_s.items():
        mean_s = statistics.mean(seconds)
        print(f"{kind:<5}  {mean_s:7.2f} s a round (mean)  {mean_s / base_s - 1:+.1%}  {[round_s(s) for s in seconds]}")


class Block:
    """Rounds with one kind of checkpoints."""

    def __init__(
        self, config: Config, pool: Pool, store: CheckpointStore, lineage: Lineage, incidents: Incidents, kind: str
    ) -> None:
        every = None if kind == "none" else 1
        self._config = replace(config, checkpoint=replace(config.checkpoint, every=every, async_=kind == "async"))
        self._pool = pool
        self._checkpoints = Checkpointer(self._config, store, pool, lineage, incidents, run_id="bench", attempt=1)

    def rounds(self, numbers: Sequence[int]) -> list[float]:
        """Seconds of each round with the checkpoint at its start; the last round also waits for that checkpoint."""
        seconds = []
        for round in numbers:
            began_s = time.perf_counter()
            if self._checkpoints.is_due(round - 1, is_last=False):
                self._checkpoints.save(round - 1, {}, Broadcast(round - 1), None)
            play(self._pool, self._config, round)
            if round == numbers[-1]:
                self._checkpoints.wait()
            seconds.append(time.perf_counter() - began_s)
        return seconds


def play(pool: Pool, config: Config, round: int) -> None:
    for _ in pool.map(ClientHost.run_round, range(config.population.num_clients), Broadcast(round)):
        pass


def noise(num_images: int) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(num_images, 1, 28, 28), dtype=np.uint8)
    arrays = ImageArrays(images, rng.integers(10, size=num_images))
    return Dataset("noise", arrays, arrays, 10, tuple("0123456789"))


def round_s(seconds: float) -> float:
    return round(seconds, 1)


if __name__ == "__main__":
    main()

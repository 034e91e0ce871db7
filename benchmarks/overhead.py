"""Measures the overhead of a round: clients in a pool against a bare PyTorch loop over the same steps.

    .venv/bin/python benchmarks/overhead.py [--root DATA] [--repeats 9]

Both train the four CNNs of conf/population/cnn4.yaml on 10 clients of 400 MNIST images, Dir(0.1), one epoch of Adam in
batches of 32, on one thread. Rounds of both alternate and CPU seconds are compared, so that other work on the machine
disturbs both equally. Without MNIST in the folder, the images are noise of the same shape, which takes the same time.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from fedvtc.config import load
from fedvtc.config.schema import Config
from fedvtc.errors import DataError
from fedvtc.learning.data import Dataset, ImageArrays, load_dataset, make_partition
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.methods import config_classes
from fedvtc.learning.models import build_backbone
from fedvtc.learning.population import ClientSpec, assign_backbones
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.inline_pool import InlinePool
from fedvtc.runtime.pool import Pool

CONF = Path(__file__).resolve().parents[1] / "conf"
FILES = ("experiment/mnist_dir01.yaml", "method/local.yaml", "cluster/inline.yaml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder with data sets; default FEDVTC_DATA")
    parser.add_argument("--repeats", type=int, default=9, help="rounds of each kind")
    words = parser.parse_args()
    overrides = ["data.download=false", *([f"data.root={words.root}"] if words.root else [])]
    config = load([CONF / name for name in FILES], overrides, methods=config_classes())
    dataset = images_of(config)
    parts = make_partition(
        dataset.train.labels_N, dataset.num_classes, config.population.num_clients, config.partition, config.run.seed
    )
    backbones = assign_backbones(config.population)
    specs = [ClientSpec(client, *made) for client, made in enumerate(zip(backbones, parts, strict=True))]
    with InlinePool(config, dataset, specs) as pool:  # Limits this process to one thread, also in the bare loop.
        clients = [spec.client for spec in specs]
        bare = [BareClient(spec, config, dataset) for spec in specs]
        pairs = [
            compare(partial(pool_round, pool, clients, round), partial(bare_round, bare), pool_first=round % 2 == 0)
            for round in range(words.repeats + 1)
        ][1:]  # The first pair is a warm-up.
    num_steps = sum(-(-len(part) // config.training.batch_size) for part in parts)
    pool_s, bare_s = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = sorted(pool_of_pair / bare_of_pair for pool_of_pair, bare_of_pair in pairs)
    print(f"{dataset.name}: {len(specs)} clients, {num_steps} steps a round, {words.repeats} rounds of each")
    print(f"pool   {pool_s:.3f} CPU s a round (median), {1e3 * pool_s / num_steps:.2f} ms a step")
    print(f"bare   {bare_s:.3f} CPU s a round (median), {1e3 * bare_s / num_steps:.2f} ms a step")
    print(f"ratio  {pool_s / bare_s:.3f} of medians; pair by pair {statistics.median(ratios):.3f} (median), ", end="")
    print(f"{ratios[0]:.3f} (least), {ratios[-1]:.3f} (most)")


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


class BareClient:
    """A minimal training loop of one client, without fedvtc."""

    def __init__(self, spec: ClientSpec, config: Config, dataset: Dataset) -> None:
        size = config.population.feature_size
        backbone = build_backbone(
            spec.backbone, num_channels=dataset.num_channels, image_size=dataset.image_size, feature_size=size
        )
        self.model = torch.nn.Sequential(backbone, torch.nn.Linear(size, dataset.num_classes))
        # The memory layout of clients in a federation.
        self.model.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.training.optimizer.lr)
        self.images = torch.from_numpy(dataset.train.images_NCHW[spec.indices_N])
        self.labels = torch.from_numpy(dataset.train.labels_N[spec.indices_N])
        self.batch_size = config.training.batch_size

    def train(self) -> float:
        self.model.train()
        loss_sum = 0.0
        for index in torch.randperm(len(self.labels)).split(self.batch_size):
            self.optimizer.zero_grad()
            inputs = self.images[index].float() / 127.5 - 1.0
            loss = functional.cross_entropy(self.model(inputs), self.labels[index])
            loss.backward()
            self.optimizer.step()
            loss_sum += loss.item() * len(index)
        return loss_sum / len(self.labels)


def pool_round(pool: Pool, clients: list[int], round: int) -> None:
    for _ in pool.map(ClientHost.run_round, clients, Broadcast(round)):
        pass


def bare_round(clients: list[BareClient]) -> None:
    for client in clients:
        client.train()


def compare(of_pool: Callable[[], None], bare: Callable[[], None], *, pool_first: bool) -> tuple[float, float]:
    """CPU seconds of the pool's round and of the bare round."""
    if pool_first:
        pool_s = cpu_seconds(of_pool)
        return pool_s, cpu_seconds(bare)
    bare_s = cpu_seconds(bare)
    return cpu_seconds(of_pool), bare_s


def cpu_seconds(work: Callable[[], None]) -> float:
    began_s = time.process_time()
    work()
    return time.process_time() - began_s


if __name__ == "__main__":
    main()

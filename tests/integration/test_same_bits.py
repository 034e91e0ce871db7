"""One federation in one process, on one actor and on two actors gives the same bits.

All actors live in one Ray cluster of four logical CPUs; three actors start in all.
"""

import json
import math
import os
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fedvtc.config import load
from fedvtc.errors import ClientError, ClusterError
from fedvtc.federation.checkpointer import Checkpointer
from fedvtc.federation.launch import run_federation
from fedvtc.federation.rounds import Federation
from fedvtc.federation.stopper import Stopper
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.methods import config_classes
from fedvtc.learning.metrics import MEASURED
from fedvtc.learning.population import Population
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import Lineage
from fedvtc.runtime.opening import open_pool
from fedvtc.storage.checkpoints import CheckpointStore
from fedvtc.tracking import Tracker

pytestmark = pytest.mark.integration

SOURCE = Path(__file__).parents[2] / "src"
NUM_CLIENTS = 4
SETTINGS = [
    "run.rounds=3",
    "run.participation=0.75",
    "checkpoint.every=null",
    "data.augment=shift",
    "partition.alpha=0.5",
    "partition.images_per_client=40",
    f"population.num_clients={NUM_CLIENTS}",
    "population.backbones=[{name: cnn_2x8, share: 0.25}, {name: resnet8, share: 0.25},"
    " {name: vit_tiny, share: 0.25}, {name: cnn_3x16, share: 0.25}]",
    "population.feature_size=16",
    "method.name=fedvtc",
    "method.statistics.covariance=class_full",
    "method.generator.width=8",
    "method.finetune.when=both",
    "method.finetune.epochs=1",
    "method.finetune.images_per_class=8",
    "method.finetune.latents=client_mixture",
    "method.finetune.augment=affine",
    "method.finetune.real_data=mixed",
    "evaluate.every=2",
    "evaluate.samples_every=2",
]

RECIPE = [
    "run.rounds=2",
    "evaluate.samples_every=5",
    "method.upload=once",
    "method.wire=float32",
    "method.generator.training=joint",
    "method.generator.aggregation=exchange",
    "method.generator.closing_epochs=1",
    "method.finetune.when=end",
    "method.finetune.pool=10",
    "method.finetune.averaging=0.9",
    "method.finetune.sharpening=4",
    "method.finetune.real_data=balanced",
    "method.finetune.real_share=0.25",
]
"""The choices of FedVTC+, beyond those of the settings."""


class Memory(Tracker):
    """A tracker that keeps all records, rows and samples of a run, without measured times and memory."""

    def __init__(self):
        self.records, self.rows, self.samples = [], [], []

    def log(self, record, clients):
        self.records.append({key: value for key, value in record.items() if not key.startswith(MEASURED)})
        self.rows += clients

    def show_samples(self, round, images_NCHW, labels_N):
        self.samples.append((round, images_NCHW.tobytes(), list(labels_N)))


@contextmanager
def opened(config, population, namespace):
    """A context: a pool, and the other arguments of a federation; no checkpoints are written."""
    lineage, incidents = Lineage(), Incidents(print)
    with open_pool(
        config, population.dataset, population.specs, namespace=namespace, lineage=lineage, incidents=incidents
    ) as pool:
        store = CheckpointStore("checkpoints")
        checkpoints = Checkpointer(config, store, pool, lineage, incidents, run_id="same", attempt=1)
        yield pool, {"checkpoints": checkpoints, "incidents": incidents, "stopper": Stopper(print, 0.0)}


def run(*overrides, after=lambda pool: None):
    """The records, rows and samples of a run, the digests of all clients' weights, and the clients' process ids.

    `after` gets the pool at the end.
    """
    config = load([], [*SETTINGS, *overrides], methods=config_classes())
    population = Population.of(config)
    memory, everyone = Memory(), range(NUM_CLIENTS)
    with opened(config, population, "same-bits") as (pool, others):
        Federation(config, population, pool, [memory], **others).run()
        digests = list(pool.map(ClientHost.digest, everyone))
        processes = list(pool.map(ClientHost.process_id, everyone))
        after(pool)
    return (memory.records, memory.rows, memory.samples, digests), processes


@pytest.fixture(scope="module")
def inline():
    return run("placement.pool=inline")[0]


@pytest.fixture(scope="module")
def cluster(processes_below, still_running):
    """The address of a cluster that outlives the drivers of the tests; all its processes end with the cluster."""
    from ray.cluster_utils import Cluster

    before = processes_below(os.getpid())
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", ResourceWarning)  # Ray leaves log files open when it starts processes.
        patch.setenv("PYTHONPATH", str(SOURCE))  # Workers import the same code as this process.
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
        yield cluster.address
        started = {pid: name for pid, name in processes_below(os.getpid()).items() if pid not in before}
        assert {"raylet", "gcs_server"} <= set(started.values())
        cluster.shutdown()
    assert not still_running(started)


def on_actors(cluster, clients_per_actor):
    return [f"cluster.address={cluster}", "placement.pool=ray", f"placement.clients_per_actor={clients_per_actor}"]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(inline):
    assert run("placement.pool=inline")[0] == inline
    other = run("placement.pool=inline", "run.seed=1")[0]
    assert all(theirs != ours for theirs, ours in zip(other, inline, strict=True))
    records, _, samples, digests = inline
    assert [record["clients/participating"] for record in records] == [3, 3, 3, NUM_CLIENTS]
    assert [round for round, *_ in samples] == [2, 3]
    assert len(set(digests)) == NUM_CLIENTS


def test_an_actor_gives_the_same_bits_and_survives_the_error_of_a_client(inline, cluster):
    def fail(pool):
        with pytest.raises(ClientError) as raised:
            list(pool.map(ClientHost.run_round, [2], Broadcast(3, {"nothing a client knows": {}})))
        assert (raised.value.client, raised.value.round, raised.value.phase) == (2, 4, "run_round")
        survivors.update(pool.map(ClientHost.process_id, [2, 3]))

    survivors = set()
    results, processes = run(*on_actors(cluster, NUM_CLIENTS), after=fail)
    assert len(set(processes)) == 1
    assert survivors == set(processes)
    for theirs, ours in zip(results, inline, strict=True):
        assert theirs == ours


def test_two_actors_that_hand_over_a_client_in_each_round_give_the_same_bits(inline, cluster, monkeypatch):
    from fedvtc.runtime.actors import pool as ray_pool
    from fedvtc.runtime.balance import Moves

    def to_the_other(costs, actors, busy, rooms):
        # Once a round, when all three participants still wait: a second deal would move the client back.
        if len(costs) < 3:
            return Moves({}, gain=0.0)
        found = {client: 1 - index for index, clients in enumerate(actors) for client in clients if client == 1}
        return Moves(found, gain=math.inf)

    monkeypatch.setattr(ray_pool, "moves", to_the_other)
    # Two slots for four clients: auto packs them.
    results, processes = run(*on_actors(cluster, "auto"), "placement.cpus_per_actor=2")
    assert len(set(processes)) == 2
    assert results == inline


def test_the_choices_of_fedvtc_plus_give_the_same_bits_on_two_actors(cluster):
    results, processes = run(*on_actors(cluster, 2), *RECIPE)
    assert len(set(processes)) == 2
    assert results == run("placement.pool=inline", *RECIPE)[0]


def test_an_actor_takes_over_the_rounds_of_another_method(cluster, tmp_path):
    tiny = [
        *("run.rounds=2", "evaluate.every=1", "partition.alpha=0.5", "partition.images_per_client=20"),
        *("population.num_clients=2", "population.backbones=[{name: cnn_2x8, share: 1}]", "evaluate.batch_size=300"),
    ]
    fedcvae = ["method.name=fedcvae", "method.decoder.epochs=1", "method.decoder.width=4", "method.num_images=12"]

    def lines(name, *overrides, start_from=None):
        config = load(
            [], [*tiny, f"run.output_dir={tmp_path}", f"run.name={name}", *overrides], methods=config_classes()
        )
        run_federation(config, plain=True, start_from=start_from)
        records = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        return [{key: value for key, value in record.items() if not key.startswith(MEASURED)} for record in records]

    lines("local", "method.name=local", "placement.pool=inline")
    found = lines("taken", *fedcvae, *on_actors(cluster, 2), start_from=tmp_path / "local")
    assert found == lines("alone", *fedcvae, "placement.pool=inline")
    description = json.loads((tmp_path / "taken/run.json").read_text())
    assert description["attempts"][0]["started_from"]["round"] == 2


def test_images_in_shared_memory_are_read_only_and_not_copied(cluster):
    """The arrays of an actor are views of the object store."""
    import ray

    from fedvtc.runtime.actors.cluster import connected

    config = load([], [*SETTINGS, *on_actors(cluster, 1)], methods=config_classes())
    dataset = Population.of(config).dataset
    with connected(config.cluster, "arrays"):
        arrived = ray.get(ray.put(dataset))
        assert np.array_equal(arrived.train.images_NCHW, dataset.train.images_NCHW)
        assert not arrived.train.images_NCHW.flags.writeable
        assert not arrived.train.images_NCHW.flags.owndata


def test_more_actors_than_slots_are_refused(cluster, golden, keys_of):
    config = load([], [*SETTINGS, *on_actors(cluster, 1), "placement.cpus_per_actor=2"], methods=config_classes())
    population = Population.of(config)
    with (
        pytest.raises(ClusterError) as raised,
        opened(config, population, "too-many"),
    ):
        pass
    assert keys_of(raised.value) == ["placement"]
    golden(raised.value)

"""Clusters of several nodes: placement of actors, nodes that die and join, and runs that share a cluster.

The nodes are processes on this machine: a head without CPUs, and two workers. Actors follow a script, except in
the last test.
"""

import json
import re
import sys
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from scripted import ScriptedActor
from test_same_bits import SETTINGS, Memory, opened

from fedvtc.config import load
from fedvtc.errors import ClusterError
from fedvtc.federation.rounds import Federation
from fedvtc.learning.methods import config_classes
from fedvtc.learning.population import Population
from fedvtc.runtime.actors import pool as ray_pool
from fedvtc.runtime.host import ClientHost

pytestmark = pytest.mark.integration

SOURCE = Path(__file__).parents[2] / "src"
PATIENCE_S = 120
LIGHT = [
    *(word for word in SETTINGS if not word.startswith("method.")),
    "run.rounds=4",
    "run.participation=1",
    "method.name=fedproto",
    "partition.images_per_client=20",
    "population.num_clients=2",
    "population.backbones=[{name: cnn_2x8, share: 1}]",
]


@pytest.fixture(scope="module")
def cluster():
    """A cluster of a head without CPUs, a node of 3 CPUs and a node of 2 CPUs."""
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", ResourceWarning)  # Ray leaves log files open when it starts processes.
        patch.setenv("PYTHONPATH", f"{SOURCE}:{Path(__file__).parent}")  # Workers import the same code as this process.
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        cluster.of_three, cluster.of_two = cluster.add_node(num_cpus=3), cluster.add_node(num_cpus=2)
        cluster.wait_for_nodes()
        yield cluster
        cluster.shutdown()


def config_of(cluster, *overrides):
    pool = ["placement.pool=ray", f"cluster.address={cluster.address}"] if cluster else ["placement.pool=inline"]
    return load([], [*LIGHT, *pool, *overrides], methods=config_classes())


@contextmanager
def pool_of(config, namespace="nodes"):
    with opened(config, Population.of(config), namespace) as (pool, _):
        yield pool


class Watcher(Memory):
    """A tracker that calls a function once, after a given number of records and of clients."""

    def __init__(self, after, act):
        super().__init__()
        self.after, self.act, self.num_actors, self.incidents = after, act, [], []

    def client_done(self, client, num_done, num_all):
        if (len(self.records), num_done) == self.after:
            self.after = None
            self.act()

    def log(self, record, clients):
        self.num_actors.append(record.get("placement/actors"))
        super().log({key: value for key, value in record.items() if not key.startswith("incidents")}, clients)
        self.incidents += record.get("incidents", [])


def results_of(config, after=None, act=None):
    """Records, rows and digests of a run, and its watcher; `act` gets the pool."""
    population = Population.of(config)
    with opened(config, population, "nodes") as (pool, others):
        watcher = Watcher(after, lambda: act(pool))
        Federation(config, population, pool, [watcher], **others).run()
        digests = list(pool.map(ClientHost.digest, range(len(population.specs))))
    return (watcher.records, watcher.rows, digests), watcher


def until(condition):
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.1)


def nodes_of(pool):
    """The id of each actor's node, from Ray."""
    from ray._private.state import actors

    return [actors(handle.actor._actor_id.hex())["Address"]["NodeID"] for handle in pool.handles]


def test_actors_spread_over_nodes_or_are_packed(cluster, monkeypatch):
    import ray

    monkeypatch.setattr(ray_pool, "ClientActor", ScriptedActor)
    with pool_of(config_of(cluster)) as pool:
        assert set(nodes_of(pool)) == {cluster.of_three.node_id, cluster.of_two.node_id}
        located = ray.experimental.get_object_locations([pool._dataset_ref])[pool._dataset_ref]
        # One object with one copy a node: the copy of the driver's node and those of the two workers.
        assert located["object_size"] > 1797 * 64
        assert {cluster.of_three.node_id, cluster.of_two.node_id} <= set(located["node_ids"])
        assert len(located["node_ids"]) == len(set(located["node_ids"])) <= 3
    until(lambda: free_cpus(cluster) == [2.0, 3.0])
    with pool_of(config_of(cluster, "placement.nodes=pack")) as pool:
        assert len(set(nodes_of(pool))) == 1
    until(lambda: free_cpus(cluster) == [2.0, 3.0])


def free_cpus(cluster):
    """The free CPUs of the working nodes, asked for by a second driver."""
    from fedvtc.runtime.actors.cluster import connected, free_nodes

    with connected(config_of(cluster).cluster, "looks"):
        return sorted(node.num_cpus for node in free_nodes() if node.num_cpus)


def test_a_node_of_three_cpus_has_one_slot_of_two_cpus(cluster, monkeypatch):
    monkeypatch.setattr(ray_pool, "ClientActor", ScriptedActor)
    with pool_of(config_of(cluster, "placement.cpus_per_actor=2", "population.num_clients=4")) as pool:
        assert sorted(nodes_of(pool)) == sorted([cluster.of_three.node_id, cluster.of_two.node_id])
        assert list(pool.map(ClientHost.evaluate, [0, 1, 2, 3])) == [f"evaluate of {client}" for client in range(4)]
    until(lambda: free_cpus(cluster) == [2.0, 3.0])


@pytest.mark.parametrize(
    "overrides",
    [
        ["placement.cpus_per_actor=2", "population.num_clients=3", "placement.clients_per_actor=1"],
        ["placement.cpus_per_actor=4"],
        ["placement.cpus_per_actor=4", "placement.wait_timeout_s=2"],
        ["placement.accelerator=cuda"],
    ],
    ids=["actors", "node", "after a wait", "gpu"],
)
def test_actors_that_do_not_fit_are_refused_in_one_line(cluster, overrides, capfd, golden, keys_of):
    with pytest.raises(ClusterError) as raised, pool_of(config_of(cluster, *overrides)):
        pass
    assert keys_of(raised.value) == ["placement"]
    golden(raised.value)
    assert ("waiting up to 2 s for 1 slot" in capfd.readouterr().out) == ("placement.wait_timeout_s=2" in overrides)


def test_sigterm_ends_a_run_that_waits_for_slots(cluster, zygote, tmp_path):
    words = [f"cluster.address={cluster.address}", "placement.cpus_per_actor=4", "placement.wait_timeout_s=300"]
    with zygote.start("run", *LIGHT, *words, "run.name=waits", cwd=tmp_path) as process:
        try:
            assert any(line.startswith("waiting up to 300 s for") for line in process.stdout), process.stderr.read()
            process.terminate()
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, errors) == (143, "fedvtc: interrupted.\n")
    assert json.loads((tmp_path / "outputs/waits/run.json").read_text())["status"] == "interrupted"
    until(lambda: free_cpus(cluster) == [2.0, 3.0])


def test_a_run_waits_for_the_slots_of_another_run(cluster, monkeypatch):
    """Both runs live in one process that is connected already, like trials: neither run ends the other's actors."""
    from fedvtc.runtime.actors.cluster import connected

    monkeypatch.setattr(ray_pool, "ClientActor", ScriptedActor)
    whole = ["placement.cpus_per_actor=2", "placement.clients_per_actor=1", "placement.wait_timeout_s=100"]
    config = config_of(cluster, *whole)
    answers = ["evaluate of 0", "evaluate of 1"]

    def run(found, namespace):
        with pool_of(config, namespace) as pool:
            found += pool.map(ClientHost.evaluate, [0, 1])

    with connected(config.cluster, "both"):
        second = []
        with pool_of(config, "first") as pool:
            thread = threading.Thread(target=run, args=(second, "second"))
            thread.start()
            thread.join(timeout=3)
            assert thread.is_alive()
            assert list(pool.map(ClientHost.evaluate, [0, 1])) == answers
        thread.join(timeout=PATIENCE_S)
    assert second == answers


def test_nodes_that_die_and_join_change_nothing_in_the_results(cluster, monkeypatch):
    """The first run loses one of two nodes in the middle of a round; the second run gets the node as it joins."""
    inline, _ = results_of(config_of(None))
    until(lambda: free_cpus(cluster) == [2.0, 3.0])
    config = config_of(cluster, "runtime.replace_timeout_s=60")
    results, watcher = results_of(config, (1, 1), lambda _: cluster.remove_node(cluster.of_two, allow_graceful=False))
    assert results == inline
    # One loss, even if a replacement was started on the dead node before Ray noticed its death.
    (line,) = watcher.incidents
    assert re.match(r"the process of client [01] was lost \(", line)
    # The cluster now has one slot of 2 CPUs, so both clients live in one actor.
    until(lambda: free_cpus(cluster) == [3.0])

    def join(pool):
        cluster.of_two = cluster.add_node(num_cpus=2)
        until(pool._free_slots)

    # Such small clients would only move on a busy machine, where their rounds take longer than a move.
    monkeypatch.setattr(ray_pool, "MOVE_S", 0.0)
    rounds = ("run.rounds=12", "evaluate.every=12")
    config = config_of(cluster, "placement.cpus_per_actor=2", "placement.wait=min", *rounds)
    results, watcher = results_of(config, (0, 2), join)
    assert (watcher.num_actors[0], watcher.num_actors[-2]) == (1, 2)
    assert results == results_of(config_of(None, *rounds))[0]

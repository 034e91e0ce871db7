"""What a pool of actors makes of actors that die, hang or find no room, each at a chosen moment.

A cluster of two workers under a head, and actors that only follow a script, so each takes a second to start.
"""

import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))

from scripted import Fault, ScriptedActor

from fedvtc.config.operation import ClusterConfig, PlacementConfig, RuntimeConfig
from fedvtc.config.schema import Config
from fedvtc.errors import ClientError
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.population import ClientSpec
from fedvtc.runtime.actors import pool as ray_pool
from fedvtc.runtime.actors.cluster import connected
from fedvtc.runtime.actors.slots import reserved
from fedvtc.runtime.balance import Workload
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.lineage import Lineage

pytestmark = pytest.mark.integration

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU under a head without any."""
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", ResourceWarning)  # Ray leaves log files open when it starts processes.
        patch.setenv("PYTHONPATH", f"{SOURCE}:{Path(__file__).parent}")  # Its workers import what this process does.
        patch.setenv("RAY_health_check_period_ms", "1000")  # The end of a node is noticed in 5 s, not in 15.
        patch.setattr(ray_pool, "ClientActor", ScriptedActor)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        cluster.workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        yield cluster
        cluster.shutdown()


@pytest.fixture
def pool_of(cluster, tmp_path):
    """A pool over actors with these clients, with `told` of it beside."""

    @contextmanager
    def opened(hosted, script, **runtime):
        placement = PlacementConfig(clients_per_actor=max(map(len, hosted)))
        config = Config(placement=placement, runtime=RuntimeConfig(**runtime))
        specs = [[ClientSpec(client, "", np.arange(0)) for client in clients] for clients in hosted]
        told = []
        num_clients = len(hosted) * placement.clients_per_actor
        with (
            connected(ClusterConfig(address=cluster.address), "calls"),
            reserved(placement, num_clients, told.append) as (_, places),
        ):
            pool = ray_pool.RayPool(
                config,
                {**script, "folder": tmp_path},
                specs,
                places,
                Workload({client: 1.0 for clients in hosted for client in clients}),
                namespace="calls",
                lineage=Lineage(),
                incidents=Incidents(told.append),
            )
            pool.told = told
            try:
                pool.start()
                yield pool
            finally:
                pool.close()

    return opened


def log(pool, client):
    """What the actor of the client was asked, but for its start."""
    (entries,) = pool.map("log", [client])
    return [entry for entry in entries if entry[0] != "process_id"]


def test_an_actor_whose_clients_take_long_together_is_not_one_that_hangs(pool_of):
    clients = [0, 1, 2, 3, 4, 5]
    with pool_of([clients], {("evaluate", client): 1.0 for client in clients}, client_timeout_s=3.5) as pool:
        assert list(pool.map(ClientHost.evaluate, clients)) == [f"evaluate of {client}" for client in clients]
        assert pool.told == []


def test_one_that_hangs_is_replaced(pool_of):
    with (
        pool_of([[0, 1]], {("evaluate", 0): 30.0}, client_timeout_s=2.0, retries=0) as pool,
        pytest.raises(ClientError, match=r"client 0, round 0, evaluate: lost its process 1 times.*nothing came"),
    ):
        list(pool.map(ClientHost.evaluate, [0, 1]))


def test_what_was_held_is_held_again_where_its_actor_is_lost(pool_of):
    with pool_of([[0, 1, 2]], {("hold", 1): Fault("death")}) as pool:
        assert len(list(pool.map(ClientHost.hold, [0, 1, 2]))) == 3
        entries = log(pool, 0)
    assert entries[:3] == [("rebuild", client, 0) for client in (0, 1, 2)]
    assert sorted(entries[3:]) == [("hold", client) for client in (0, 1, 2)]


def test_who_was_left_out_is_not_built_again_as_one_that_took_part(pool_of):
    # The answer of client 0 is waited for first, so both losses are noticed before those of 1 and 3 are taken.
    script = {("finish", 0): 6.0, ("finish", 1): Fault("death"), ("finish", 3): Fault("death")}
    with pool_of([[0, 2], [1, 3]], script, on_client_error="skip", retries=0) as pool:
        results = list(pool.map(ClientHost.finish, [0, 1, 2, 3], Broadcast(4)))
        assert [isinstance(result, ClientError) for result in results] == [False, True, False, True]
        assert pool.lineage.changed_since(0) == {0, 2}
        assert log(pool, 1) == [("rebuild", 1, 0), ("rebuild", 3, 0)]


def test_the_client_that_was_at_work_is_the_one_that_is_named(pool_of):
    # Clients stand in an actor in the order in which they came, and work in their own.
    with (
        pool_of([[1, 5, 3]], {("evaluate", 3): Fault("death")}, retries=0) as pool,
        pytest.raises(ClientError, match=r"^client 3, round 0, evaluate: lost its process"),
    ):
        list(pool.map(ClientHost.evaluate, [1, 3, 5]))


def test_a_client_without_memory_gets_a_new_actor(pool_of):
    with pool_of([[0, 1]], {("finish", 1): Fault("memory")}) as pool:
        assert list(pool.map(ClientHost.finish, [0, 1], Broadcast())) == ["finish of 0", "finish of 1"]
        assert pool.told == [
            "the process of clients 0, 1 was lost (client 1, round 1, finish: MemoryError); building anew"
        ]
        assert log(pool, 0) == [("rebuild", 0, 1), ("rebuild", 1, 0), ("finish", 1)]


def test_one_that_has_no_memory_as_it_is_built_again_takes_its_step_once_it_is(pool_of):
    script = {("finish", 1): Fault("death"), ("rebuild", 1): Fault("memory")}
    with pool_of([[0, 1]], script) as pool:
        assert list(pool.map(ClientHost.finish, [0, 1], Broadcast())) == ["finish of 0", "finish of 1"]
        assert pool.lineage.changed_since(0) == {0, 1}
        assert log(pool, 0) == [("rebuild", 0, 1), ("rebuild", 1, 0), ("finish", 1)]


@pytest.mark.parametrize("way", ["death", "memory"])
def test_one_that_can_never_be_built_again_ends_the_run(pool_of, way):
    # Client 2 takes no part; client 1 is left out, so nobody waits any more for an actor that is lost again and again.
    script = {("finish", 1): Fault("death", 2), ("rebuild", 2): Fault(way, 9)}
    with (
        pool_of([[1, 2]], script, on_client_error="skip", retries=1) as pool,
        pytest.raises(ClientError, match=r"^client 2, round 1, finish: lost its process 2 times, at last because"),
    ):
        list(pool.map(ClientHost.finish, [1], Broadcast()))


def test_clients_move_where_their_node_dies_though_some_have_answered(cluster, pool_of):
    """The last test, for the node does not come back."""
    # Client 1 has answered, and is asked for while its new actor still waits for room.
    script = {("evaluate", 0): 10.0, ("evaluate", 3): 3.0}
    with pool_of([[0, 2], [1, 3]], script, replace_timeout_s=8.0) as pool:
        (node_id,) = pool.map("node", [1])
        (node,) = (node for node in cluster.workers if node.node_id == node_id)
        end = threading.Timer(1.5, cluster.remove_node, [node, False])
        end.start()
        assert list(pool.map(ClientHost.evaluate, [0, 1, 2, 3])) == [f"evaluate of {client}" for client in (0, 1, 2, 3)]
        end.join()
        assert [line.partition(" was lost")[0] for line in pool.told] == ["the process of clients 1, 3"]
        assert len({pool.home_of(client) for client in (0, 1, 2, 3)}) == 1

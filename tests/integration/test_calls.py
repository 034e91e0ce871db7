"""Pools whose actors die, hang or lack a slot at a chosen moment.

The cluster has a head and two workers; the actors only follow a script, so that each starts within a second.
"""

import sys
import threading
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

sys.path.append(str(Path(__file__).parent))

import scripted
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
    """A cluster of a head without CPUs and two nodes of one CPU."""
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", ResourceWarning)  # Ray leaves log files open when it starts processes.
        patch.setenv("PYTHONPATH", f"{SOURCE}:{Path(__file__).parent}")  # Workers import the same code as this process.
        patch.setenv("RAY_health_check_period_ms", "1000")  # Ray notices the death of a node after 5 s, not after 15 s.
        patch.setattr(ray_pool, "ClientActor", ScriptedActor)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        cluster.workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        yield cluster
        cluster.shutdown()


@pytest.fixture
def pool_of(cluster, tmp_path):
    """A context: a pool over actors with the given clients; `pool.printed` holds its incidents."""

    @contextmanager
    def opened(hosted, script, **runtime):
        placement = PlacementConfig(clients_per_actor=max(map(len, hosted)))
        config = Config(placement=placement, runtime=RuntimeConfig(**runtime))
        specs = [[ClientSpec(client, "", np.arange(0)) for client in clients] for clients in hosted]
        printed = []
        num_clients = len(hosted) * placement.clients_per_actor
        with (
            connected(ClusterConfig(address=cluster.address), "calls"),
            reserved(placement, num_clients, printed.append) as (_, slots),
        ):
            pool = ray_pool.RayPool(
                config,
                {**script, "folder": tmp_path},
                specs,
                slots,
                workload_of(dict.fromkeys((client for clients in hosted for client in clients), 1.0)),
                namespace="calls",
                lineage=Lineage(),
                incidents=Incidents(printed.append),
            )
            pool.printed = printed
            try:
                pool.check()
                yield pool
            finally:
                pool.close()

    return opened


def workload_of(estimates):
    return Workload(estimates, dict.fromkeys(estimates, "cnn"))


def calls_of(pool, client):
    """The calls that the client's actor received, without those of its start."""
    (entries,) = pool.map(scripted.log, [client])
    return [entry for entry in entries if entry[0] != "process_id"]


@pytest.mark.parametrize("clients_per_actor", [1, "auto"])
def test_slots_that_come_free_a_moment_later_are_taken(cluster, clients_per_actor):
    """Ray still reports as used what a run that has just ended gave back."""
    with connected(ClusterConfig(address=cluster.address), "given-back"):
        ended = placement_group([{"CPU": 1}])
        assert ended.wait(30)
        giving_back = threading.Timer(0.5, remove_placement_group, [ended])
        giving_back.start()
        try:
            with reserved(PlacementConfig(clients_per_actor=clients_per_actor), 2, print) as (packing, _):
                assert packing.num_actors == 2
        finally:
            giving_back.join()


def test_a_task_is_one_call_for_all_clients_of_an_actor(pool_of, monkeypatch):
    puts = []
    with pool_of([[0, 1, 2, 3]], {}) as pool:
        (before,) = pool.map(scripted.num_runs, [0])
        monkeypatch.setattr(ray, "put", lambda value, put=ray.put: puts.append(value) or put(value))
        results = list(pool.map(ClientHost.evaluate, [0, 1, 3], "broadcast"))
        assert results == ["evaluate of 0", "evaluate of 1", "evaluate of 3"]
        (after,) = pool.map(scripted.num_runs, [0])
    assert after - before == 2
    assert puts == ["broadcast"]


def test_a_check_asks_one_client_of_each_actor(pool_of):
    with pool_of([[0, 1, 2], [3, 4]], {}) as pool:
        pool.check()
        logs = list(pool.map(scripted.log, [0, 3]))
    assert logs == [[("process_id", 0)] * 2, [("process_id", 3)] * 2]


def worked(pool, *clients):
    """Records a round of the clients in the lineage."""
    pool.lineage.begin(ClientHost.run_round, 1, ray.put(Broadcast())).clients.update(clients)


def names(pool, clients):
    return [upload.client for upload in pool.map(ClientHost.run_round, clients, Broadcast(1))]


def test_participants_of_a_round_are_spread_evenly_by_handing_over_their_states(pool_of):
    """Clients 0 to 4 take part and take a second each, four of them on one actor."""
    with pool_of([[0, 1, 2, 3], [4, 5]], {("run_round", client): 1.0 for client in range(5)}) as pool:
        pool.config = replace(pool.config, placement=PlacementConfig())
        worked(pool, 0, 2, 3)
        assert names(pool, [0, 1, 2, 3, 4]) == [0, 1, 2, 3, 4]
        assert sorted(len({0, 1, 2, 3, 4}.intersection(handle.clients)) for handle in pool.handles) == [2, 3]
        given, forgotten = calls_of(pool, 2), calls_of(pool, 4)
        assert ("give", 0) in given
        # No actor waits for a state before it has worked on its other clients.
        assert forgotten.index(("take", 0, b"state")) == forgotten.index(("run_round", 0)) - 1
        assert forgotten[0] == ("run_round", 4)
        assert pool.printed == []


def test_a_move_must_pay(pool_of):
    with pool_of([[0, 1, 2, 3], [4, 5]], {}) as pool:
        pool.config = replace(pool.config, placement=PlacementConfig())
        pool._workload = workload_of(dict.fromkeys(range(6), ray_pool.MOVE_S / 2))
        assert names(pool, [0, 1]) == [0, 1]
        assert [handle.clients for handle in pool.handles] == [[0, 1, 2, 3], [4, 5]]


def test_an_actor_that_is_done_takes_over_clients_of_a_late_one(pool_of):
    """All clients should take equally long, but those of the first actor take a second each."""
    script = {("run_round", client): 1.0 for client in (0, 1, 2, 3)}
    with pool_of([[0, 1, 2, 3], [4, 5, 6, 7]], script) as pool:
        pool.config = replace(pool.config, placement=PlacementConfig())
        worked(pool, *range(8))
        assert names(pool, list(range(8))) == list(range(8))
        assert len(pool.handles[0].clients) < 4
        assert pool.lineage.changed_since(1) == set(range(8))
        assert pool.printed == []


@pytest.mark.parametrize("task", ["give", "take"])
def test_a_client_whose_actor_is_lost_on_a_move_is_rebuilt_from_its_history(pool_of, task):
    # The first actor works on client 1 until client 0 has moved.
    with pool_of([[0, 1], [2]], {(task, 0): Fault("kill"), ("run_round", 1): 3.0}) as pool:
        pool.config = replace(pool.config, placement=PlacementConfig())
        worked(pool, 0)
        pool._workload = workload_of({0: 1.0, 1: 2.0, 2: 1.0})
        assert names(pool, [0, 1, 2]) == [0, 1, 2]
        assert ("rebuild", 0, 1) in calls_of(pool, 0)
        assert len(pool.printed) == 1


@pytest.mark.parametrize("task", ["run_round", "give", "take"])
def test_a_round_in_which_an_actor_is_lost_completes_every_client_once(pool_of, task):
    clients = list(range(8))
    # The first actor works on client 1 until a client has moved.
    faults = {(task, client): Fault("kill") for client in ((1,) if task == "run_round" else (0, 1, 2, 3, 4))}
    script = {("run_round", 1): 3.0} | faults
    with pool_of([[0, 1, 2, 3, 4], [5, 6, 7]], script, retries=9) as pool:
        pool.config = replace(pool.config, placement=PlacementConfig())
        worked(pool, *clients)
        assert names(pool, clients) == clients
        assert pool.lineage.changed_since(1) == set(clients)
        assert len(pool.printed) >= 1


def test_a_checkpoint_is_few_calls_of_each_actor(pool_of, monkeypatch):
    clients = list(range(20))
    with pool_of([clients[::2], clients[1::2]], {}) as pool:
        saved = [future.result() for future in pool.save(clients[:17], "store", "draft")]
        assert saved == [
            [("store", "draft", client) for client in group] for group in (clients[:17:2], clients[1:17:2])
        ]
        monkeypatch.setattr(ray_pool, "CLIENTS_PER_SAVE", 3)
        saved = [future.result() for future in pool.save(clients[:8], "store", "draft")]
    assert [[client for _, _, client in group] for group in saved] == [[0, 2, 4], [6], [1, 3, 5], [7]]


def test_an_actor_that_makes_slow_progress_does_not_count_as_hanging(pool_of):
    clients = [0, 1, 2, 3, 4, 5]
    with pool_of([clients], {("evaluate", client): 1.0 for client in clients}, client_timeout_s=3.5) as pool:
        assert list(pool.map(ClientHost.evaluate, clients)) == [f"evaluate of {client}" for client in clients]
        assert pool.printed == []


def test_an_actor_that_hangs_is_replaced(pool_of, golden):
    with (
        pool_of([[0, 1]], {("evaluate", 0): 30.0}, client_timeout_s=2.0, retries=0) as pool,
        pytest.raises(ClientError) as raised,
    ):
        list(pool.map(ClientHost.evaluate, [0, 1]))
    assert (raised.value.client, raised.value.round, raised.value.phase) == (0, 0, "evaluate")
    golden(raised.value)


def test_states_of_a_lost_actor_are_held_again(pool_of):
    with pool_of([[0, 1, 2]], {("hold", 1): Fault("death")}) as pool:
        assert len(list(pool.map(ClientHost.hold, [0, 1, 2]))) == 3
        entries = calls_of(pool, 0)
    assert entries[:3] == [("rebuild", client, 0) for client in (0, 1, 2)]
    assert sorted(entries[3:]) == [("hold", client) for client in (0, 1, 2)]


def test_the_rebuild_of_a_skipped_client_leaves_out_the_skipped_step(pool_of):
    # The answer of client 0 arrives last, so both losses are noticed before the results of clients 1 and 3 are taken.
    script = {("finish", 0): 6.0, ("finish", 1): Fault("death"), ("finish", 3): Fault("death")}
    with pool_of([[0, 2], [1, 3]], script, on_client_error="skip", retries=0) as pool:
        results = list(pool.map(ClientHost.finish, [0, 1, 2, 3], Broadcast(4)))
        assert [isinstance(result, ClientError) for result in results] == [False, True, False, True]
        assert pool.lineage.changed_since(0) == {0, 2}
        assert calls_of(pool, 1) == [("rebuild", 1, 0), ("rebuild", 3, 0)]


def test_the_error_names_the_client_that_was_at_work(pool_of):
    # The actor lists its clients in another order than that of the calls.
    with (
        pool_of([[1, 5, 3]], {("evaluate", 3): Fault("death")}, retries=0) as pool,
        pytest.raises(ClientError) as raised,
    ):
        list(pool.map(ClientHost.evaluate, [1, 3, 5]))
    assert (raised.value.client, raised.value.round, raised.value.phase) == (3, 0, "evaluate")


def test_a_client_without_memory_gets_a_new_actor(pool_of, golden):
    with pool_of([[0, 1]], {("finish", 1): Fault("memory")}) as pool:
        assert list(pool.map(ClientHost.finish, [0, 1], Broadcast())) == ["finish of 0", "finish of 1"]
        (line,) = pool.printed
        golden(line)
        assert calls_of(pool, 0) == [("rebuild", 0, 1), ("rebuild", 1, 0), ("finish", 1)]


def test_a_client_whose_rebuild_runs_out_of_memory_takes_its_step_after_the_next_rebuild(pool_of):
    script = {("finish", 1): Fault("death"), ("rebuild", 1): Fault("memory")}
    with pool_of([[0, 1]], script) as pool:
        assert list(pool.map(ClientHost.finish, [0, 1], Broadcast())) == ["finish of 0", "finish of 1"]
        assert pool.lineage.changed_since(0) == {0, 1}
        assert calls_of(pool, 0) == [("rebuild", 0, 1), ("rebuild", 1, 0), ("finish", 1)]


@pytest.mark.parametrize("way", ["death", "memory"])
def test_a_client_that_cannot_be_rebuilt_ends_the_run(pool_of, golden, way):
    # Client 2 takes no part and client 1 is skipped, so no result is open while the actor is lost again and again.
    script = {("finish", 1): Fault("death", 2), ("rebuild", 2): Fault(way, 9)}
    with (
        pool_of([[1, 2]], script, on_client_error="skip", retries=1) as pool,
        pytest.raises(ClientError) as raised,
    ):
        list(pool.map(ClientHost.finish, [1], Broadcast()))
    assert (raised.value.client, raised.value.round, raised.value.phase) == (2, 1, "finish")
    golden(raised.value)


def test_a_loss_during_a_rebuild_counts_for_the_client_that_is_rebuilt(pool_of):
    # After the first loss, the task of client 1 waits in the new actor behind the rebuild of client 2.
    script = {("finish", 1): Fault("death"), ("rebuild", 2): Fault("death", 9)}
    with pool_of([[1, 2]], script, retries=1) as pool, pytest.raises(ClientError) as raised:
        list(pool.map(ClientHost.finish, [1], Broadcast()))
    assert (raised.value.client, raised.value.round, raised.value.phase) == (2, 1, "finish")


def test_clients_of_a_dead_node_move_also_those_that_have_answered(cluster, pool_of):
    """The last test, because the node does not come back."""
    # Client 1 has answered, and its result is taken while its new actor still waits for a slot.
    script = {("evaluate", 0): 10.0, ("evaluate", 3): 3.0}
    with pool_of([[0, 2], [1, 3]], script, replace_timeout_s=8.0) as pool:
        (node_id,) = pool.map(scripted.node, [1])
        (node,) = (node for node in cluster.workers if node.node_id == node_id)
        end = threading.Timer(1.5, cluster.remove_node, [node, False])
        end.start()
        assert list(pool.map(ClientHost.evaluate, [0, 1, 2, 3])) == [f"evaluate of {client}" for client in (0, 1, 2, 3)]
        end.join()
        assert [line.partition(" was lost")[0] for line in pool.printed] == ["the process of clients 1, 3"]
        assert len({pool.handle_of(client) for client in (0, 1, 2, 3)}) == 1

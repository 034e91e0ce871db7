"""What trials ask a cluster for; none is started."""

from dataclasses import replace

import pytest

from fedvtc.commands.sweep.resources import HEAD, bundles, described
from fedvtc.config import Config
from fedvtc.errors import ClusterError
from fedvtc.runtime.placement import Resources

EIGHT = [Resources(4.0), Resources(4.0)]
NONE = [Resources(0.0), Resources(0.0)]


def config(num_clients=10, **placement):
    default = Config()
    return replace(
        default,
        placement=replace(default.placement, **placement),
        population=replace(default.population, num_clients=num_clients),
    )


def num_actors(free, total, num_at_once=1, **given):
    _, (head, *actors) = bundles(config(**given), free, total, num_at_once)
    assert head == HEAD
    return len(actors)


@pytest.mark.parametrize(
    ("num_at_once", "num_expected"),
    [(1, 8), (2, 4), (3, 2), (8, 1), (100, 1)],
)
def test_slots_are_shared_out_among_the_trials_that_run_at_a_time(num_at_once, num_expected):
    found = bundles(config(), EIGHT, EIGHT, num_at_once)

    assert found == ("SPREAD", [HEAD, *[{"CPU": 1.0}] * num_expected])


@pytest.mark.parametrize(
    ("given", "num_expected"),
    [({"num_clients": 3}, 3), ({"max_actors": 2}, 2), ({"clients_per_actor": 5}, 2), ({"cpus_per_actor": 2.0}, 4)],
)
def test_a_trial_takes_no_more_than_its_config_asks_for(given, num_expected):
    assert num_actors(EIGHT, EIGHT, **given) == num_expected


def test_what_an_actor_reserves_is_in_its_bundle():
    nodes = [Resources(4.0, 1.0, 100.0)]
    strategy, parts = bundles(config(nodes="pack", gpus_per_actor=0.5, memory_bytes_per_actor=7), nodes, nodes, 1)

    assert strategy == "PACK"
    assert parts == [HEAD, *[{"CPU": 1.0, "GPU": 0.5, "memory": 7.0}] * 2]
    assert described(parts) == "2 actors of 1 CPU and 0.5 GPU and 7e-09 GB of memory"


@pytest.mark.parametrize(
    ("given", "nodes", "bundle"),
    [
        ({}, EIGHT, {"CPU": 1.0}),
        ({}, [Resources(4.0, 2.0)], {"CPU": 1.0, "GPU": 1.0}),
        ({"accelerator": "cpu"}, [Resources(4.0, 2.0)], {"CPU": 1.0}),
        ({"gpus_per_actor": 0.25, "memory_bytes_per_actor": 7}, [Resources(4.0, 2.0)], {"GPU": 0.25, "memory": 7.0}),
    ],
)
def test_a_trial_without_actors_reserves_what_one_of_them_does(given, nodes, bundle):
    strategy, parts = bundles(config(pool="inline", **given), nodes, nodes, 4)

    assert (strategy, parts) == ("PACK", [{"CPU": 1.0, **bundle}])
    assert described(parts).startswith("1 actor of 1 CPU")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"clients_per_actor": 1}, r"10 actors x 1 CPU need 10 CPUs; the cluster has 8\."),
        ({"pool": "inline", "cpus_per_actor": 5.0}, "no node of the cluster is big enough for one actor of 5 CPU"),
        ({"pool": "inline", "gpus_per_actor": 1.0}, r"1 actor x 1 GPU needs 1 GPU; the cluster has 0\."),
    ],
)
def test_what_never_fits_is_told_before_anything_starts(given, problem):
    with pytest.raises(ClusterError, match=rf"^placement: {problem}"):
        bundles(config(**given), EIGHT, EIGHT, 1)


@pytest.mark.parametrize("given", [{}, {"clients_per_actor": 1}, {"pool": "inline"}])
def test_where_nodes_may_come_a_trial_is_told_how_to_wait_for_them(given):
    wait = r"Where nodes are still to come, placement\.wait_timeout_s=600 waits for them\.$"
    with pytest.raises(ClusterError, match=wait):
        bundles(config(**given), NONE, NONE, 1, may_grow=True)
    with pytest.raises(ClusterError, match=r"the cluster has 0\.$"):
        bundles(config(**given), NONE, NONE, 1)


@pytest.mark.parametrize(
    ("given", "free", "num_expected"),
    [
        # Other runs hold all but three CPUs, or all.
        ({}, [Resources(1.0), Resources(2.0)], 3),
        ({}, NONE, 8),
        ({"clients_per_actor": 2}, [Resources(1.0), Resources(2.0)], 5),
        ({"clients_per_actor": 2, "wait": "min"}, [Resources(1.0), Resources(2.0)], 3),
        ({"clients_per_actor": 1, "wait": "min"}, NONE, 8),
    ],
)
def test_what_may_be_smaller_takes_what_other_runs_leave(given, free, num_expected):
    assert num_actors(free, EIGHT, **given) == num_expected


@pytest.mark.parametrize(
    ("given", "num_expected"),
    [({"clients_per_actor": 1}, 10), ({"clients_per_actor": 1, "wait": "min"}, 8), ({"cpus_per_actor": 5.0}, 1)],
)
def test_where_nodes_may_still_come_a_trial_asks_for_more_than_there_is(given, num_expected):
    assert num_actors(EIGHT, EIGHT, wait_timeout_s=60.0, **given) == num_expected

"""Resources that trials reserve, computed without a cluster."""

import re
from dataclasses import replace

import pytest

from fedvtc.commands.sweep.resources import COORDINATOR, describe, placement_group
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
    _, (coordinator, *actors) = placement_group(config(**given), free, total, num_at_once)
    assert coordinator == COORDINATOR
    return len(actors)


@pytest.mark.parametrize(
    ("num_at_once", "num_expected"),
    [(1, 8), (2, 4), (3, 2), (8, 1), (100, 1)],
)
def test_trials_that_run_at_once_share_the_slots(num_at_once, num_expected):
    found = placement_group(config(), EIGHT, EIGHT, num_at_once)

    assert found == ("SPREAD", [COORDINATOR, *[{"CPU": 1.0}] * num_expected])


@pytest.mark.parametrize(
    ("given", "num_expected"),
    [({"num_clients": 3}, 3), ({"max_actors": 2}, 2), ({"clients_per_actor": 5}, 2), ({"cpus_per_actor": 2.0}, 4)],
)
def test_a_trial_reserves_at_most_what_its_config_asks_for(given, num_expected):
    assert num_actors(EIGHT, EIGHT, **given) == num_expected


def test_a_bundle_contains_the_resources_of_an_actor():
    nodes = [Resources(4.0, 1.0, 100.0)]
    strategy, bundles = placement_group(
        config(nodes="pack", gpus_per_actor=0.5, memory_bytes_per_actor=7), nodes, nodes, 1
    )

    assert strategy == "PACK"
    assert bundles == [COORDINATOR, *[{"CPU": 1.0, "GPU": 0.5, "memory": 7.0}] * 2]
    assert describe(bundles) == "2 slots of 1 CPU and 0.5 GPU and 7e-09 GB of memory"


@pytest.mark.parametrize(
    ("given", "nodes", "bundle"),
    [
        ({}, EIGHT, {"CPU": 1.0}),
        ({}, [Resources(4.0, 2.0)], {"CPU": 1.0, "GPU": 1.0}),
        ({"accelerator": "cpu"}, [Resources(4.0, 2.0)], {"CPU": 1.0}),
        ({"gpus_per_actor": 0.25, "memory_bytes_per_actor": 7}, [Resources(4.0, 2.0)], {"GPU": 0.25, "memory": 7.0}),
    ],
)
def test_an_inline_trial_reserves_the_resources_of_one_actor(given, nodes, bundle):
    strategy, bundles = placement_group(config(pool="inline", **given), nodes, nodes, 4)

    assert (strategy, bundles) == ("PACK", [{"CPU": 1.0, **bundle}])
    assert describe(bundles).startswith("1 slot of 1 CPU")


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ({"clients_per_actor": 1}, {"10", "8"}),
        ({"pool": "inline", "cpus_per_actor": 5.0}, {"5"}),
        ({"pool": "inline", "gpus_per_actor": 1.0}, {"1", "0"}),
    ],
)
def test_a_trial_that_never_fits_is_refused_with_need_and_supply(keys_of, given, numbers):
    with pytest.raises(ClusterError) as refused:
        placement_group(config(**given), EIGHT, EIGHT, 1)
    assert keys_of(refused.value) == ["placement"]
    assert numbers <= set(re.findall(r"\d+", str(refused.value)))


@pytest.mark.parametrize("given", [{}, {"clients_per_actor": 1}, {"pool": "inline"}])
def test_the_error_of_a_growing_cluster_names_wait_timeout_s(given):
    for may_grow in (True, False):
        with pytest.raises(ClusterError) as refused:
            placement_group(config(**given), NONE, NONE, 1, may_grow=may_grow)
        assert ("placement.wait_timeout_s" in str(refused.value)) == may_grow


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
def test_a_trial_of_flexible_size_takes_the_free_slots(given, free, num_expected):
    assert num_actors(free, EIGHT, **given) == num_expected


@pytest.mark.parametrize(
    ("given", "num_expected"),
    [({"clients_per_actor": 1}, 10), ({"clients_per_actor": 1, "wait": "min"}, 8), ({"cpus_per_actor": 5.0}, 1)],
)
def test_a_trial_that_waits_for_nodes_may_exceed_the_cluster(given, num_expected):
    assert num_actors(EIGHT, EIGHT, wait_timeout_s=60.0, **given) == num_expected

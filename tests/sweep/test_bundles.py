"""How the slots of a cluster are shared out among trials; no cluster is started."""

from dataclasses import replace

import pytest

from fedvtc.config import Config
from fedvtc.errors import ClusterError
from fedvtc.runtime.placement import Resources
from fedvtc.sweep.tuning import HEAD, bundles

EIGHT = [Resources(4.0), Resources(4.0)]


def config(num_clients=10, **placement):
    default = Config()
    return replace(
        default,
        placement=replace(default.placement, **placement),
        population=replace(default.population, num_clients=num_clients),
    )


@pytest.mark.parametrize(
    ("num_at_once", "num_actors"),
    [(1, 8), (2, 4), (3, 2), (8, 1), (100, 1)],
)
def test_slots_are_shared_out_among_the_trials_that_run_at_a_time(num_at_once, num_actors):
    assert bundles(config(), EIGHT, num_at_once) == ("SPREAD", [HEAD, *[{"CPU": 1.0}] * num_actors])


@pytest.mark.parametrize(
    ("given", "num_actors"),
    [({"num_clients": 3}, 3), ({"max_actors": 2}, 2), ({"clients_per_actor": 5}, 2), ({"cpus_per_actor": 2.0}, 4)],
)
def test_a_trial_takes_no_more_than_its_config_asks_for(given, num_actors):
    _, (head, *actors) = bundles(config(**given), EIGHT, 1)

    assert (head, len(actors)) == (HEAD, num_actors)


def test_what_an_actor_reserves_is_in_its_bundle():
    strategy, (_, *actors) = bundles(
        config(nodes="pack", gpus_per_actor=0.5, memory_bytes_per_actor=7), [Resources(4.0, 1.0, 100.0)], 1
    )

    assert strategy == "PACK"
    assert actors == [{"CPU": 1.0, "GPU": 0.5, "memory": 7.0}] * 2


def test_a_trial_without_actors_takes_one_place():
    assert bundles(config(pool="inline"), EIGHT, 4) == ("PACK", [{"CPU": 1.0}])


def test_what_does_not_fit_is_told_before_anything_starts():
    with pytest.raises(ClusterError, match=r"^placement: 10 actors x 1 CPU need 10 CPUs; the cluster has 8\."):
        bundles(config(clients_per_actor=1), EIGHT, 1)


def test_where_nodes_may_still_come_a_trial_waits_for_them():
    _, (_, *actors) = bundles(config(clients_per_actor=1, wait_timeout_s=60.0), EIGHT, 1)

    assert len(actors) == 10

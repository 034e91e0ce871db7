"""The values of a run by the name of a column: settings, numbers of the records, status."""

from collections.abc import Mapping
from typing import Any

from fedvtc.learning.metrics import HEADLINE_METRICS
from fedvtc.reporting.run_facts import RunFacts
from fedvtc.reporting.run_numbers import numbers_so_far

PARTITION_PARAMETERS = {
    "dirichlet": "alpha",
    "client_dirichlet": "alpha",
    "quantity": "alpha",
    "shards": "classes_per_client",
}
"""The config key that a row shows beside the kind of partition."""


def values_of(run: RunFacts) -> dict[str, Any]:
    """Returns the values of a run by name.

    The names are `run`, `data`, `partition`, `clients`, `method`, `seed`, `round`, `rounds`, the headings of
    `HEADLINE_METRICS`, `status`, `reason`, `created`, `ended` and `folder`; then every config key, and every number of
    the records: the newest value of a metric, and sums of bytes and seconds up to now.

    Raises:
        ValueError: the config is damaged.
    """
    numbers = numbers_so_far(run.records)
    headlines = {heading: numbers.get(name) for heading, name in HEADLINE_METRICS.items()}
    own = {
        "run": run.name,
        "data": run.section("data").get("name"),
        "partition": partition_text(run.section("partition")),
        "clients": run.section("population").get("num_clients"),
        "method": run.method,
        "seed": run.section("run").get("seed"),
        "round": run.last_round,
        "rounds": run.num_rounds,
        **headlines,
        "status": run.status.name,
        "reason": run.status.reason or None,
        "created": run.created or None,
        "ended": run.description.get("ended"),
        "folder": str(run.folder),
    }
    return {**run.settings(), **numbers, **own}


def partition_text(section: Mapping[str, Any]) -> str:
    """Returns the kind of a partition with its parameter."""
    kind = str(section.get("kind", "?"))
    parameter = PARTITION_PARAMETERS.get(kind)
    return f"{kind} {section.get(parameter, '?')}" if parameter else kind

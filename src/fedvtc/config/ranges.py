"""Which numbers of a config can work."""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from fedvtc.config.problems import Problem, show
from fedvtc.config.schema import Config, OptimizerConfig

_AT_LEAST_ONE = (
    "run.rounds",
    "data.image_size",
    "partition.classes_per_client",
    "partition.min_images",
    "partition.max_redraws",
    "partition.images_per_client",
    "population.num_clients",
    "training.epochs",
    "training.batch_size",
    "evaluate.every",
    "evaluate.batch_size",
    "evaluate.samples_every",
    "evaluate.samples_per_class",
    "checkpoint.every",
    "runtime.min_clients",
    "placement.max_actors",
    "placement.memory_bytes_per_actor",
    "placement.threads_per_actor",
    "tracking.clients_every",
    "cluster.num_cpus",
)
_ABOVE_ZERO = (
    "partition.alpha",
    "placement.cpus_per_actor",
)
_AT_LEAST_ZERO = (
    "placement.gpus_per_actor",
    "cluster.num_gpus",
    "runtime.retries",
)
_LONGEST_S = 1e9
"""Some 30 years. Much longer, and the system's timers overflow."""
_TIMEOUTS_ABOVE_ZERO = ("runtime.client_timeout_s", "runtime.replace_timeout_s", "tracking.wandb.timeout_s")
_TIMEOUTS_AT_LEAST_ZERO = ("placement.wait_timeout_s", "runtime.stop_timeout_s")
_Rule = tuple[Callable[[float], bool], str]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(_AT_LEAST_ONE, (lambda value: value >= 1, "at least 1")),
    **dict.fromkeys(_ABOVE_ZERO, (lambda value: value > 0, "above 0")),
    **dict.fromkeys(_AT_LEAST_ZERO, (lambda value: value >= 0, "at least 0")),
    **dict.fromkeys(_TIMEOUTS_ABOVE_ZERO, (lambda value: 0 < value <= _LONGEST_S, "above 0 and at most 1e9")),
    **dict.fromkeys(_TIMEOUTS_AT_LEAST_ZERO, (lambda value: 0 <= value <= _LONGEST_S, "at least 0 and at most 1e9")),
    # The newest one may turn out to be damaged.
    "checkpoint.keep": (lambda value: value >= 2, "at least 2"),
    # Each image's features are normalised, and a single one would always be 0.
    "population.feature_size": (lambda value: value >= 2, "at least 2"),
    "run.participation": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
}
_RULES_OF_OPTIMIZERS: dict[str, _Rule] = {
    "lr": (lambda value: value > 0, "above 0"),
    "momentum": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    "weight_decay": (lambda value: value >= 0, "at least 0"),
}
_ANY_NUMBER: _Rule = (lambda value: True, "a finite number")


def out_of_range(config: Config) -> Iterator[Problem]:
    """Every number that cannot work; of a method's own those that are not finite, for the rest it checks itself."""
    for key, value, section in _numbers(config):
        rules = _RULES_OF_OPTIMIZERS if isinstance(section, OptimizerConfig) else _RULES
        name = key.rpartition(".")[2] if isinstance(section, OptimizerConfig) else key
        works, rule = rules.get(name, _ANY_NUMBER)
        # A whole number may be too large to be asked.
        if not ((isinstance(value, int) or math.isfinite(value)) and works(value)):
            yield Problem(key, f"must be {rule}, not {show(value)}")


def _numbers(section: Any, prefix: str = "") -> Iterator[tuple[str, float, Any]]:
    """Key and value of every number in a section and those below it, and the section that it stands in."""
    for field in fields(section):
        value = getattr(section, field.name)
        if is_dataclass(value):
            yield from _numbers(value, f"{prefix}{field.name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{field.name}", value, section

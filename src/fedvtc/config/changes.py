"""Which keys of a run may change when it is resumed, and the fingerprint of those that may not."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from fedvtc.config.export import to_dict
from fedvtc.config.problems import Problem, show
from fedvtc.config.schema import Config
from fedvtc.errors import ConfigError

MAY_CHANGE = (
    "run.rounds",
    "run.resume",
    "data.root",
    "data.path",
    "data.download",
    "method.label",
    "evaluate.every",
    "evaluate.samples_every",
    "evaluate.samples_per_class",
    "checkpoint.every",
    "checkpoint.keep",
    "checkpoint.keep_best",
    "checkpoint.async",
    "checkpoint.dir",
    "runtime.on_client_error",
    "runtime.min_clients",
    "runtime.retries",
    "runtime.client_timeout_s",
    "runtime.replace_timeout_s",
    "runtime.stop_timeout_s",
    "runtime.on_disk_error",
    "placement.pool",
    "placement.clients_per_actor",
    "placement.max_actors",
    "placement.nodes",
    "placement.cpus_per_actor",
    "placement.gpus_per_actor",
    "placement.memory_bytes_per_actor",
    "placement.accelerator",
    "placement.wait",
    "placement.wait_timeout_s",
    "cluster.address",
    "cluster.num_cpus",
    "cluster.num_gpus",
    "tracking.trackers",
    "tracking.clients_every",
    "tracking.wandb.project",
    "tracking.wandb.entity",
    "tracking.wandb.group",
    "tracking.wandb.job_type",
    "tracking.wandb.name",
    "tracking.wandb.tags",
    "tracking.wandb.mode",
    "tracking.wandb.upload_checkpoints",
    "tracking.wandb.timeout_s",
)
"""Keys that a resumed run may have other values of. All others decide what the rounds so far have computed, or, as
`run.name`, where they lie."""


def flat(config: Config) -> dict[str, Any]:
    """The values by dotted key; lists are values."""
    return dict(_flat(to_dict(config), ""))


def fingerprint(config: Config) -> str:
    """SHA-256, as 64 hex digits, of what decides the state of a run after a round.

    Left out is what may change when it is resumed, and the name and place of its folder.
    """
    left_out = (*MAY_CHANGE, "run.name", "run.output_dir")
    parts = {key: value for key, value in flat(config).items() if key not in left_out}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def check_resumable(before: Config, after: Config) -> None:
    """Refuses a change that would make the rest of a run another run.

    Raises:
        ConfigError: one line for every key that differs and may not.
    """
    old, new = flat(before), flat(after)
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key) and key not in MAY_CHANGE]
    if changed:
        fix = "Leave it out to resume, or begin a new run."
        raise ConfigError(
            [
                str(Problem(key, f"is {show(old.get(key))} in this run, not {show(new.get(key))}", fix=fix))
                for key in changed
            ]
        )


def same_place(before: Config, after: Config) -> Config:
    """`after` with the name and the output folder of `before`, for a run that was found by them."""
    run = dataclasses.replace(after.run, name=before.run.name, output_dir=before.run.output_dir)
    return dataclasses.replace(after, run=run)


def _flat(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value

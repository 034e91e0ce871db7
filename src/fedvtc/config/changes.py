"""The keys that a resumed run may change, and the fingerprint of all other keys."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from fedvtc.config.export import to_dict
from fedvtc.config.fields import Leaf, leaves
from fedvtc.config.own_code import OwnCodeError, own_calls
from fedvtc.config.problems import Problem, show
from fedvtc.config.schema import Config, MethodConfig
from fedvtc.errors import ConfigError

_FOLDER = ("run.name", "run.output_dir")


def flat(config: Config) -> dict[str, Any]:
    """Returns the values of a config by dotted key; lists are values."""
    return dict(_flat(to_dict(config), ""))


def may_change(method: type) -> frozenset[str]:
    """Returns the keys marked `MayChange` in a config whose `method` is of this section."""
    return frozenset(leaf.key for leaf in _keys(method) if leaf.may_change)


def fingerprint(config: Config) -> str:
    """Returns a SHA-256, as 64 hex digits, of the keys that decide the state of a run after a round.

    The fingerprint leaves out keys that may change on resume, `run.name`, `run.output_dir`, and keys marked
    `AddedLater` that have their default.
    """
    method, values = type(config.method), flat(config)
    left_out = {*may_change(method), *_FOLDER}
    left_out |= {leaf.key for leaf in _keys(method) if leaf.is_added_later and values[leaf.key] == leaf.default}
    parts = {key: value for key, value in values.items() if key not in left_out}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def changed_keys(before: Config, after: Config) -> list[str]:
    """Returns the keys whose values differ between two configs."""
    old, new = flat(before), flat(after)
    return [key for key in {**old, **new} if old.get(key) != new.get(key)]


def check_resumable(before: Config, after: Config) -> None:
    """Raises an error if a config changes keys that a resumed run must keep.

    Args:
        before: the config of the run so far.
        after: the config to resume the run with.

    Raises:
        ConfigError: one line for each changed key.
    """
    _check_equal(before, after, "this run", "Leave the key out to resume, or start a new run.")


def check_equal_rounds(before: Config, after: Config, run: str) -> None:
    """Raises an error if the rounds of two configs differ.

    Args:
        before: the config of a run.
        after: the config of a run that may start from the rounds of the first.
        run: the folder of the first run, for messages.

    Raises:
        ConfigError: one line for each key that gives the rounds other results.
    """
    old, new = _of_rounds(before), _of_rounds(after)
    if old.name != new.name:
        what = f"the rounds of {after.method.name} are not those of {before.method.name} in {run}"
        raise ConfigError([str(Problem("method.name", what, fix="Start the run without --start-from."))])
    before, after = dataclasses.replace(before, method=old), dataclasses.replace(after, method=new)
    fix = "Set the same value, or start the run without --start-from."
    _check_equal(before, same_place(before, after), run, fix)


def rounds_key(config: Config) -> str:
    """Returns a text that is equal for configs whose rounds and their records are equal.

    Other than with `check_equal_rounds`, keys outside of the method may not differ, even if a resume may change them:
    such keys decide which rounds are evaluated.
    """
    method = _of_rounds(config)
    values = flat(dataclasses.replace(config, method=method))
    left_out = {*_FOLDER, *(key for key in may_change(type(method)) if key.startswith("method."))}
    return json.dumps({key: value for key, value in values.items() if key not in left_out}, sort_keys=True)


def _of_rounds(config: Config) -> MethodConfig:
    name = config.method.name
    with own_calls():
        found = config.method.of_rounds()
    if not isinstance(found, MethodConfig):
        raise OwnCodeError(f"of_rounds of {name} returns {show(found)}, not a section of keys", "Return the section.")
    return found


def _check_equal(before: Config, after: Config, run: str, fix: str) -> None:
    old, new = flat(before), flat(after)
    free = may_change(type(before.method)) | may_change(type(after.method))
    changed = [key for key in changed_keys(before, after) if key not in free]
    if "method.name" in changed:
        # All keys of the two methods differ, and none of them is the reason.
        changed = [key for key in changed if key == "method.name" or not key.startswith("method.")]
    if changed:
        values = {key: (show(old.get(key)), show(new.get(key))) for key in changed}
        raise ConfigError(
            [str(Problem(key, f"is {was} in {run}, not {now}", fix=fix)) for key, (was, now) in values.items()]
        )


def same_place(before: Config, after: Config) -> Config:
    """Returns `after` with the run folder of `before`, for a run that was found by its folder."""
    run = dataclasses.replace(after.run, name=before.run.name, output_dir=before.run.output_dir)
    return dataclasses.replace(after, run=run)


def _keys(method: type) -> list[Leaf]:
    return [*leaves(Config), *leaves(method, "method")]


def _flat(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value

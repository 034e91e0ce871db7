"""Names of trials, from the values that a sweep file gives them."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedvtc.commands.sweep.variants import FILES
from fedvtc.config.naming import file_name
from fedvtc.config.problems import show

MAX_BYTES = 100
"""Length of a name in UTF-8; of a longer one a hash takes the place of the rest."""


def trial_names(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each trial, such as `fedvtc-alpha0.1-seed0`, fit for a file; one without values is `trial`.

    A key with one value is in it too: with a second one the first trials keep their names, and so their run folders.

    Args:
        trials: their values by dotted key.
    """
    labels = _labels(_keys(trials))
    kinds = {key: _distinct([trial[key] for trial in trials if key in trial]) for key in labels}
    return [
        _short("-".join(_word(key, trial[key], labels[key], kinds[key]) for key in labels if key in trial)).lstrip("-")
        or "trial"
        for trial in trials
    ]


def varying(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values differ, in the order in which they come first; `files` before all others."""
    absent = object()
    return [key for key in _keys(trials) if len(_distinct([trial.get(key, absent) for trial in trials])) > 1]


def _keys(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    found = dict.fromkeys(key for trial in trials for key in trial)
    return sorted(found, key=lambda key: key != FILES)


def value_text(key: str, value: Any) -> str:
    """A value as a table shows it; files go by their names alone."""
    if key == FILES:
        return "+".join(Path(file).stem for file in ([value] if isinstance(value, str) else value))
    return value if isinstance(value, str) else show(value)


def _labels(keys: Sequence[str]) -> dict[str, str]:
    """The last step of each key; before it, where others end alike, the nearest step that none of them has."""
    labels = {}
    for key in keys:
        *above, last = key.split(".")
        others = [other.split(".") for other in keys if other != key and other.split(".")[-1] == last]
        own = [step for step in reversed(above) if not any(step in other for other in others)]
        labels[key] = last if not others else f"{own[0]}.{last}" if own else key
    return labels


def _word(key: str, value: Any, label: str, kinds: Sequence[Any]) -> str:
    if isinstance(value, list | Mapping) and key != FILES:
        # What has no short text goes by its place among the values.
        return file_name(f"{label}{kinds.index(value) + 1}")
    text = file_name(value_text(key, value))
    if key == FILES or label == "name" or key.endswith(".name"):
        return text
    return f"{label}{text}" if isinstance(value, int | float) and not isinstance(value, bool) else f"{label}-{text}"


def _distinct(values: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if not any(type(value) is type(other) and value == other for other in found):
            found.append(value)
    return found


def _short(name: str) -> str:
    encoded = name.encode()
    if len(encoded) <= MAX_BYTES:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return f"{encoded[: MAX_BYTES - 9].decode(errors='ignore')}-{digest}"

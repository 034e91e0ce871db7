"""Names of trials, made of the values that a sweep file gives them."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from fedvtc.commands.sweep.variants import LABEL
from fedvtc.config.naming import file_name
from fedvtc.reporting.comparison.values import FILES, distinct, value_text

MAX_BYTES = 100
"""Maximum length of a name in UTF-8; a longer name is cut and ends in a hash."""


def trial_names(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a name for each trial, such as `fedvtc-alpha0.1-seed0`, usable as a file name.

    The name contains keys with a single value too: a second value added later does not change the names, and so
    the run folders, of earlier trials. A trial without values is called `trial`.

    Args:
        trials: the values of each trial by dotted key.
    """
    labels = _labels(_keys(trials))
    values = {key: distinct([trial[key] for trial in trials if key in trial]) for key in labels}
    return [
        _cut("-".join(_word(key, trial[key], labels[key], values[key]) for key in labels if key in trial)).lstrip("-")
        or "trial"
        for trial in trials
    ]


def _keys(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    found = dict.fromkeys(key for trial in trials for key in trial)
    return sorted(found, key=lambda key: key not in (LABEL, FILES))


def _labels(keys: Sequence[str]) -> dict[str, str]:
    """Returns the last part of each key, prefixed where several keys end in the same part.

    The prefix is the nearest part that occurs in this key only, such as `generator.lr`.
    """
    labels = {}
    for key in keys:
        *above, last = key.split(".")
        others = [other.split(".") for other in keys if other != key and other.split(".")[-1] == last]
        own = [step for step in reversed(above) if not any(step in other for other in others)]
        labels[key] = last if not others else f"{own[0]}.{last}" if own else key
    return labels


def _word(key: str, value: Any, label: str, values: Sequence[Any]) -> str:
    if isinstance(value, list | Mapping) and key != FILES:
        # A list has no short text, so the name has the number of the list among the values of the key.
        return file_name(f"{label}{values.index(value) + 1}")
    text = file_name(value_text(key, value))
    if key in (LABEL, FILES) or label == "name" or key.endswith(".name"):
        return text
    return f"{label}{text}" if isinstance(value, int | float) and not isinstance(value, bool) else f"{label}-{text}"


def _cut(name: str) -> str:
    encoded = name.encode()
    if len(encoded) <= MAX_BYTES:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return f"{encoded[: MAX_BYTES - 9].decode(errors='ignore')}-{digest}"

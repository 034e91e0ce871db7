"""Settings of runs: the keys whose values differ, the keys that tell runs apart, and a short text for each value."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedvtc.config.problems import show
from fedvtc.reporting.run_facts import METHOD, SEED

FILES = "files"
"""The key of a sweep file that lists config files."""
FIRST = (METHOD, FILES)
"""Keys that tables show before all others."""
_RESULT_KEYS = ("data.", "partition.", "population.", "training.", "method.")
_OTHER_KEYS = ("run.rounds", "run.participation", "evaluate.validation_share")
_NO_RESULT = ("data.root", "data.download", "method.label")
EVALUATIONS = ("evaluate.every", "evaluate.clients")
"""Keys that decide which evaluations a run has before its last round; the final record does not depend on these."""


def varying(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the keys whose values differ between trials: `FIRST`, then in order of the trials."""
    absent = object()
    found = dict.fromkeys(key for trial in trials for key in trial)
    keys = [key for key in found if len(distinct([trial.get(key, absent) for trial in trials])) > 1]
    return sorted(keys, key=lambda key: key not in FIRST)


def result_keys(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the keys that tell runs apart: the keys of varying values that change results, and the seed.

    Keys of a method's section count if their values vary between runs of one method, because methods have different
    keys. The method comes first, also if all runs have the same method.

    Args:
        runs: settings by key, with the method under `method`.
    """
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        by_method.setdefault(run.get(METHOD, ""), []).append(run)
    within = {key for siblings in by_method.values() for key in varying(siblings)}
    keys = varying(runs)
    kept = [key for key in keys if changes_results(key) and (not key.startswith("method.") or key in within)]
    return [METHOD, *kept, *([SEED] if SEED in keys else [])]


def changes_results(key: str) -> bool:
    """True for a config key whose value changes the results of a run; the seed is no such key."""
    return (key.startswith(_RESULT_KEYS) and key not in _NO_RESULT) or key in _OTHER_KEYS


def distinct(values: Sequence[Any]) -> list[Any]:
    """Returns each value once; 1 and true differ."""
    found: list[Any] = []
    for value in values:
        if not any(type(value) is type(other) and value == other for other in found):
            found.append(value)
    return found


def value_text(key: str, value: Any) -> str:
    """Returns a value as text for tables and names; of config files only the stems."""
    if key == FILES:
        return "+".join(Path(file).stem for file in ([value] if isinstance(value, str) else value))
    return value if isinstance(value, str) else show(value)


def with_texts(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns the values of each trial as texts; values of a key with equal short texts are written in full."""
    texts = {key: _texts(key, trials) for key in dict.fromkeys(key for trial in trials for key in trial)}
    return [{key: texts[key][_canonical(value)] for key, value in trial.items()} for trial in trials]


def with_shared(
    settings: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]], started: Sequence[bool]
) -> list[Mapping[str, Any]]:
    """Gives trials that have not started the settings in which all started trials of their row agree.

    Args:
        settings: the known settings of each trial.
        own: the values of each trial in the sweep file; the trials of a row differ in the seed only.
        started: True for the trials that have started.
    """
    rows = [_canonical({key: value for key, value in values.items() if key != SEED}) for values in own]
    siblings: dict[str, list[Mapping[str, Any]]] = {}
    for row, values, has_started in zip(rows, settings, started, strict=True):
        if has_started:
            siblings.setdefault(row, []).append(values)
    return [
        values if has_started else {**_shared(siblings.get(row, [])), **values}
        for row, values, has_started in zip(rows, settings, started, strict=True)
    ]


def _shared(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    absent = object()
    keys = [key for key in (trials[0] if trials else {}) if key in (METHOD, *EVALUATIONS) or changes_results(key)]
    return {key: trials[0][key] for key in keys if len(distinct([trial.get(key, absent) for trial in trials])) == 1}


def _texts(key: str, trials: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    short = {_canonical(trial[key]): value_text(key, trial[key]) for trial in trials if key in trial}
    counts = Counter(short.values())
    return {value: text if counts[text] == 1 else value for value, text in short.items()}


def _canonical(value: Any) -> str:
    """Returns a text that is equal for equal values only; `value_text` shortens, so its texts may coincide."""
    return json.dumps(value, sort_keys=True, default=str)

"""The settings of each trial: every combination of the variants, list, grid and draws of a sweep file."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from fedvtc.commands.sweep.distributions import draw, fault
from fedvtc.commands.sweep.sweep_file import MAX_TRIALS, SweepKeys, VariantKeys
from fedvtc.config.hints import hint_at
from fedvtc.config.layers import Layer
from fedvtc.config.problems import Problem, show
from fedvtc.config.yaml_text import KeyPath
from fedvtc.reporting.comparison.values import FILES

LABEL = "label"
"""The key of the name of a variant, in the values of a trial; tables show the label as `method`."""
TRIES_PER_SAMPLE = 100
"""Maximum number of draws per sample: a draw that equals an earlier draw is skipped."""


@dataclass(frozen=True)
class Setting:
    """A key of a sweep file with its value.

    Attributes:
        key: the dotted key.
        value: the value as YAML reads the text.
        where: `FILE:LINE` of the key.
        written: the text of each plain value, by the path below the key.
        is_shown: True if names and tables show the value.
        is_of_trial: True for a key of a variant or list entry, which the method of the trial must have.
    """

    key: str
    value: Any
    where: str
    written: Mapping[KeyPath, str] = field(default_factory=dict)
    is_shown: bool = True
    is_of_trial: bool = False


Variant = tuple[Setting, ...]


def settings(keys: Mapping[str, Any], layer: Layer, path: KeyPath) -> Iterator[Setting]:
    """Yields dotted or nested keys as settings; a list is one value.

    Args:
        keys: the content of the layer at `path`.
        layer: the sweep file.
        path: the path of `keys` in the layer.
    """
    for key, value in keys.items():
        yield from _leaves(str(key), value, layer, (*path, str(key)))


def _leaves(key: str, value: Any, layer: Layer, path: KeyPath) -> Iterator[Setting]:
    """Yields a setting for each leaf of a value, so that nested keys merge with keys of other settings."""
    if isinstance(value, Mapping) and value:
        for setting in settings(value, layer, path):
            yield replace(setting, key=f"{key}.{setting.key}")
    else:
        written = {inner[len(path) :]: word for inner, word in layer.written.items() if inner[: len(path)] == path}
        yield Setting(key, value, layer.where(path), written)


def variants(keys: SweepKeys, layer: Layer, problems: list[Problem]) -> list[Variant]:
    """Returns the settings of each trial, without those of `set` and `base`.

    Trials are ordered by variant, then list entry, then grid point, then draw; the last varies fastest.

    Args:
        keys: the keys of the sweep file.
        layer: the sweep file.
        problems: faulty values are appended here.
    """
    axes = []
    if keys.variants:
        axes.append(list(_named(keys.variants, layer)))
    if keys.list_:
        axes.append(list(_entries(keys.list_, layer, problems)))
    axes += [_points(str(key), values, layer, problems) for key, values in keys.grid.items()]
    if keys.random:
        axes.append(_draws(keys, layer, problems))
    if (num_trials := math.prod(map(len, axes))) > MAX_TRIALS:
        fix = "Give the keys fewer values, or draw combinations with random and num_samples."
        problems.append(Problem(layer.source, f"defines {num_trials} trials, more than {MAX_TRIALS}", fix=fix))
        return []
    return [tuple(itertools.chain.from_iterable(parts)) for parts in itertools.product(*axes)]


def _named(entries: Sequence[VariantKeys], layer: Layer) -> Iterator[Variant]:
    for index, entry in enumerate(entries):
        path = ("variants", index)
        given = {"method.label": entry.label, FILES: entry.files, **entry.keys}
        hidden = settings(given, layer, (*path, "keys"))
        label = Setting(LABEL, entry.label, layer.where((*path, "label")))
        yield label, *(replace(setting, is_shown=False, is_of_trial=True) for setting in hidden)


def without_lacking(
    common: Variant, variants: Sequence[Variant], sections: Sequence[type | None]
) -> list[tuple[Variant, Variant]]:
    """Returns `common` and the settings of each trial without keys that its method lacks; equal trials become one.

    A key of `variants` or `list` stays. A key that no method of the sweep has is a mistake, and stays with the methods
    that have the most of its sections.

    Args:
        common: the settings of `set`.
        variants: the settings of each trial.
        sections: the config section of the method of each trial; None if the config has problems.
    """
    pairs = list(zip(variants, sections, strict=True))
    deepest: dict[str, int] = {}
    for variant, section in pairs:
        for one in (*common, *variant):
            deepest[one.key] = max(deepest.get(one.key, 0), _depth(section, one))
    kept: dict[str, tuple[Variant, Variant]] = {}
    for variant, section in pairs:
        shared, own = (
            tuple(one for one in part if _depth(section, one) == deepest[one.key]) for part in (common, variant)
        )
        # Only a trial that lost a key may be a copy of another trial; other copies are mistakes.
        key = repr([(one.key, one.value) for one in own]) if len(own) < len(variant) else repr(len(kept))
        kept.setdefault(key, (shared, own))
    return list(kept.values())


def lacks(section: type, setting: Setting) -> bool:
    """True if a setting of `set`, `grid` or `random` is a key of a method, and not of this method."""
    first, *path = setting.key.split(".")
    return not setting.is_of_trial and first == "method" and bool(path) and hint_at(section, tuple(path)) is None


def _depth(section: type | None, setting: Setting) -> int:
    """Returns the number of leading steps of a key that the method has, all steps for a key that stays."""
    _, *path = setting.key.split(".")
    if section is None or not lacks(section, setting):
        return len(path)
    return next(length for length in range(len(path)) if hint_at(section, tuple(path[: length + 1])) is None)


def _entries(entries: Sequence[Any], layer: Layer, problems: list[Problem]) -> Iterator[Variant]:
    for index, entry in enumerate(entries):
        where = layer.where(("list", index))
        if isinstance(entry, Mapping) and entry:
            found = settings(entry, layer, ("list", index))
            yield tuple(replace(setting, is_of_trial=True) for setting in found)
        else:
            fix = "Write for example {run.seed: 1, partition.alpha: 0.5}."
            problems.append(Problem(f"list[{index}]", f"expected keys with values, not {show(entry)}", where, fix))


def _points(key: str, values: Any, layer: Layer, problems: list[Problem]) -> list[Variant]:
    if not isinstance(values, list) or not values:
        what, fix = f"expected a list of values, not {show(values)}", f"Write {key}: [FIRST, SECOND]."
        problems.append(Problem(f"grid.{key}", what, layer.where(("grid", key)), fix))
        return []
    return [tuple(_leaves(key, value, layer, ("grid", key, index))) for index, value in enumerate(values)]


def _draws(keys: SweepKeys, layer: Layer, problems: list[Problem]) -> list[Variant]:
    """Returns `num_samples` different draws; skips a draw that equals an earlier one."""
    valid = {}
    for key, distribution in keys.random.items():
        found = fault(distribution)
        if found:
            problems.append(Problem(f"random.{key}", found[0], layer.where(("random", str(key))), found[1]))
        else:
            valid[str(key)] = distribution
    # Keyed by their text, because 1 and true are equal in Python.
    drawn: dict[str, Variant] = {}
    for number in range(TRIES_PER_SAMPLE * keys.num_samples):
        sample = tuple(_sample(valid, number, keys.seed, layer))
        drawn.setdefault(repr([(setting.key, setting.value) for setting in sample]), sample)
        if len(drawn) == keys.num_samples:
            break
    if len(drawn) < keys.num_samples and len(valid) == len(keys.random):
        what = f"wants {keys.num_samples} different draws, but {number + 1} tries gave only {len(drawn)}"
        fix = f"Set num_samples to {len(drawn)}, or give random more values."
        problems.append(Problem("num_samples", what, layer.where(("num_samples",)), fix))
    return list(drawn.values())


def _sample(distributions: Mapping[str, Any], number: int, seed: int, layer: Layer) -> Iterator[Setting]:
    for key, distribution in distributions.items():
        # Each key has its own random stream, so that another key or more samples do not change its values.
        value = draw(distribution, Random(f"{seed}/{key}/{number}"))
        path: KeyPath = ("random", key)
        if "choice" in distribution:
            index = next(index for index, choice in enumerate(distribution["choice"]) if choice is value)
            path = (*path, "choice", index)
        yield from _leaves(key, value, layer, path)

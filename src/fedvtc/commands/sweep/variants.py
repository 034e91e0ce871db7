"""From the keys of a sweep file to what each trial sets: every combination of list, grid and draws."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from fedvtc.commands.sweep.sweep_file import SweepKeys
from fedvtc.config.layers import KeyPath, Layer
from fedvtc.config.problems import Problem, did_you_mean, show

FILES = "files"
"""The key of a sweep file that names config files in place of a value."""
KINDS = ("uniform", "log_uniform", "int", "choice")
"""Distributions that a value may be drawn from."""
DIGITS = 4
"""Significant digits of drawn numbers, so that a name can hold them whole."""
TRIES = 100
"""Draws that are looked at for each that is wanted; there may be no more that differ."""


@dataclass(frozen=True)
class Setting:
    """One value that a sweep file gives a key, and `FILE:LINE` of it."""

    key: str
    value: Any
    where: str


Variant = tuple[Setting, ...]


def settings(keys: Mapping[str, Any], layer: Layer, path: KeyPath) -> Iterator[Setting]:
    """Keys, dotted or nested, as settings; lists are values.

    Args:
        keys: what stands at `path` of the layer.
        layer: the sweep file.
        path: where they stand.
    """
    for key, value in keys.items():
        yield from _leaves(str(key), value, layer, (*path, str(key)))


def _leaves(key: str, value: Any, layer: Layer, path: KeyPath) -> Iterator[Setting]:
    """A value that stands at `path`; of keys with values each for itself, for they merge with what others say."""
    if isinstance(value, Mapping) and value:
        for setting in settings(value, layer, path):
            yield Setting(f"{key}.{setting.key}", setting.value, setting.where)
    else:
        yield Setting(key, value, layer.where(path))


def variants(keys: SweepKeys, layer: Layer, problems: list[Problem]) -> list[Variant]:
    """What each trial sets beyond `set`, in the order of the trials: list, then grid, then draws, the last fastest.

    Args:
        keys: of the sweep.
        layer: its file.
        problems: grows by what is wrong.
    """
    axes = []
    if keys.list_:
        axes.append(list(_listed(keys.list_, layer, problems)))
    axes += [_points(str(key), values, layer, problems) for key, values in keys.grid.items()]
    if keys.random:
        axes.append(_draws(keys, layer, problems))
    return [tuple(itertools.chain.from_iterable(parts)) for parts in itertools.product(*axes)]


def _listed(entries: Sequence[Any], layer: Layer, problems: list[Problem]) -> Iterator[Variant]:
    for index, entry in enumerate(entries):
        where = layer.where(("list", index))
        if isinstance(entry, Mapping) and entry:
            yield tuple(settings(entry, layer, ("list", index)))
        else:
            fix = "Write {run.seed: 1, partition.alpha: 0.5}."
            problems.append(Problem(f"list[{index}]", f"expected keys with values, not {show(entry)}", where, fix))


def _points(key: str, values: Any, layer: Layer, problems: list[Problem]) -> list[Variant]:
    if not isinstance(values, list) or not values:
        what, fix = f"expected a list of values, not {show(values)}", f"Write {key}: [FIRST, SECOND]."
        problems.append(Problem(f"grid.{key}", what, layer.where(("grid", key)), fix))
        return []
    return [tuple(_leaves(key, value, layer, ("grid", key, index))) for index, value in enumerate(values)]


def _draws(keys: SweepKeys, layer: Layer, problems: list[Problem]) -> list[Variant]:
    """Draws that differ; one that equals an earlier one is passed over."""
    sound = {}
    for key, distribution in keys.random.items():
        fault = _fault(distribution)
        if fault:
            problems.append(Problem(f"random.{key}", fault[0], layer.where(("random", str(key))), fault[1]))
        else:
            sound[str(key)] = distribution
    # By how they are written, for 1 and true are equal in Python.
    drawn: dict[str, Variant] = {}
    for number in range(TRIES * keys.num_samples):
        sample = tuple(_sample(sound, number, keys.seed, layer))
        drawn.setdefault(repr([(setting.key, setting.value) for setting in sample]), sample)
        if len(drawn) == keys.num_samples:
            break
    if len(drawn) < keys.num_samples and len(sound) == len(keys.random):
        what = f"{keys.num_samples} draws that differ are wanted, and among {number + 1} there are {len(drawn)}"
        fix = f"Set it to {len(drawn)}, or give random more values."
        problems.append(Problem("num_samples", what, layer.where(("num_samples",)), fix))
    return list(drawn.values())


def _sample(distributions: Mapping[str, Any], number: int, seed: int, layer: Layer) -> Iterator[Setting]:
    for key, distribution in distributions.items():
        ((kind, numbers),) = distribution.items()
        # Of its own stream, so that another key or more samples leave the others as they are.
        yield from _leaves(key, _draw(kind, numbers, Random(f"{seed}/{key}/{number}")), layer, ("random", key))


def _fault(distribution: Any) -> tuple[str, str] | None:
    """What is wrong with a distribution, and what would work."""
    example = "Write {uniform: [0, 1]}, {log_uniform: [1e-4, 1e-2]}, {int: [1, 8]} or {choice: [a, b]}."
    if not isinstance(distribution, Mapping) or len(distribution) != 1:
        return f"expected one distribution, not {show(distribution)}", example
    ((kind, numbers),) = distribution.items()
    if kind not in KINDS:
        return f"unknown distribution {show(kind)}", did_you_mean(str(kind), KINDS)
    if not isinstance(numbers, list) or not numbers:
        return f"expected a list, not {show(numbers)}", example
    if kind == "choice":
        return None
    types = int if kind == "int" else (int, float)
    if len(numbers) != 2 or any(isinstance(end, bool) or not isinstance(end, types) for end in numbers):
        return f"{kind} takes two {'whole ' if kind == 'int' else ''}numbers, not {show(numbers)}", example
    low, high = numbers
    if not (_is_finite(low) and _is_finite(high) and low <= high) or (kind == "log_uniform" and low <= 0):
        least = "above 0 and " if kind == "log_uniform" else ""
        return f"{kind} takes [low, high], low {least}at most high, not {show(numbers)}", ""
    return None


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _draw(kind: str, numbers: Sequence[Any], random: Random) -> Any:
    if kind == "choice":
        return numbers[random.randrange(len(numbers))]
    low, high = numbers
    if kind == "int":
        return random.randint(low, high)
    is_log = kind == "log_uniform"
    value = math.exp(random.uniform(math.log(low), math.log(high))) if is_log else random.uniform(low, high)
    return float(f"{value:.{DIGITS}g}")

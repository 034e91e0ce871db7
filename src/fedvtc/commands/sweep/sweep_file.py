"""The keys of a sweep file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from fedvtc.config.keys import valid_part
from fedvtc.config.layers import Layer, read_file
from fedvtc.config.naming import is_folder_name
from fedvtc.config.problems import COMMAND_LINE, Problem, did_you_mean, show
from fedvtc.errors import ConfigError
from fedvtc.learning.metrics import TEST_METRICS


@dataclass(frozen=True)
class AshaKeys:
    """Asynchronous successive halving (Li et al. 2020): what does badly early is stopped."""

    metric: str = "test/accuracy/mean"
    """A metric of the test set, as in the records; higher is better."""
    grace_rounds: int = 1
    """Rounds before which no trial is stopped, at least 1."""
    reduction_factor: float = 3.0
    """One of so many trials goes on past each rung, and rungs lie as many times further apart; above 1."""


@dataclass(frozen=True)
class SweepKeys:
    """What a sweep file says."""

    name: str | None = None
    """Name of the sweep and of its folder in run.output_dir; null takes that of the file."""
    base: list[str] = field(default_factory=list)
    """Config files, relative to the sweep file, that every trial begins with."""
    set_: dict[str, Any] = field(default_factory=dict)
    """Keys that every trial has, dotted or nested; they win over the files."""
    grid: dict[str, Any] = field(default_factory=dict)
    """Values by dotted key; every combination becomes a trial. `files` stands for config files."""
    random: dict[str, Any] = field(default_factory=dict)
    """A distribution by dotted key: `uniform`, `log_uniform` or `int` with [low, high], `choice` with its values."""
    list_: list[Any] = field(default_factory=list)
    """Keys of one trial each, dotted or nested."""
    num_samples: int = 1
    """Draws of `random` that differ, at least 1; each is combined with every point of the grid."""
    seed: int = 0
    """Seed of the draws; a draw depends on it, the key and its number alone."""
    max_concurrent: int | None = None
    """Trials at a time, at least 1; null takes as many as there are places for."""
    asha: AshaKeys | None = None
    """Early stopping; null runs every trial to its end."""


def read_keys(file: Path) -> tuple[SweepKeys, Layer]:
    """The keys of a sweep file, and where each is written.

    Raises:
        ConfigError: with one line for every problem.
    """
    problems: list[Problem] = []
    layer = read_file(file, COMMAND_LINE, problems)
    if layer is None:
        raise ConfigError([str(problem) for problem in problems])
    part = valid_part(layer, layer.content, SweepKeys, {}, problems)
    # Not resolved: `${...}` in a value is about the config of a trial, not about this file.
    values = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(SweepKeys), part), resolve=False)
    plain: dict[str, Any] = dict(cast("Mapping[str, Any]", values))
    asha = plain.pop("asha")
    keys = SweepKeys(**plain, asha=None if asha is None else AshaKeys(**asha))
    # Keys that are wrong may be those that hold the trials.
    problems = problems or list(_values(keys, layer))
    if problems:
        raise ConfigError([str(problem) for problem in problems])
    return keys, layer


def _values(keys: SweepKeys, layer: Layer) -> Iterator[Problem]:
    """What cannot work, beyond types."""
    if keys.name is not None and not is_folder_name(keys.name):
        fix = "Set run.output_dir for the folder around it."
        yield Problem("name", f"must be the name of one folder, not {show(keys.name)}", layer.where(("name",)), fix)
    least = [("num_samples", keys.num_samples), ("max_concurrent", keys.max_concurrent)]
    if keys.asha is not None:
        least.append(("asha.grace_rounds", keys.asha.grace_rounds))
        if keys.asha.metric not in TEST_METRICS:
            fix = did_you_mean(keys.asha.metric, TEST_METRICS)
            what = f"unknown metric {show(keys.asha.metric)}"
            yield Problem("asha.metric", what, layer.where(("asha", "metric")), fix)
        if not keys.asha.reduction_factor > 1:
            what = f"must be above 1, not {show(keys.asha.reduction_factor)}"
            yield Problem("asha.reduction_factor", what, layer.where(("asha", "reduction_factor")))
    for key, value in least:
        if value is not None and value < 1:
            yield Problem(key, f"must be at least 1, not {show(value)}", layer.where(tuple(key.split("."))))
    if not (keys.grid or keys.random or keys.list_):
        yield Problem(layer.source, "holds no trials", fix="Give a grid, random or a list.")
    if keys.num_samples != 1 and not keys.random:
        fix = "Take it out, or give random."
        yield Problem("num_samples", "nothing is drawn", layer.where(("num_samples",)), fix)

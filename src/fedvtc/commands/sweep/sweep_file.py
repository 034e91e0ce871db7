"""The keys of a sweep file."""

from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from fedvtc.config.checking import as_written, checked
from fedvtc.config.layers import Layer, placed, read_file
from fedvtc.config.naming import is_folder_name
from fedvtc.config.problems import COMMAND_LINE, Problem, did_you_mean, show
from fedvtc.config.section import section
from fedvtc.errors import ConfigError
from fedvtc.learning.metrics import TEST_METRICS


@section
class AshaKeys:
    """Asynchronous successive halving (Li et al. 2020): what does badly early is stopped."""

    metric: str = "test/accuracy/mean"
    """A metric of the test set, as in the records; higher is better."""
    grace_rounds: Annotated[int, Field(ge=1)] = 1
    """Rounds before which no trial is stopped."""
    reduction_factor: Annotated[float, Field(gt=1)] = 3.0
    """One of so many trials goes on past each rung, and rungs lie as many times further apart."""


@section
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
    num_samples: Annotated[int, Field(ge=1)] = 1
    """Draws of `random` that differ; each is combined with every point of the grid."""
    seed: int = 0
    """Seed of the draws; a draw depends on it, the key and its number alone."""
    max_concurrent: Annotated[int | None, Field(ge=1)] = None
    """Trials at a time; null takes as many as there are places for."""
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
    # `${...}` in a value is about the config of a trial, not about this file.
    keys, found = checked(SweepKeys, as_written(layer, SweepKeys).content)
    problems += [placed(problem, [layer]) for problem in found]
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
    if keys.asha is not None and keys.asha.metric not in TEST_METRICS:
        fix = did_you_mean(keys.asha.metric, TEST_METRICS)
        yield Problem("asha.metric", f"unknown metric {show(keys.asha.metric)}", layer.where(("asha", "metric")), fix)
    if not (keys.grid or keys.random or keys.list_):
        yield Problem(layer.source, "holds no trials", fix="Give a grid, random or a list.")
    if keys.num_samples != 1 and not keys.random:
        fix = "Take it out, or give random."
        yield Problem("num_samples", "nothing is drawn", layer.where(("num_samples",)), fix)

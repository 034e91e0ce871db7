"""The keys of a sweep file, and the checks of their values."""

from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from fedvtc.commands.file_kinds import is_config
from fedvtc.config.checking import as_written, checked
from fedvtc.config.layers import Layer, placed, read_file
from fedvtc.config.naming import is_folder_name
from fedvtc.config.problems import COMMAND_LINE, Problem, did_you_mean, show
from fedvtc.config.section import section
from fedvtc.errors import ConfigError
from fedvtc.learning.metrics import TEST_METRICS, VALIDATION

MAX_TRIALS = 10_000
"""Maximum number of trials. A file with more takes minutes to load, and is a mistake: grids multiply."""


@section
class AshaKeys:
    """Early stopping by asynchronous successive halving (Li et al. 2020)."""

    metric: str = "test/accuracy/mean"
    """The metric of the test set or of validation images that trials are compared by, as named in the records; higher
    is better."""
    grace_rounds: Annotated[int, Field(ge=1)] = 1
    """Rounds that every trial trains before the first comparison."""
    reduction_factor: Annotated[float, Field(gt=1)] = 3.0
    """A comparison keeps the best 1 / reduction_factor of the trials; the next comparison comes after
    reduction_factor times as many rounds."""


@section
class VariantKeys:
    """A named variant, such as a method of a comparison."""

    label: Annotated[str, Field(min_length=1)]
    """Name of the variant in tables and in the names of its trials; becomes `method.label`."""
    files: list[str] = field(default_factory=list)
    """Config files of the variant: paths relative to the sweep file, or names of shipped configs."""
    keys: dict[str, Any] = field(default_factory=dict)
    """Keys of the variant, dotted or nested; they override the files and `set`."""


@section
class SweepKeys:
    """The content of a sweep file."""

    name: str | None = None
    """Name of the sweep and of its folder in run.output_dir; null takes the name of the file."""
    base: list[str] = field(default_factory=list)
    """Config files of all trials: paths relative to the sweep file, or names of shipped configs."""
    set_: dict[str, Any] = field(default_factory=dict)
    """Keys of all trials, dotted or nested; they override the files."""
    variants: list[VariantKeys] = field(default_factory=list)
    """Named variants, each combined with every point of the other keys."""
    grid: dict[str, Any] = field(default_factory=dict)
    """A list of values by dotted key; each combination is a trial. The key `files` lists config files."""
    random: dict[str, Any] = field(default_factory=dict)
    """A distribution by dotted key: `uniform`, `log_uniform` or `int` with [low, high], `choice` with its values."""
    list_: list[Any] = field(default_factory=list)
    """One entry of keys per trial, dotted or nested."""
    num_samples: Annotated[int, Field(ge=1, le=MAX_TRIALS)] = 1
    """Number of different draws of `random`; each draw is combined with each point of the grid."""
    seed: int = 0
    """Seed of the draws; a drawn value depends on the seed, the key and the number of the draw only."""
    max_concurrent: Annotated[int | None, Field(ge=1)] = None
    """Maximum number of trials that run at once; null runs as many as fit the cluster."""
    target: Annotated[float | None, Field(gt=0, le=1)] = None
    """Mean accuracy that the table counts rounds, bytes and seconds to; null counts nothing."""
    asha: AshaKeys | None = None
    """Early stopping; null runs every trial to its end."""


def read_keys(file: Path) -> tuple[SweepKeys, Layer]:
    """Reads a sweep file; returns its keys and the layer that knows the line of each key.

    Raises:
        ConfigError: one line for each problem of the file.
    """
    problems: list[Problem] = []
    layer = read_file(file, COMMAND_LINE, problems)
    if layer is None:
        raise ConfigError([str(problem) for problem in problems])
    # Not resolved, because `${...}` in a value refers to the config of the trial.
    if is_config(layer.content):
        fix = "Start the run with `fedvtc run`, or name the file under `base` in a sweep file."
        raise ConfigError([str(Problem(str(file), "is a config, not a sweep file", fix=fix))])
    keys, found = checked(SweepKeys, as_written(layer, SweepKeys).content)
    problems += [placed(problem, [layer]) for problem in found]
    # A misspelled key may be the one that defines the trials, so its problem comes alone.
    problems = problems or list(_value_problems(keys, layer))
    if problems:
        raise ConfigError([str(problem) for problem in problems])
    return keys, layer


def _value_problems(keys: SweepKeys, layer: Layer) -> Iterator[Problem]:
    """Yields the values that have the right type but cannot work."""
    if keys.name is not None and not is_folder_name(keys.name):
        fix = "Set run.output_dir for the parent folder."
        yield Problem("name", f"must be the name of one folder, not {show(keys.name)}", layer.where(("name",)), fix)
    if keys.asha is not None and keys.asha.metric not in (*TEST_METRICS, *VALIDATION):
        fix = did_you_mean(keys.asha.metric, (*TEST_METRICS, *VALIDATION))
        yield Problem("asha.metric", f"unknown metric {show(keys.asha.metric)}", layer.where(("asha", "metric")), fix)
    if not (keys.variants or keys.grid or keys.random or keys.list_):
        yield Problem(layer.source, "defines no trials", fix="Add variants, grid, random or list.")
    if keys.num_samples != 1 and not keys.random:
        fix = "Remove num_samples or add random."
        yield Problem("num_samples", "has no effect without random", layer.where(("num_samples",)), fix)

"""Loads a sweep file: makes its trials, each with a complete, checked config."""

import copy
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedvtc.commands.sweep.checks import check_settings, check_trials, overridden_key, paths_of
from fedvtc.commands.sweep.known_folders import with_known_folders
from fedvtc.commands.sweep.sweep_file import read_keys
from fedvtc.commands.sweep.trial_names import trial_names
from fedvtc.commands.sweep.trials import Sweep, Trial
from fedvtc.commands.sweep.variants import LABEL, Setting, Variant, lacks, settings, variants, without_lacking
from fedvtc.config import Config, check_submitted, load
from fedvtc.config.checking import UNKNOWN
from fedvtc.config.importing import own_code_problems
from fedvtc.config.layers import Layer
from fedvtc.config.loading import with_texts
from fedvtc.config.problems import COMMAND_LINE, Problem
from fedvtc.config.schema import MethodConfig
from fedvtc.config.yaml_text import KeyPath, parse
from fedvtc.errors import ConfigError
from fedvtc.reporting.comparison.values import FILES

_TRIALS_NAMED = 3
"""Maximum number of trials that the line of a problem names."""


def load_sweep(file: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Reads a sweep file and loads the config of every trial.

    A config merges in this order, later values win: files of `base`, files of the trial, `set` together with the
    values of the trial, `overrides`.

    Args:
        file: the sweep file.
        overrides: `key=value` of the command line, for all trials.

    Raises:
        ConfigError: one line for each problem in any trial.
    """
    keys, layer = read_keys(file)
    problems: list[Problem] = []
    found = variants(keys, layer, problems)
    base = tuple(Setting(FILES, name, layer.where(("base", index))) for index, name in enumerate(keys.base))
    common = tuple(settings(keys.set_, layer, ("set",)))
    problems += check_settings([*base, *common], found, file, overrides)
    _raise(problems)

    loader = _Loader(keys.name or file.stem, file, layer, base, tuple(overrides))
    sections = [loader.section((*common, *variant)) for variant in found]
    parts = without_lacking(common, found, sections)
    values = [{setting.key: setting.value for setting in variant if setting.is_shown} for _, variant in parts]
    trials: list[Trial] = []
    output_dir = ""
    lines: dict[str, list[str]] = {}
    for name, own_values, (shared, variant) in zip(trial_names(values), values, parts, strict=True):
        try:
            trial, output_dir = loader.trial(name, own_values, (*shared, *variant))
            trials.append(trial)
        except ConfigError as error:
            for line in error.problems:
                lines.setdefault(line, []).append(name)
    if lines:
        raise ConfigError([_in_trials(line, names, len(parts)) for line, names in lines.items()])
    _raise(check_trials(trials, keys.asha, file))
    path = Path(trials[0].config.run.output_dir)
    known = tuple(with_known_folders(trials))
    return Sweep(loader.sweep_name, file, path, output_dir, known, keys.max_concurrent, keys.asha, keys.target)


@dataclass(frozen=True)
class _Loader:
    """Loads trials from the parts of a sweep file that all trials share."""

    sweep_name: str
    file: Path
    layer: Layer
    base: Variant
    overrides: tuple[str, ...]

    def section(self, given: Variant) -> type[MethodConfig] | None:
        """Returns the section of a trial's method; None if no key could be one of another method, or on a problem."""
        from fedvtc.learning.methods import config_classes

        if not any(lacks(MethodConfig, setting) for setting in given):
            return None
        files, own = self._parts([setting for setting in given if not lacks(MethodConfig, setting)])
        try:
            layers = [_as_layer(own, self.layer)]
            return type(load(files, self.overrides, methods=config_classes(), layers=layers).method)
        except ConfigError:
            # Loading the trial reports the problems.
            return None

    def trial(self, name: str, values: Mapping[str, Any], given: Variant) -> tuple[Trial, str]:
        """Returns a trial, and `run.output_dir` as the user wrote it.

        Args:
            name: the name of the trial.
            values: the values that the table shows.
            given: all settings of the trial.

        Raises:
            ConfigError: one line for each problem of the config.
        """
        from fedvtc.learning.methods import config_classes

        methods = config_classes()
        files, own = self._parts(given)
        overrides = [*self.overrides, f"run.name={name}"]
        layers = [_as_layer(own, self.layer)]
        config = load(files, overrides, methods=methods, layers=layers, more_checks=own_code_problems)
        check_submitted(config)
        own = [_with_text(setting, self.layer, type(config.method)) for setting in own]
        placed = _placed(config, self.sweep_name)
        overrides += _placing_overrides(config, placed)
        # Arguments form a single layer, where an overridden method.name does not drop the keys that the sweep file sets
        # for another method.
        if self._overrides_method() and not _gives(files, [*map(_argument, own), *overrides], methods, placed):
            own = [setting for setting in own if not setting.key.startswith("method.")]
        return Trial(name, values, placed, (*files, *map(_argument, own), *overrides)), config.run.output_dir

    def _parts(self, given: Sequence[Setting]) -> tuple[list[str], list[Setting]]:
        """Returns the config files and the keys of a trial."""
        files = [*paths_of(self.base, self.file), *paths_of(given, self.file)]
        return files, [setting for setting in given if setting.key not in (FILES, LABEL)]

    def _overrides_method(self) -> bool:
        return any(overridden_key(override) in ("method", "method.name") for override in self.overrides)


def _placed(config: Config, sweep_name: str) -> Config:
    """Returns the config with the sweep folder as output folder, and with the W&B group of the sweep."""
    folder = os.path.abspath(Path(config.run.output_dir, sweep_name))
    wandb = replace(config.tracking.wandb, group=config.tracking.wandb.group or sweep_name)
    return replace(
        config,
        run=replace(config.run, output_dir=folder, resume="auto"),
        tracking=replace(config.tracking, wandb=wandb),
    )


def _placing_overrides(config: Config, placed: Config) -> Iterator[str]:
    yield f"run.output_dir={placed.run.output_dir}"
    yield "run.resume=auto"
    if config.tracking.wandb.group is None:
        yield f"tracking.wandb.group={placed.tracking.wandb.group}"


def _as_layer(given: Sequence[Setting], layer: Layer) -> Layer:
    """Merges settings into one layer that keeps the line of each setting; later settings win."""
    content: dict[str, Any] = {}
    lines: dict[KeyPath, int] = {}
    written: dict[KeyPath, str] = {}
    for setting in given:
        *above, last = path = tuple(setting.key.split("."))
        node = content
        for step in above:
            inner = node.get(step)
            if not isinstance(inner, dict):
                inner = node[step] = {}
            node = inner
        # An empty section removes nothing. Values are copied, so that later settings do not change the sweep file.
        if setting.value != {} or not isinstance(node.get(last), dict):
            node[last] = copy.deepcopy(setting.value)
        line = setting.where.rpartition(":")[2]
        if line.isdecimal():
            # A section has the line of its first key.
            lines |= {path[:end]: int(line) for end in range(1, len(path)) if path[:end] not in lines}
            lines[path] = int(line)
        written = {other: word for other, word in written.items() if other[: len(path)] != path}
        written |= {(*path, *below): word for below, word in setting.written.items()}
    return Layer(layer.source, content, lines, written)


def _in_trials(line: str, names: Sequence[str], num_trials: int) -> str:
    """Returns the line of a problem, with the trials that have the problem unless all trials have it."""
    if len(names) == num_trials:
        return line
    first, rest = ", ".join(names[:_TRIALS_NAMED]), len(names) - _TRIALS_NAMED
    some = f"{first} and {rest} more" if rest > 0 else first
    is_of_methods = line.startswith("method.") and f"{UNKNOWN} ({COMMAND_LINE})" in line
    fix = " Under `set` of the sweep file, a key applies to the methods that have it." if is_of_methods else ""
    return f"{line} Only in {len(names)} of {num_trials} trials: {some}.{fix}"


def _with_text(setting: Setting, layer: Layer, method: type[MethodConfig]) -> Setting:
    """Returns the setting with the user's text as value if the key accepts text alone."""
    value: Any = with_texts(_as_layer([setting], layer), method).content
    for step in setting.key.split("."):
        value = value[step]
    return replace(setting, value=value)


def _gives(
    files: Sequence[str], arguments: Sequence[str], methods: Mapping[str, type[MethodConfig]], config: Config
) -> bool:
    """True if files and arguments load without a problem and give this config."""
    try:
        return load(files, arguments, methods=methods) == config
    except ConfigError:
        return False


def _argument(setting: Setting) -> str:
    """Returns a setting as `key=value`, the value as YAML on one line."""
    value = setting.value
    plain = isinstance(value, str) and value.isidentifier() and parse(value).content == value
    return f"{setting.key}={value if plain else json.dumps(value, ensure_ascii=False)}"


def _raise(problems: Sequence[Problem]) -> None:
    if problems:
        raise ConfigError([str(problem) for problem in problems])

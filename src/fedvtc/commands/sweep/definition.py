"""From a sweep file to its trials, each with a config that is loaded and checked."""

import copy
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from fedvtc.commands.sweep.checks import check_settings, check_trials, overridden_key, paths_of
from fedvtc.commands.sweep.sweep_file import read_keys
from fedvtc.commands.sweep.trial_names import trial_names
from fedvtc.commands.sweep.trials import Sweep, Trial
from fedvtc.commands.sweep.variants import FILES, Setting, settings, variants
from fedvtc.config import Config, check_submitted, load
from fedvtc.config.layers import KeyPath, Layer
from fedvtc.config.problems import Problem
from fedvtc.config.schema import MethodConfig
from fedvtc.errors import ConfigError


def load_sweep(file: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Reads a sweep file and makes the config of every trial.

    Files merge first: `base`, then those of the trial; then `set` together with the trial's values; then `overrides`.

    Args:
        file: the sweep file.
        overrides: `key=value` for all trials.

    Raises:
        ConfigError: with one line for every problem, whichever trials it is in.
    """
    from fedvtc.learning.methods import config_classes

    keys, layer = read_keys(file)
    problems: list[Problem] = []
    found = variants(keys, layer, problems)
    common = tuple(settings(keys.set_, layer, ("set",)))
    base = [Setting(FILES, name, layer.where(("base", index))) for index, name in enumerate(keys.base)]
    problems += check_settings([*base, *common], found, file, overrides)
    _raise(problems)

    methods, name = config_classes(), keys.name or file.stem
    values = [{setting.key: setting.value for setting in variant} for variant in found]
    names = trial_names(values)
    trials: list[Trial] = []
    output_dir = ""
    lines: dict[str, None] = {}
    names_method = any(overridden_key(override) in ("method", "method.name") for override in overrides)
    for trial_name, given, variant in zip(names, values, found, strict=True):
        files = [*paths_of(base, file), *paths_of([*common, *variant], file)]
        own = [setting for setting in (*common, *variant) if setting.key != FILES]
        named = [*overrides, f"run.name={trial_name}"]
        try:
            config = load(files, named, methods=methods, layers=[_layer(own, layer)])
            check_submitted(config)
        except ConfigError as error:
            lines |= dict.fromkeys(error.problems)
            continue
        placed, output_dir = _placed(config, name), config.run.output_dir
        named += _place_words(config, placed)
        # Words are one layer, in which the name of a method does not drop keys that this file has for another one.
        if names_method and not _makes(files, [*map(_word, own), *named], methods, placed):
            own = [setting for setting in own if not setting.key.startswith("method.")]
        trials.append(Trial(trial_name, given, placed, (*files, *map(_word, own), *named)))
    if lines:
        raise ConfigError(list(lines))
    _raise(check_trials(trials, file))
    path = Path(trials[0].config.run.output_dir)
    return Sweep(name, file, path, output_dir, tuple(trials), keys.max_concurrent, keys.asha)


def _placed(config: Config, name: str) -> Config:
    """The config of a trial with its place among the runs of the sweep."""
    folder = os.path.abspath(Path(config.run.output_dir, name))
    wandb = replace(config.tracking.wandb, group=config.tracking.wandb.group or name)
    return replace(
        config,
        run=replace(config.run, output_dir=folder, resume="auto"),
        tracking=replace(config.tracking, wandb=wandb),
    )


def _place_words(config: Config, placed: Config) -> Iterator[str]:
    yield f"run.output_dir={placed.run.output_dir}"
    yield "run.resume=auto"
    if config.tracking.wandb.group is None:
        yield f"tracking.wandb.group={placed.tracking.wandb.group}"


def _layer(given: Sequence[Setting], layer: Layer) -> Layer:
    """Settings as one layer of a config, each where the sweep file has it; later ones win."""
    content: dict[str, Any] = {}
    lines: dict[KeyPath, int] = {}
    for setting in given:
        *above, last = path = tuple(setting.key.split("."))
        node = content
        for step in above:
            inner = node.get(step)
            if not isinstance(inner, dict):
                inner = node[step] = {}
            node = inner
        # What is empty takes nothing away, and what later settings add must not get into the sweep file's own.
        if setting.value != {} or not isinstance(node.get(last), dict):
            node[last] = copy.deepcopy(setting.value)
        line = setting.where.rpartition(":")[2]
        if line.isdecimal():
            lines[path] = int(line)
    return Layer(layer.source, content, lines)


def _makes(
    files: Sequence[str], words: Sequence[str], methods: Mapping[str, type[MethodConfig]], config: Config
) -> bool:
    try:
        return load(files, words, methods=methods) == config
    except ConfigError:
        return False


def _word(setting: Setting) -> str:
    """`key=value` of a setting; the value is YAML."""
    value = setting.value
    plain = isinstance(value, str) and value.isidentifier() and yaml.safe_load(value) == value
    return f"{setting.key}={value if plain else _as_yaml(value)}"


def _as_yaml(value: Any) -> str:
    """On one line; letters stay as they are, for JSON writes those beyond 16 bits as two that YAML does not know."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in text)


def _raise(problems: Sequence[Problem]) -> None:
    if problems:
        raise ConfigError([str(problem) for problem in problems])

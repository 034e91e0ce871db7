"""From a sweep file to its trials, each with a config that is loaded and checked."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from fedvtc.config import Config, check_submitted, load
from fedvtc.config.layers import KeyPath, Layer, read_file
from fedvtc.config.problems import COMMAND_LINE, Problem, show
from fedvtc.config.schema import MethodConfig
from fedvtc.errors import ConfigError
from fedvtc.sweep.keys import AshaKeys, read_keys
from fedvtc.sweep.naming import trial_names
from fedvtc.sweep.variants import FILES, Setting, settings, variants

OWN_KEYS = ("run.name", "run.resume")
"""Keys that a sweep sets itself."""
SHARED_KEYS = ("run.output_dir", "cluster")
"""What all trials have alike."""


@dataclass(frozen=True)
class Trial:
    """One federation of a sweep.

    Attributes:
        name: of its run folder.
        values: what the sweep file gives it and not to all, by dotted key.
        config: whole and checked, with its name and place.
        words: of the `fedvtc run` that is the same run.
    """

    name: str
    values: Mapping[str, Any]
    config: Config
    words: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Its run folder."""
        return Path(self.config.run.output_dir, self.name)


@dataclass(frozen=True)
class Sweep:
    """Trials under one name.

    Attributes:
        name: of the sweep.
        file: that it was read from.
        path: the folder with all that belongs to it, absolute.
        output_dir: the folder around it, as it was given.
        trials: in their order.
        max_concurrent: trials at a time; None leaves it to the cluster.
        asha: early stopping, or None.
    """

    name: str
    file: Path
    path: Path
    output_dir: str
    trials: tuple[Trial, ...]
    max_concurrent: int | None
    asha: AshaKeys | None


def load_sweep(file: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Reads a sweep file and makes the config of every trial.

    Files merge first: `base`, then those of the trial; then `set` together with the trial's values; then `overrides`.

    Args:
        file: the sweep file.
        overrides: `key=value` for all trials.

    Raises:
        ConfigError: with one line for every problem, whichever trials it is in.
    """
    from fedvtc.methods import config_classes

    keys, layer = read_keys(file)
    problems: list[Problem] = []
    found = variants(keys, layer, problems)
    common = tuple(settings(keys.set_, layer, ("set",)))
    base = [Setting(FILES, name, layer.where(("base", index))) for index, name in enumerate(keys.base)]
    _check_files([*base, *common, *(setting for variant in found for setting in variant)], file, problems)
    problems += _own_keys([*common, *(setting for variant in found for setting in variant)], overrides)
    _raise(problems)

    methods, name = config_classes(), keys.name or file.stem
    values = [{setting.key: setting.value for setting in variant} for variant in found]
    names = trial_names(values)
    trials: list[Trial] = []
    output_dir = ""
    lines: dict[str, None] = {}
    names_method = any(_key(override) in ("method", "method.name") for override in overrides)
    for trial_name, variant in zip(names, found, strict=True):
        files = [*_files(base, file), *_files([*common, *variant], file)]
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
        given = {setting.key: setting.value for setting in variant}
        trials.append(Trial(trial_name, given, placed, (*files, *map(_word, own), *named)))
    if lines:
        raise ConfigError(list(lines))
    _raise([*_alike(names, file), *_shared(trials, file)])
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


def _files(given: Sequence[Setting], file: Path) -> list[str]:
    """The paths that settings name, relative to where the command was given, as the sweep file's own is."""
    names = [setting.value for setting in given if setting.key == FILES]
    flat = [name for value in names for name in ([value] if isinstance(value, str) else value)]
    return [os.path.normpath(file.parent / name) for name in flat]


def _check_files(given: Sequence[Setting], file: Path, problems: list[Problem]) -> None:
    """Adds what is wrong with each file that settings name, once."""
    seen = set()
    for setting in given:
        if setting.key != FILES:
            continue
        if not all(isinstance(name, str) for name in _listed(setting.value)):
            what, fix = (
                f"expected a path or a list of paths, not {show(setting.value)}",
                "They are relative to this file.",
            )
            problems.append(Problem(FILES, what, setting.where, fix))
            continue
        for path in _files([setting], file):
            if path not in seen:
                seen.add(path)
                read_file(Path(path), setting.where, problems)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _own_keys(given: Sequence[Setting], overrides: Sequence[str]) -> Iterator[Problem]:
    written = [(setting.key, setting.where) for setting in given]
    written += [(_key(override), COMMAND_LINE) for override in overrides]
    for key, where in dict.fromkeys(written):
        if key in OWN_KEYS:
            yield Problem(key, "a sweep sets it for each of its trials", where, "Take it out.")


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
        node[last] = setting.value
        lines[path] = int(setting.where.rpartition(":")[2])
    return Layer(layer.source, content, lines)


def _makes(
    files: Sequence[str], words: Sequence[str], methods: Mapping[str, type[MethodConfig]], config: Config
) -> bool:
    try:
        return load(files, words, methods=methods) == config
    except ConfigError:
        return False


def _key(override: str) -> str:
    return override.partition("=")[0].strip()


def _word(setting: Setting) -> str:
    """`key=value` of a setting; the value is YAML."""
    value = setting.value
    plain = isinstance(value, str) and value.isidentifier() and yaml.safe_load(value) == value
    return f"{setting.key}={value if plain else json.dumps(value)}"


def _alike(names: Sequence[str], file: Path) -> Iterator[Problem]:
    for name, count in Counter(names).items():
        if count > 1:
            fix = "Give each its own values."
            yield Problem(str(file), f"{count} trials are alike or have values that read alike ({name})", fix=fix)


def _shared(trials: Sequence[Trial], file: Path) -> Iterator[Problem]:
    def of(trial: Trial) -> tuple[object, ...]:
        return trial.config.run.output_dir, trial.config.cluster

    for trial in trials[1:]:
        for key, first, other in zip(SHARED_KEYS, of(trials[0]), of(trial), strict=True):
            if first != other:
                fix = "Set it under set, or on the command line."
                yield Problem(key, f"differs between trials {trials[0].name} and {trial.name}", str(file), fix)
                return


def _raise(problems: Sequence[Problem]) -> None:
    if problems:
        raise ConfigError([str(problem) for problem in problems])

"""From files and overrides to one frozen `Config`, or to every problem at once."""

import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import ListConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException

from fedvtc.config.keys import valid_part
from fedvtc.config.layers import KeyPath, Layer, dotted, read_files, read_overrides
from fedvtc.config.problems import Problem, did_you_mean, show
from fedvtc.config.schema import Config, MethodConfig
from fedvtc.config.secrets import hidden
from fedvtc.config.values import validate
from fedvtc.errors import ConfigError


def load(
    files: Sequence[Path | str],
    overrides: Sequence[str],
    *,
    methods: Mapping[str, type[MethodConfig]],
    layers: Sequence[Layer] = (),
) -> Config:
    """Merges files left to right over the defaults, then overrides, resolves and checks.

    A file may hold `include: [PATH, ...]`, paths relative to itself, merged before its own keys. Mappings merge, lists
    replace. `method.name` decides which keys stand under `method`: where a later layer sets another name, all keys that
    earlier ones set under `method` are dropped, so that `run experiment.yaml method/local.yaml` works although the
    experiment includes a method with other keys.

    Args:
        files: YAML files.
        overrides: `key=value`, with dots in the key and YAML as value.
        methods: the name of each method and the dataclass of its keys.
        layers: keys that stand in something else than a file of a config; they win over the files.

    Raises:
        ConfigError: with one line for every problem: the key, what is wrong, where it was set, what would work.
    """
    problems: list[Problem] = []
    file_layers = read_files(files, problems)
    override_layers = read_overrides(overrides, problems)
    name, layers = _choose_method([*file_layers, *layers], override_layers)
    if not isinstance(name, str) or name not in methods:
        what, fix = f"unknown method {show(name)}", did_you_mean(str(name), methods)
        problems.append(Problem("method.name", what, _where(layers, ("method", "name")), fix))
        layers = [_without(layer, "method") for layer in layers]
        default = Config()
    else:
        default = replace(Config(), method=methods[name](name=name))

    sections = {"method": type(default.method)}
    parts = [valid_part(layer, layer.content, Config, sections, problems) for layer in layers]
    merged = OmegaConf.merge(OmegaConf.structured(default), *parts)
    unresolved = dict(_unresolved(merged, ()))
    problems += [_placed(problem, layers) for problem in unresolved.values()]
    # A key that has a problem takes its default here, so that the values of the others are checked all the same.
    parts = [_pruned(part, unresolved) for part in parts]
    config: Config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(default), *parts))  # type: ignore[assignment]
    known = {problem.key for problem in problems}
    problems += [_placed(problem, layers) for problem in validate(config) if problem.key not in known]
    if problems:
        raise ConfigError([hidden(str(problem)) for problem in problems])
    # Here, so that config.yaml says where the run lies to whoever reads it.
    return replace(config, run=replace(config.run, output_dir=os.path.expanduser(config.run.output_dir)))


def _choose_method(files: list[Layer], overrides: list[Layer]) -> tuple[object, list[Layer]]:
    """The name of the method and the layers, without the method keys that belong to another one.

    Overrides count as one layer: in `method.epochs=2 method.name=local` both keys belong to `local`.
    """
    name: object = MethodConfig().name
    kept: list[Layer] = []
    for group in [*([layer] for layer in files), overrides]:
        names = [layer.content["method"]["name"] for layer in group if layer.sets(("method", "name"))]
        if names and names[-1] != name:
            name = names[-1]
            kept = [_without(layer, "method") for layer in kept]
        kept += group
    return name, kept


def _without(layer: Layer, section: str) -> Layer:
    return replace(layer, content={key: value for key, value in layer.content.items() if key != section})


def _where(layers: Sequence[Layer], path: KeyPath) -> str:
    """Where the layer that decides a key wrote it; empty for a default."""
    return next((layer.where(path) for layer in reversed(layers) if layer.sets(path)), "")


def _placed(problem: Problem, layers: Sequence[Layer]) -> Problem:
    path = tuple(int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]]+", problem.key))
    return replace(problem, where=_where(layers, path))


def _unresolved(node: BaseContainer, path: KeyPath) -> Iterator[tuple[KeyPath, Problem]]:
    """Every value whose `${...}` leads nowhere or to a wrong type."""
    steps: Iterable[Any] = range(len(node)) if isinstance(node, ListConfig) else node
    for step in steps:
        inner = (*path, step)
        try:
            value = node[step]
        except OmegaConfBaseException as error:
            text = str(error).splitlines()[0].rstrip(".")
            yield inner, Problem(dotted(inner), text.removeprefix("KeyError raised while resolving interpolation: "))
            continue
        if isinstance(value, BaseContainer):
            yield from _unresolved(value, inner)


def _pruned(part: Any, paths: Container[KeyPath], path: KeyPath = ()) -> Any:
    """A part without the values at `paths`."""
    if isinstance(part, Mapping):
        return {k: _pruned(v, paths, (*path, k)) for k, v in part.items() if (*path, k) not in paths}
    return part

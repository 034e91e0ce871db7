"""Loads files and overrides as one frozen `Config`, or reports all problems at once."""

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import ListConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from fedvtc.config.checking import as_written, checked, non_sections, refusal
from fedvtc.config.export import to_dict
from fedvtc.config.layers import Layer, dotted, placed, read_files, read_overrides
from fedvtc.config.own_code import OwnCodeError, own_calls
from fedvtc.config.problems import Problem, show
from fedvtc.config.registered import similar_name
from fedvtc.config.schema import Config, MethodConfig
from fedvtc.config.secrets import hidden
from fedvtc.config.shipped import is_shipped
from fedvtc.config.values import validate
from fedvtc.config.yaml_text import KeyPath
from fedvtc.errors import ConfigError, first_line

_METHOD = ("method",)


def load(
    files: Sequence[Path | str],
    overrides: Sequence[str],
    *,
    methods: Mapping[str, type[MethodConfig]],
    layers: Sequence[Layer] = (),
    more_checks: Callable[[Config], Iterable[Problem]] = lambda config: (),
) -> Config:
    """Merges files left to right over the defaults, then overrides; resolves `${...}` and checks all values.

    A file may hold `include: [PATH, ...]`, paths relative to the file or names of shipped configs, merged before the
    file's own keys. Mappings merge, lists replace. `method.name` decides which keys stand under `method`: where a later
    layer sets another name, all keys that earlier layers set under `method` are dropped, so that
    `run experiment.yaml method/local.yaml` works although the experiment includes a method with other keys.

    Args:
        files: YAML files, or names of shipped configs such as `experiment/digits`.
        overrides: `key=value`, with dots in the key and YAML as value.
        methods: the section of each method, by the method's name; may import methods of the user's own.
        layers: keys from other sources than config files; these keys win over the files.
        more_checks: returns further problems of a config without other problems, with `where` empty.

    Raises:
        ConfigError: one line for each problem: the key, the fault, the file and line, and the remedy.
        OwnCodeError: the section of a method of the user's own fails while it checks its keys.
    """
    problems: list[Problem] = []
    file_layers = read_files(files, problems)
    override_layers = read_overrides(overrides, problems)
    name, layers = _choose_method([*file_layers, *layers], override_layers)
    default = _default_of(name, methods)
    if isinstance(default, Problem):
        problems.append(placed(default, layers))
        layers = [_without_method(layer) for layer in layers]
        default = MethodConfig()

    layers = [with_texts(layer, type(default)) for layer in layers]
    defaults = to_dict(replace(Config(), method=default))
    # OmegaConf reads `???` as a value to come.
    marks = [path for layer in layers for path, word in layer.written.items() if word == "???"]
    found = [Problem(dotted(path), "??? is not a value", fix="Give a value, or leave the key out.") for path in marks]
    merged = functools.reduce(_merged, (layer.content for layer in layers), defaults)
    values = _resolved(OmegaConf.create(merged), (), found)
    with own_calls():
        method, wrong_in_method = checked(type(default), values.pop("method", {}), _METHOD)
    config, wrong = checked(Config, values)
    config = replace(config, method=method)
    found += wrong + wrong_in_method
    # Each key has its default where its value does not fit.
    known = {problem.key for problem in found}
    found += [problem for problem in validate(config) if problem.key not in known]
    problems += [placed(problem, layers) for problem in found]
    known |= {problem.key for problem in found}
    for layer in layers:
        wrong = [*non_sections(layer, Config), *non_sections(layer, type(default), _METHOD)]
        problems += [problem for problem in wrong if problem.key not in known]
    if not problems:
        problems += [placed(problem, layers) for problem in more_checks(config)]
    if problems:
        raise ConfigError([hidden(str(problem)) for problem in problems])
    # Expanded here, so that config.yaml names the folder for every reader.
    return replace(config, run=replace(config.run, output_dir=os.path.expanduser(config.run.output_dir)))


def with_texts(layer: Layer, method: type[MethodConfig]) -> Layer:
    """Returns the layer with the user's text as the value of each key that accepts text alone, see `as_written`."""
    return as_written(as_written(layer, Config), method, _METHOD)


def _choose_method(files: list[Layer], overrides: list[Layer]) -> tuple[object, list[Layer]]:
    """Returns the name of the method, and the layers without keys of other methods.

    All overrides count as one layer: in `method.epochs=2 method.name=local` both keys belong to `local`.
    """
    name: object = MethodConfig().name
    kept: list[Layer] = []
    for group in [*([layer] for layer in files), overrides]:
        names = [layer.content["method"]["name"] for layer in group if layer.sets(("method", "name"))]
        if names and names[-1] != name:
            name = names[-1]
            kept = [_without_method(layer) for layer in kept]
        kept += group
    return name, kept


def _default_of(name: object, methods: Mapping[str, type[MethodConfig]]) -> MethodConfig | Problem:
    """Returns the section of a method with its defaults, or the problem of the name or of the method's own code."""
    if isinstance(name, str) and name in methods:
        try:
            with own_calls():
                return methods[name](name=name)
        except OwnCodeError as error:
            return Problem("method.name", error.what, fix=error.fix)
        except ValidationError as error:
            fix = "Correct the defaults, or the checks of the section."
            return Problem("method.name", f"the section of {name} refuses its defaults ({refusal(error)})", fix=fix)
    fix = similar_name("methods", str(name), methods)
    if is_shipped(f"method/{name}"):
        fix = f"To use the config of this name, leave method.name out and give method/{name}."
    return Problem("method.name", f"unknown method {show(name)}", fix=fix)


def _without_method(layer: Layer) -> Layer:
    content = {key: value for key, value in layer.content.items() if key != "method"}
    return replace(
        layer, content=content, written={path: word for path, word in layer.written.items() if path[0] != "method"}
    )


def _merged(below: Any, above: Any) -> Any:
    """Merges mappings key by key; any other value of the layer above replaces the value below."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def _resolved(node: BaseContainer, path: KeyPath, problems: list[Problem]) -> Any:
    """Returns plain values with `${...}` resolved; keys that do not resolve are left out and added to `problems`."""
    steps: Iterable[Any] = range(len(node)) if isinstance(node, ListConfig) else node
    kept = {}
    for step in steps:
        if OmegaConf.is_missing(node, step):
            continue
        try:
            value = node[step]
        except OmegaConfBaseException as error:
            text = first_line(error).removeprefix("KeyError raised while resolving interpolation: ")
            problems.append(Problem(dotted((*path, step)), text.rstrip(".").strip('"')))
            continue
        kept[step] = _resolved(value, (*path, step), problems) if isinstance(value, BaseContainer) else value
    return list(kept.values()) if isinstance(node, ListConfig) else kept

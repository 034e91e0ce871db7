import dataclasses
import json
import re
from pathlib import Path

import pytest

from fedvtc.config import Config, check_resumable, field_docs, fingerprint, load, same_place, to_yaml
from fedvtc.config.changes import flat, may_change
from fedvtc.config.fields import leaves
from fedvtc.config.schema import RunConfig
from fedvtc.errors import ConfigError
from fedvtc.learning.methods import config_classes

OLD_RUN = Path(__file__).parents[1] / "data/old_run/small"
METHODS = config_classes()
CONFIGS = {name: dataclasses.replace(Config(), method=method(name=name)) for name, method in METHODS.items()}
# The common keys once, and the keys of each method.
KEYS = sorted(
    {("fedvtc", key) for key in flat(CONFIGS["fedvtc"])}
    | {(name, key) for name, config in CONFIGS.items() for key in flat(config) if key.startswith("method.")}
)
FOLDER = ("run.name", "run.output_dir")
OTHERS = {"placement.clients_per_actor": 7, "evaluate.clients": 7, "data.name": "mnist", "method.name": "another"}


def doc_of(method, key):
    docs = [*field_docs(Config), *field_docs(type(CONFIGS[method].method), "method")]
    return next(doc for doc in docs if doc.key == key)


def is_in_range(method, key, number):
    try:
        changed(CONFIGS[method], key.split("."), number)
    except ValueError:
        return False
    return True


def another(method, key):
    """A value of the key other than its default."""
    value, doc = flat(CONFIGS[method])[key], doc_of(method, key)
    if key in OTHERS:
        return OTHERS[key]
    words = [word for word in doc.type.split(" | ") if word not in ("int", "float", "bool", "text", "null")]
    if words and not isinstance(value, list):
        return next(word for word in words if word != value)
    match value:
        case bool():
            return not value
        case int() | float():
            return next(number for number in (value + 1, value + 0.5, value / 2) if is_in_range(method, key, number))
        case str():
            return f"{value}x"
        case list():
            return value[:-1] if value else ["x:Y"]
        case None:
            return 7 if doc.type.startswith(("int", "float")) else "x"
    raise AssertionError(value)


def changed(node, path, value):
    """A section with another value of one key."""
    step, *rest = path
    name = next(field.name for field in dataclasses.fields(node) if field.name.rstrip("_") == step)
    return dataclasses.replace(node, **{name: changed(getattr(node, name), rest, value) if rest else value})


def test_every_key_has_a_resume_rule():
    documented = {doc.key for doc in field_docs(Config)}
    documented |= {doc.key for method in METHODS.values() for doc in field_docs(method, "method")}
    assert {key for _, key in KEYS} == documented


@pytest.mark.parametrize(("method", "key"), KEYS)
def test_a_key_may_change_on_resume_or_is_refused_by_name(method, key, keys_of):
    before = CONFIGS[method]
    after = changed(before, key.split("."), another(method, key))
    old = flat(before)
    assert [name for name, value in flat(after).items() if value != old[name]] == [key]
    free = key in may_change(type(before.method))
    assert free == (doc_of(method, key).effect is not None)
    if free:
        check_resumable(before, after)
    else:
        with pytest.raises(ConfigError) as refused:
            check_resumable(before, after)
        assert keys_of(refused.value) == [key]
    assert (fingerprint(before) == fingerprint(after)) == (free or key in FOLDER)


def test_all_changed_keys_are_refused_at_once(keys_of, golden):
    before = CONFIGS["local"]
    run, training = dataclasses.replace(before.run, seed=1), dataclasses.replace(before.training, epochs=3)
    with pytest.raises(ConfigError) as refused:
        check_resumable(before, dataclasses.replace(before, run=run, training=training))
    assert keys_of(refused.value) == ["run.seed", "training.epochs"]
    golden(refused.value)
    check_resumable(before, before)


def test_another_method_is_another_run(keys_of, golden):
    with pytest.raises(ConfigError) as refused:
        check_resumable(CONFIGS["local"], CONFIGS["fedproto"])
    assert keys_of(refused.value) == ["method.name"]
    golden(refused.value)
    fingerprints = {fingerprint(config) for config in CONFIGS.values()}
    assert len(fingerprints) == len(CONFIGS)
    assert all(re.fullmatch("[0-9a-f]{64}", text) for text in fingerprints)


def test_the_fingerprint_of_an_old_run_is_in_its_manifest():
    config = load([OLD_RUN / "config.yaml"], [], methods=METHODS)
    (manifest,) = OLD_RUN.glob("checkpoints/*/manifest.json")
    assert fingerprint(config) == json.loads(manifest.read_text())["fingerprint"]
    # All keys that the old run had, as they were; keys that came later have their defaults.
    old, now = (OLD_RUN / "config.yaml").read_text().splitlines(), to_yaml(config).splitlines()
    assert [line for line in now if line in old] == old
    # A section that came later has a line of its own.
    sections = [line for line in now if line.endswith(":") and line not in old]
    every = [*leaves(Config), *leaves(type(config.method), "method")]
    added = {leaf.key for leaf in every if leaf.is_added_later}
    assert len(now) - len(old) - len(sections) == len(added) > 0


def test_a_run_found_by_its_folder_keeps_the_folder():
    before = dataclasses.replace(Config(), run=RunConfig(name="a", output_dir="/b"))
    after = same_place(before, dataclasses.replace(Config(), run=RunConfig(name="c", rounds=3)))
    assert after.run == RunConfig(name="a", output_dir="/b", rounds=3)

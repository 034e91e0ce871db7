import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvtc.config import Config, MethodConfig, fingerprint, load, to_yaml
from fedvtc.config.schema import BackboneShare
from fedvtc.errors import ConfigError


@dataclass(frozen=True)
class GeneratorConfig:
    lr: float = 1e-3
    epochs: int = 2


@dataclass(frozen=True)
class FancyConfig(MethodConfig):
    name: str = "fancy"
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)

    def problems(self) -> list[str]:
        return (
            [] if self.generator.epochs >= 1 else [f"generator.epochs must be at least 1, not {self.generator.epochs}"]
        )


METHODS = {"fedvtc": MethodConfig, "fancy": FancyConfig, "local": MethodConfig}

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write_file(path: str, text: str) -> Path:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    return write_file


def problems(*overrides: str, files: tuple[str | Path, ...] = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(files, overrides, methods=METHODS)
    return list(caught.value.problems)


def test_without_input_the_config_is_the_default():
    assert load([], [], methods=METHODS) == Config()


def test_later_files_win_and_overrides_win_over_files(write: Write):
    write("a.yaml", "run: {rounds: 3, seed: 1}\npartition: {alpha: 0.5}\n")
    write("b.yaml", "run: {rounds: 4}\n")
    config = load(["a.yaml", "b.yaml"], ["run.seed=7"], methods=METHODS)
    assert (config.run.rounds, config.run.seed, config.partition.alpha) == (4, 7, 0.5)
    assert config == replace(
        Config(), run=replace(Config().run, rounds=4, seed=7), partition=replace(Config().partition, alpha=0.5)
    )


def test_includes_are_relative_to_their_file_and_come_before_its_own_keys(write: Write):
    write("conf/data/mnist.yaml", "data: {name: mnist, augment: shift}\n")
    write("conf/experiment/x.yaml", "include: [../data/mnist.yaml]\ndata: {augment: none}\n")
    data = load(["conf/experiment/x.yaml"], [], methods=METHODS).data
    assert (data.name, data.augment) == ("mnist", "none")


def test_a_file_may_be_included_twice_but_not_by_itself(write: Write):
    write("seed.yaml", "run: {seed: 5}\n")
    write("left.yaml", "include: [seed.yaml]\n")
    write("both.yaml", "include: [left.yaml, seed.yaml]\n")
    assert load(["both.yaml"], [], methods=METHODS).run.seed == 5
    write("a.yaml", "include:\n  - b.yaml\n")
    write("b.yaml", "include:\n  - a.yaml\n")
    assert problems(files=("a.yaml",)) == [
        "a.yaml: includes itself: a.yaml -> b.yaml -> a.yaml (b.yaml:2). Take one of the includes out."
    ]


def test_the_home_stands_for_itself_where_runs_lie(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")

    assert load([], ["run.output_dir=~/runs"], methods=METHODS).run.output_dir == "/home/me/runs"
    assert load([], ["run.output_dir=a/~"], methods=METHODS).run.output_dir == "a/~"


def test_lists_replace():
    config = load([], ["population.backbones=[{name: resnet8, share: 1}]"], methods=METHODS)
    assert config.population.backbones == [BackboneShare("resnet8", 1.0)]


def test_a_method_file_replaces_the_method_of_an_experiment(write: Write):
    write("method/fancy.yaml", "method: {name: fancy, generator: {lr: 0.1}}\n")
    write("method/local.yaml", "method: {name: local}\n")
    write("experiment.yaml", "include: [method/fancy.yaml]\nrun: {rounds: 2}\nmethod: {generator: {epochs: 3}}\n")
    assert load(["experiment.yaml"], [], methods=METHODS).method == FancyConfig("fancy", None, GeneratorConfig(0.1, 3))
    assert load(["experiment.yaml", "method/local.yaml"], [], methods=METHODS).method == MethodConfig("local")
    assert load(["experiment.yaml"], ["method.name=local"], methods=METHODS).method == MethodConfig("local")


def test_a_method_named_again_keeps_the_keys(write: Write):
    write("a.yaml", "method: {name: fancy, generator: {lr: 0.1}}\n")
    write("b.yaml", "method: {name: fancy, generator: {epochs: 9}}\n")
    assert load(["a.yaml", "b.yaml"], [], methods=METHODS).method == FancyConfig("fancy", None, GeneratorConfig(0.1, 9))


def test_overrides_stand_beside_each_other_whatever_their_order():
    config = load([], ["method.generator.epochs=5", "method.name=fancy"], methods=METHODS)
    assert config.method == FancyConfig("fancy", None, GeneratorConfig(1e-3, 5))


def test_interpolations_are_resolved(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEDVTC_DATA", "/images")
    overrides = ["data.path=${oc.env:FEDVTC_DATA,data}/a.npz", "run.rounds=${run.seed}", "run.seed=4"]
    config = load([], overrides, methods=METHODS)
    assert (config.data.path, config.run.rounds) == ("/images/a.npz", 4)


def test_text_stays_as_it_is_written(write: Write):
    file = write("a.yaml", "run: {name: 2026_11_23}\ntracking:\n  wandb:\n    group: 1e3\n    tags: [1_1, true, b]\n")
    config = load(
        [file], ["data.path=010", "run.output_dir=0x1F", "tracking.wandb={project: 1_0, name: 7}"], methods=METHODS
    )
    assert (config.run.name, config.run.output_dir, config.data.path) == ("2026_11_23", "0x1F", "010")
    wandb = config.tracking.wandb
    assert (wandb.group, wandb.project, wandb.name, wandb.tags) == ("1e3", "1_0", "7", ["1_1", "true", "b"])
    assert load([file], ["run.name='2026_11'", "run.seed=1_0"], methods=METHODS).run.name == "2026_11"
    assert load([file], ["run.seed=1_0"], methods=METHODS).run.seed == 10


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("run.sede=1", "run.sede: unknown key (command line). Did you mean run.seed?"),
        ("rnu.seed=1", "rnu: unknown key (command line). Did you mean run?"),
        ("method.generator.lr=1", "method.generator: unknown key (command line). Known: name, label."),
        ("run.rounds=ten", "run.rounds: expected a whole number, not 'ten' (command line)."),
        ("run.rounds=1.5", "run.rounds: expected a whole number, not 1.5 (command line)."),
        ("run.rounds=true", "run.rounds: expected a whole number, not true (command line)."),
        ("run.rounds=null", "run.rounds: expected a whole number, not null (command line)."),
        ("run.rounds=???", "run.rounds: expected a whole number, not '???' (command line)."),
        ("run.name=[a]", "run.name: expected text or null, not ['a'] (command line)."),
        ("data.download=perhaps", "data.download: expected true or false, not 'perhaps' (command line)."),
        ("partition.alpha=big", "partition.alpha: expected a number, not 'big' (command line)."),
        ("cluster=null", "cluster: expected keys (address, num_cpus, num_gpus), not null (command line)."),
        (
            "placement.pool=inlin",
            "placement.pool: expected one of ray, inline, not 'inlin' (command line). Did you mean inline?",
        ),
        ("population.backbones=resnet8", "population.backbones: expected a list, not 'resnet8' (command line)."),
        (
            "population.backbones=[resnet8]",
            "population.backbones[0]: expected keys (name, share), not 'resnet8' (command line).",
        ),
        (
            "population.backbones=[{name: resnet8}]",
            "population.backbones[0].share: missing, expected a number (command line).",
        ),
        (
            "run.rounds",
            "run.rounds: neither key=value nor a file (command line). "
            "Write key=value, or the path of a file that ends in .yaml.",
        ),
        ("run.seed=${run.nope}", "run.seed: Interpolation key 'run.nope' not found (command line)."),
        (
            "data.root=${oc.env:FEDVTC_NOT_SET}",
            "data.root: \"Environment variable 'FEDVTC_NOT_SET' not found\" (command line).",
        ),
        ("method.name=fanzy", "method.name: unknown method 'fanzy' (command line). Did you mean fancy?"),
        ("method.name=[fancy]", "method.name: unknown method ['fancy'] (command line). Did you mean fancy?"),
    ],
)
def test_a_wrong_override_is_one_line(override: str, line: str):
    assert problems(override) == [line]


def test_an_override_whose_value_is_not_yaml_is_one_line():
    # The words in the middle are those of the YAML library, with and without its C part.
    (line,) = problems("run.seed=[1")
    assert line.startswith("run.seed: the value cannot be read: ")
    assert line.endswith(" (command line). Quote the value for the shell: 'key=value'.")


SECRET = "0123456789abcdef" * 5


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "run.seed=${oc.env:HUB_TOKEN}",
            "run.seed: While dereferencing interpolation '${oc.env:HUB_TOKEN}': Value '$HUB_TOKEN' of type 'str' could "
            "not be converted to Integer (command line).",
        ),
        (f"run.seed=x{SECRET}", "run.seed: expected a whole number, not 'x$HUB_TOKEN... (command line)."),
        (f"run.sede={SECRET}", "run.sede: unknown key (command line). Did you mean run.seed?"),
        (f"{SECRET}=1", "$HUB_TOKEN: unknown key (command line). Known: "),
    ],
)
def test_no_line_shows_a_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch, override: str, line: str):
    monkeypatch.setenv("HUB_TOKEN", SECRET)
    # A part of the other, which would leave the rest of it in the line.
    monkeypatch.setenv("OLD_TOKEN", SECRET[:20])
    (found,) = problems(override)
    assert found.startswith(line)


def test_problems_in_files_name_the_line(write: Write):
    write(
        "x.yaml", "# header\nrun:\n  sede: 1\n  rounds: 0\npopulation:\n  backbones:\n    - {name: resnet9, share: 1}\n"
    )
    assert problems(files=("x.yaml",)) == [
        "run.sede: unknown key (x.yaml:3). Did you mean run.seed?",
        "run.rounds: must be at least 1, not 0 (x.yaml:4).",
        "population.backbones[0].name: unknown backbone 'resnet9' (x.yaml:7). Did you mean resnet8?",
    ]


def test_a_value_is_blamed_on_the_layer_that_decided_it(write: Write):
    write("x.yaml", "run:\n  rounds: 0\n")
    assert problems("run.rounds=-1", files=("x.yaml",)) == ["run.rounds: must be at least 1, not -1 (command line)."]
    write("y.yaml", "run: {seed: 1}\n")
    assert problems(files=("x.yaml", "y.yaml")) == ["run.rounds: must be at least 1, not 0 (x.yaml:2)."]


def test_all_kinds_of_problems_come_at_once(write: Write):
    write("bad.yaml", "run: {sede: 1}\n")
    found = problems(
        "nonsense",
        "run.rounds=x",
        "run.seed=${nowhere}",
        "method.name=fancy",
        "method.generator.epochs=0",
        "partition.alpha=0",
        files=("bad.yaml", "absent.yaml"),
    )
    assert [line.split(":")[0] for line in found] == [
        "absent.yaml",
        "nonsense",
        "run.sede",
        "run.rounds",
        "run.seed",
        "partition.alpha",
        "method.generator.epochs",
    ]
    assert found[-1] == "method.generator.epochs: must be at least 1, not 0 (command line)."


def test_keys_of_a_method_that_is_not_known_are_not_judged():
    assert problems("method.name=nothing_like_it", "method.generator.lr=0") == [
        "method.name: unknown method 'nothing_like_it' (command line). Known: fedvtc, fancy, local."
    ]


def test_a_file_that_is_absent_comes_with_what_lies_near(write: Write):
    write("conf/data/mnist.yaml", "")
    write("conf/base.yaml", "")
    assert problems(files=("conf/data/minst.yaml",)) == [
        "conf/data/minst.yaml: no such file (command line). Did you mean conf/data/mnist.yaml?"
    ]
    assert problems(files=("conf/dta/mnist.yaml",)) == [
        "conf/dta/mnist.yaml: no such file (command line). Did you mean conf/data?"
    ]
    assert problems(files=("conf/zzz.yaml",)) == [
        "conf/zzz.yaml: no such file (command line). conf holds: base.yaml, data."
    ]
    assert problems(files=("conf",)) == ["conf: is a folder, not a file (command line). conf holds: base.yaml, data."]
    write("x.yaml", "run: {seed: 1}\ninclude:\n  - conf/data/minst.yaml\n")
    assert problems(files=("x.yaml",)) == [
        "conf/data/minst.yaml: no such file (x.yaml:3). Did you mean conf/data/mnist.yaml?"
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("run:\n  rounds: [1\n", "x.yaml:3: not valid YAML: expected ',' or ']', but got '<stream end>'."),
        ("run: {seed: 1}\nrun: {seed: 2}\n", "x.yaml:2: not valid YAML: found duplicate key run."),
        ("- 1\n", "x.yaml: expected keys with values. Write lines such as `run: {rounds: 10}`."),
        ("rounds\n", "x.yaml: expected keys with values. Write lines such as `run: {rounds: 10}`."),
        (
            "include: 3\n",
            "include: expected a list of paths, relative to this file (x.yaml:1). Write include: [../data/mnist.yaml].",
        ),
        ("run: 3\n", "run: expected keys (name, output_dir, seed, rounds, participation, resume), not 3 (x.yaml:1)."),
        (
            "1: 2\n",
            "1: unknown key (x.yaml:1). Known: run, data, partition, population, training, method, evaluate, "
            "checkpoint, runtime, placement, cluster, tracking.",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(write: Write, text: str, line: str):
    write("x.yaml", text)
    assert problems(files=("x.yaml",)) == [line]


def test_a_file_that_is_not_text_is_one_line(write: Write):
    file = write("x.yaml", "")
    file.write_bytes(b"run: \xff\xfe\n")
    (line,) = problems(files=(file,))
    assert line.startswith("x.yaml: cannot be read: 'utf-8' codec can't decode byte 0xff")


@pytest.mark.parametrize("pair", [("[", "]"), ("{a: ", "}")])
def test_values_in_values_a_thousand_deep_are_one_line(write: Write, pair: tuple[str, str]):
    value = pair[0] * 3000 + pair[1] * 3000
    write("x.yaml", f"a: {value}")
    in_file, in_override = problems(f"a={value}", files=("x.yaml",))
    assert in_file.startswith("x.yaml: cannot be read: maximum recursion depth exceeded")
    assert in_override.startswith("a: the value cannot be read: maximum recursion depth exceeded")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
def test_a_file_in_a_folder_that_may_not_be_read_is_one_line_without_a_hint(tmp_path: Path):
    (tmp_path / "locked").mkdir(mode=0o000)
    file = tmp_path / "locked/x.yaml"
    assert problems(files=(file,)) == [f"{file}: no such file (command line)."]


def test_an_empty_file_changes_nothing(write: Write):
    write("x.yaml", "# nothing but a comment\n")
    assert load(["x.yaml"], [], methods=METHODS) == Config()


TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="$/?~"), min_size=1)


@settings(max_examples=15, deadline=None)
@given(label=TEXT, lr=st.floats(1e-12, 1e6), seed=st.integers(-(2**62), 2**62), download=st.booleans())
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, label: str, lr: float, seed: int, download: bool
):
    config = replace(
        Config(),
        run=replace(Config().run, seed=seed, output_dir=label),
        data=replace(Config().data, download=download, root=label),
        training=replace(Config().training, optimizer=replace(Config().training.optimizer, lr=lr)),
        method=FancyConfig("fancy", label, GeneratorConfig(lr, 3)),
    )
    file = tmp_path_factory.getbasetemp() / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert load([file], [], methods=METHODS) == config


@pytest.mark.parametrize("text", ["1e-3", "0123", "null", "yes", "1_000", "~", "2001-01-01", "a: b", "# c", "[x"])
def test_text_that_looks_like_something_else_stays_text(tmp_path: Path, text: str):
    config = replace(Config(), run=replace(Config().run, name=text))
    (tmp_path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load([tmp_path / "config.yaml"], [], methods=METHODS).run.name == text


def test_the_fingerprint_is_of_what_decides_the_numbers():
    base = fingerprint(Config())
    assert len(base) == 64
    same = [
        "run.name=a",
        "run.output_dir=b",
        "placement.pool=inline",
        "cluster.num_cpus=4",
        "data.root=/x",
        "method.label=M",
        "run.rounds=2",
        "checkpoint.async=false",
    ]
    for override in same:
        assert fingerprint(load([], [override], methods=METHODS)) == base
    for override in [
        "run.seed=1",
        "placement.threads_per_actor=2",
        "partition.alpha=0.2",
        "method.name=local",
        "training.optimizer.lr=0.1",
    ]:
        assert fingerprint(load([], [override], methods=METHODS)) != base
    fancy = ["method.name=fancy", "method.generator.lr=0.5"]
    assert fingerprint(load([], fancy, methods=METHODS)) != fingerprint(load([], fancy[:1], methods=METHODS))

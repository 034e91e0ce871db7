import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from fedvtc.config import Config, MethodConfig, fingerprint, load, to_yaml
from fedvtc.config.problems import COMMAND_LINE
from fedvtc.config.schema import BackboneShare
from fedvtc.config.section import section
from fedvtc.errors import ConfigError


@section
class GeneratorConfig:
    lr: float = 1e-3
    epochs: Annotated[int, Field(ge=1)] = 2


@section
class FancyConfig(MethodConfig):
    name: str = "fancy"
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)

    def problems(self, config: Config) -> list[str]:
        conflict = self.generator.lr == 7 and self.generator.epochs == 7
        return ["generator.lr: cannot be 7 with generator.epochs=7."] if conflict else []


@dataclass(frozen=True)
class PlainInnerConfig:
    width: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True)
class PlainConfig(MethodConfig):
    """A method outside of the package may use the standard decorator."""

    name: str = "plain"
    inner: PlainInnerConfig = field(default_factory=PlainInnerConfig)


METHODS = {"fedvtc": MethodConfig, "fancy": FancyConfig, "local": MethodConfig, "plain": PlainConfig}

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


def test_no_input_gives_the_defaults():
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


def test_a_file_may_be_included_twice_but_not_by_itself(write: Write, golden):
    write("seed.yaml", "run: {seed: 5}\n")
    write("left.yaml", "include: [seed.yaml]\n")
    write("both.yaml", "include: [left.yaml, seed.yaml]\n")
    assert load(["both.yaml"], [], methods=METHODS).run.seed == 5
    write("a.yaml", "include:\n  - b.yaml\n")
    write("b.yaml", "include:\n  - a.yaml\n")
    (line,) = problems(files=("a.yaml",))
    assert line.startswith("a.yaml: ")
    assert "(b.yaml:2)" in line
    golden(line)


def test_a_tilde_in_output_dir_is_the_home_folder(monkeypatch: pytest.MonkeyPatch):
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


def test_the_order_of_overrides_does_not_matter_to_the_method():
    config = load([], ["method.generator.epochs=5", "method.name=fancy"], methods=METHODS)
    assert config.method == FancyConfig("fancy", None, GeneratorConfig(1e-3, 5))


def test_interpolations_are_resolved(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEDVTC_DATA", "/images")
    overrides = ["data.path=${oc.env:FEDVTC_DATA,data}/a.npz", "run.rounds=${run.seed}", "run.seed=4"]
    config = load([], overrides, methods=METHODS)
    assert (config.data.path, config.run.rounds) == ("/images/a.npz", 4)


def test_text_keys_keep_words_that_yaml_reads_as_numbers(write: Write):
    file = write("a.yaml", "run: {name: 2026_11_23}\ntracking:\n  wandb:\n    group: 1e3\n    tags: [1_1, true, b]\n")
    config = load(
        [file], ["data.path=010", "run.output_dir=0x1F", "tracking.wandb={project: 1_0, name: 7}"], methods=METHODS
    )
    assert (config.run.name, config.run.output_dir, config.data.path) == ("2026_11_23", "0x1F", "010")
    wandb = config.tracking.wandb
    assert (wandb.group, wandb.project, wandb.name, wandb.tags) == ("1e3", "1_0", "7", ["1_1", "true", "b"])
    assert load([file], ["run.name='2026_11'", "run.seed=1_0"], methods=METHODS).run.name == "2026_11"
    assert load([file], ["run.seed=1_0"], methods=METHODS).run.seed == 10


def test_files_and_overrides_read_numbers_alike(write: Write):
    file = write("a.yaml", "run: {seed: 010, name: 010}\ndata:\n  image_size: 032\n")
    from_file = load([file], [], methods=METHODS)
    from_overrides = load([], ["run.seed=010", "run={name: 010}", "data.image_size=032"], methods=METHODS)
    assert from_file == from_overrides
    assert (from_file.run.seed, from_file.run.name, from_file.data.image_size) == (10, "010", 32)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("run.seed=1:30", "run.seed"),
        ("run.seed=0b11", "run.seed"),
        ("run={optimizer.lr: 1}", "run.optimizer.lr"),
        ("population.backbones={cnn_2x16: 1}", "population.backbones"),
        ("population.backbones[0].share=0.5", "population.backbones[0].share"),
        ("run.sede=1", "run.sede"),
        ("rnu.seed=1", "rnu"),
        ("rounds=3", "rounds"),
        ("every=3", "every"),
        ("training.lr=0.1", "training.lr"),
        ("checkpoint.async_=true", "checkpoint.async_"),
        ("method.generator.lr=1", "method.generator"),
        ("run.rounds=ten", "run.rounds"),
        ("run.rounds=1.5", "run.rounds"),
        ("run.rounds=true", "run.rounds"),
        ("run.rounds=null", "run.rounds"),
        ("run.rounds=???", "run.rounds"),
        ("run.name=???", "run.name"),
        ("run.name=[a]", "run.name"),
        ("run={1: 2}", "run.1"),
        ("data.download=perhaps", "data.download"),
        ("data.augment=no", "data.augment"),
        ("partition.alpha=big", "partition.alpha"),
        ("cluster=null", "cluster"),
        ("method=3", "method"),
        ("data=mnist", "data"),
        ("data=qmnist", "data"),
        ("population=cnn4", "population"),
        ("partition=iid", "partition"),
        ("tracking.trackers=wandb,tensorboard", "tracking.trackers"),
        ("placement.pool=inlin", "placement.pool"),
        ("population.backbones=resnet8", "population.backbones"),
        ("population.backbones=[resnet8]", "population.backbones[0]"),
        ("population.backbones=[{name: resnet8}]", "population.backbones[0].share"),
        ("population.backbones=[{name: resnet8, shaer: 1}]", "population.backbones[0].shaer"),
        ("run.rounds", "run.rounds"),
        ("run.seed=${run.nope}", "run.seed"),
        ("data.root=${oc.env:FEDVTC_NOT_SET}", "data.root"),
        ("run.rounds=${run.output_dir}", "run.rounds"),
        ("method.name=fanzy", "method.name"),
        ("method.name=my_package.my_method.MyMethod", "method.name"),
        ("data.name=my_data.stripes", "data.name"),
        ("method.name=[fancy]", "method.name"),
        ("method.label=Mine #2", "method.label"),
        ("method.label=#2", "method.label"),
    ],
)
def test_a_wrong_override_is_named_by_its_key(override: str, key: str, golden):
    lines = problems(override)
    assert lines[0].startswith(f"{key}: ")
    assert all(f"({COMMAND_LINE})" in line for line in lines)
    golden("\n".join(lines))


def test_methods_may_use_the_standard_decorator(golden):
    config = load([], ["method.name=plain", "method.inner.width=4"], methods=METHODS)
    assert config.method == PlainConfig(inner=PlainInnerConfig(4))
    lines = problems("method.name=plain", "method.inner.width=0", "method.inner.widht=1", "method.labl=x")
    assert [line.partition(":")[0] for line in lines] == ["method.inner.widht", "method.labl", "method.inner.width"]
    golden("\n".join(lines))


def test_a_conflict_of_a_method_is_placed(golden):
    (line,) = problems("method.name=fancy", "method.generator={lr: 7, epochs: 7}")
    assert line.startswith("method.generator.lr: ")
    golden(line)


@pytest.mark.parametrize(
    ("override", "label"), [("'Mine #2'", "Mine #2"), ('"#2"', "#2"), ("C#", "C#"), ("a#b", "a#b")]
)
def test_a_value_may_hold_a_hash(override: str, label: str):
    assert load([], ["method.name=local", f"method.label={override}"], methods=METHODS).method.label == label


def test_an_override_with_malformed_yaml_is_one_line():
    # The words in the middle are those of the YAML library, with and without its C part.
    (line,) = problems("run.seed=[1")
    assert line.startswith("run.seed: ")
    assert "(command line)" in line


SECRET = "0123456789abcdef" * 5


@pytest.mark.parametrize(
    "override", ["run.seed=${oc.env:HUB_TOKEN}", f"run.seed=x{SECRET}", f"run.sede={SECRET}", f"{SECRET}=1"]
)
def test_no_line_shows_a_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch, override: str, golden):
    monkeypatch.setenv("HUB_TOKEN", SECRET)
    # A part of the other secret: if it is replaced first, the rest of the other stays in the line.
    monkeypatch.setenv("OLD_TOKEN", SECRET[:20])
    (line,) = problems(override)
    assert SECRET[:20] not in line
    assert SECRET[-20:] not in line
    golden(line)


def test_problems_in_files_name_the_line(write: Write):
    write(
        "x.yaml", "# header\nrun:\n  sede: 1\n  rounds: 0\npopulation:\n  backbones:\n    - {name: resnet9, share: 1}\n"
    )
    places = {
        line.partition(":")[0]: line[line.index("(x.yaml") + 1 : line.index(")")]
        for line in problems(files=("x.yaml",))
    }
    assert places == {"run.sede": "x.yaml:3", "run.rounds": "x.yaml:4", "population.backbones[0].name": "x.yaml:7"}


def test_a_dotted_key_in_a_file_names_the_line(write: Write, golden):
    write("x.yaml", "run: {seed: 1}\nrun.rounds: 3\ntraining:\n  optimizer.lr: 1\n")
    first, second = sorted(problems(files=("x.yaml",)))
    assert first.startswith("run.rounds: ")
    assert "(x.yaml:2)" in first
    assert second.startswith("training.optimizer.lr: ")
    assert "(x.yaml:4)" in second
    golden(f"{first}\n{second}")


def test_a_problem_has_the_place_of_the_last_layer_that_sets_the_key(write: Write):
    write("x.yaml", "run:\n  rounds: 0\n")
    (line,) = problems("run.rounds=-1", files=("x.yaml",))
    assert "not -1 (command line)" in line
    write("y.yaml", "run: {seed: 1}\n")
    (line,) = problems(files=("x.yaml", "y.yaml"))
    assert "not 0 (x.yaml:2)" in line
    assert load(["x.yaml"], ["run.rounds=2"], methods=METHODS).run.rounds == 2


@pytest.mark.parametrize("value", ["", " 5", " [1]"])
def test_a_section_without_keys_is_refused_although_a_later_layer_has_keys(write: Write, value: str):
    """The value in place of the section would drop the rounds of the first file."""
    files = [write("a.yaml", "run: {rounds: 77}"), write("b.yaml", f"data: {{name: digits}}\nrun:{value}\n")]

    with pytest.raises(ConfigError) as refused:
        load(
            files,
            ["run.name=mine", "method.name=fancy", "method.generator=3", "method.generator.epochs=3"],
            methods=METHODS,
        )

    lines = {line.partition(":")[0]: line for line in refused.value.problems}
    assert list(lines) == ["run", "method.generator"]
    assert "(b.yaml:2)" in lines["run"]
    assert f"({COMMAND_LINE})" in lines["method.generator"]


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
    assert sorted(line.split(":")[0] for line in found) == [
        "absent.yaml",
        "method.generator.epochs",
        "nonsense",
        "partition.alpha",
        "run.rounds",
        "run.sede",
        "run.seed",
    ]


def test_keys_of_an_unknown_method_are_not_checked(golden):
    (line,) = problems("method.name=nothing_like_it", "method.generator.lr=0")
    assert line.startswith("method.name: ")
    golden(line)


@pytest.mark.parametrize("file", ["conf/data/minst.yaml", "conf/dta/mnist.yaml", "conf/zzz.yaml", "conf"])
def test_an_absent_file_comes_with_names_of_near_files(write: Write, file: str, golden):
    write("conf/data/mnist.yaml", "")
    write("conf/base.yaml", "")
    (line,) = problems(files=(file,))
    assert line.startswith(f"{file}: ")
    golden(line)


def test_an_absent_include_has_the_place_of_the_include(write: Write):
    write("x.yaml", "run: {seed: 1}\ninclude:\n  - conf/data/minst.yaml\n")
    (line,) = problems(files=("x.yaml",))
    assert line.startswith("conf/data/minst.yaml: ")
    assert "(x.yaml:3)" in line


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("run:\n  rounds: [1\n", "x.yaml:3"),
        ("run: {seed: 1}\nrun: {seed: 2}\n", "x.yaml:2"),
        ("- 1\n", "x.yaml"),
        ("rounds\n", "x.yaml"),
        ("include: 3\n", "include"),
        ("run: 3\n", "run"),
        ("run: [1]\n", "run"),
        ("1: 2\n", "1"),
    ],
)
def test_a_malformed_file_is_one_line(write: Write, text: str, key: str, golden):
    write("x.yaml", text)
    (line,) = problems(files=("x.yaml",))
    assert line.startswith(f"{key}: ")
    golden(line)


def test_a_file_that_is_not_text_is_one_line(write: Write):
    file = write("x.yaml", "")
    file.write_bytes(b"run: \xff\xfe\n")
    (line,) = problems(files=(file,))
    assert line.startswith("x.yaml: ")
    assert line.endswith("Save the file as UTF-8.")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
def test_a_file_in_an_unreadable_folder_is_one_line(tmp_path: Path, golden):
    (tmp_path / "locked").mkdir(mode=0o000)
    (line,) = problems(files=(tmp_path / "locked/x.yaml",))
    golden(line)


def test_an_empty_file_changes_nothing(write: Write):
    write("x.yaml", "# nothing but a comment\n")
    assert load(["x.yaml"], [], methods=METHODS) == Config()


TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="$/?~"), min_size=1)


@settings(max_examples=15, deadline=None)
@given(label=TEXT, lr=st.floats(1e-12, 1e6), seed=st.integers(-(2**62), 2**62), download=st.booleans())
def test_a_written_config_is_read_back(
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


def test_the_fingerprint_covers_the_keys_that_decide_results():
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

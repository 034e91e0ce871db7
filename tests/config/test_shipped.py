"""Shipped configs are found from an empty folder; files of the user win over them."""

import pytest

from fedvtc.commands.main import main
from fedvtc.config import load
from fedvtc.config.shipped import is_shipped, located, shipped_folder, shipped_names
from fedvtc.errors import ConfigError
from fedvtc.learning.methods import config_classes


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(*files):
    return load(files, [], methods=config_classes())


@pytest.mark.parametrize(
    "name", ["conf/experiment/digits.yaml", "conf/experiment/digits", "experiment/digits", "./experiment/digits.yaml"]
)
def test_a_shipped_config_has_a_long_and_a_short_name(name):
    assert is_shipped(name)
    assert loaded(name) == loaded(shipped_folder() / "experiment/digits.yaml")


def test_a_file_of_the_user_wins(empty_folder):
    mine = empty_folder / "experiment/digits.yaml"
    mine.parent.mkdir()
    assert located("experiment/digits") == shipped_folder() / "experiment/digits.yaml"
    mine.write_text("run: {rounds: 77}")
    for name in ("experiment/digits", "experiment/digits.yaml"):
        assert loaded(name).run.rounds == 77
    assert loaded("conf/experiment/digits.yaml").run.rounds == 10


def test_a_file_of_the_user_includes_shipped_configs(empty_folder):
    (empty_folder / "below").mkdir()
    (empty_folder / "below/mine.yaml").write_text("include: [data/mnist, other, conf/method/local.yaml]")
    (empty_folder / "below/other.yaml").write_text("run: {rounds: 77}")
    config = loaded("below/mine")
    assert (config.data.name, config.run.rounds, config.method.name) == ("mnist", 77, "local")


@pytest.mark.parametrize(
    "name",
    ["experiment", "experiment/../../pyproject", "/experiment/digits", "digits", "x" * 5000, "experiment/digits=1"],
)
def test_other_words_are_no_shipped_configs(name):
    assert not is_shipped(name)


@pytest.mark.parametrize("word", ["experiment/digit", "conf/experiment/digit.yaml", "method.name=fedvtc_plus"])
def test_a_misspelt_name_gets_the_name_of_a_shipped_config(word, golden, keys_of, empty_folder):
    # Nearer to `conf` than anything else here.
    (empty_folder / "con").mkdir()
    files, overrides = ([word], []) if word.endswith(".yaml") else ([], [word])
    with pytest.raises(ConfigError) as refused:
        load(files, overrides, methods=config_classes())
    assert keys_of(refused.value) == [word.partition("=")[0]]
    golden(refused.value)


def test_every_shipped_config_is_listed_with_its_first_comment(capsys):
    assert main(["list", "configs"]) == 0
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[0] for row in rows] == shipped_names()
    assert "method/fedvtc_plus" in shipped_names()
    assert [row[0] for row in rows if not row[1].rstrip().endswith(".")] == []


def test_a_shipped_sweep_is_no_config_in_any_folder(empty_folder, capsys):
    assert main(["plan", "conf/sweep/digits_quick.yaml"]) == 2
    assert "Start the sweep: fedvtc sweep conf/sweep/digits_quick.yaml" in capsys.readouterr().err


def test_a_shipped_sweep_runs_from_any_folder(empty_folder, capsys):
    for name in ("conf/sweep/digits_quick.yaml", "sweep/digits_quick"):
        assert main(["sweep", name, "--print"]) == 0
        first, *_ = printed = capsys.readouterr().out.splitlines()
        assert len(printed) == 4
        assert str(shipped_folder() / "experiment/digits.yaml") in first
        assert f"run.output_dir={empty_folder}/outputs/digits_quick" in first

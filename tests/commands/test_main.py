"""The program as a process: exit codes, help, messages, and imports that a light command must not make."""

import importlib.metadata
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from fedvtc.__main__ import program
from fedvtc.commands.file_kinds import SWEEP_KEYS
from fedvtc.commands.main import main
from fedvtc.commands.registry import COMMANDS
from fedvtc.commands.sweep.sweep_file import SweepKeys
from fedvtc.config import field_docs, load
from fedvtc.config.changes import may_change
from fedvtc.config.names import BACKBONES, DATASETS
from fedvtc.config.schema import Config
from fedvtc.config.section import key_of
from fedvtc.learning.methods import config_classes, names

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "lightning", "ray", "sklearn")
CONFIG = ("numpy", "omegaconf")
"""Packages that a config needs; help without a list of keys does not."""


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def fedvtc(*words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-m", "fedvtc", *words], capture_output=True, text=True, env=environment)


LIGHT = [
    (["run", "--help"], 0),
    (["plan", "--help"], 0),
    (["list", "data"], 0),
    (["list", "backbones"], 0),
    (["list", "methods"], 0),
    (["plan", "--print-config"], 0),
    (["submit", "--help"], 0),
    (["sweep", "--help"], 0),
    (["sweep", str(ROOT / "conf/sweep/digits_quick.yaml"), "--print"], 0),
    (["sweep", "absent.yaml"], 2),
    (["sweep"], 2),
    (["submit", "run.sede=1"], 2),
    (["submit", "--address", "http://127.0.0.1:9"], 2),
    (["plan", "run.sede=1"], 2),
    (["run", "absent.yaml"], 2),
]
HELP = [(words.split(), 0) for words in ("--help", "--version", "list --help", "list", "doctor --help")]
IMPORTS = """
import sys
from fedvtc.commands.main import main
for words, code in {commands!r}:
    try:
        found = main(words)
    except SystemExit as stop:
        found = stop.code
    imported = [name for name in {unwanted!r} if name in sys.modules]
    assert (found, imported) == (code, []), (words, found, imported)
"""


@pytest.mark.parametrize(("commands", "unwanted"), [(LIGHT, HEAVY), (HELP, HEAVY + CONFIG)], ids=["light", "help"])
def test_light_commands_import_nothing_heavy_and_help_no_config(commands, unwanted):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    program = IMPORTS.format(commands=commands, unwanted=unwanted)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


PROGRAM = """
import atexit, os, sys
from fedvtc import __main__

class Last:
    def __del__(self, write=os.write):
        write(1, b"unloaded")

last = Last()
atexit.register(print, "hook")
__main__.main = lambda: int(sys.argv[1])
__main__.program()
"""


@pytest.mark.parametrize(("code", "printed"), [(0, "hook\n"), (2, "hook\n"), (143, "")])
def test_a_program_runs_exit_hooks_unless_interrupted_and_unloads_nothing(code, printed):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-c", PROGRAM, str(code)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (code, printed, "")


def test_the_script_and_the_module_call_the_same_function():
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="fedvtc")
    assert command.load() is program


def test_mistakes_in_a_config_are_one_line_each_and_exit_with_2(golden, keys_of):
    words = ["run", "absent.yaml", "--plain", "run.sede=1", "run.rounds=0"]
    plain, debug = fedvtc(*words), fedvtc(*words, "--debug")
    assert (plain.returncode, debug.returncode) == (2, 2)
    assert keys_of(plain.stderr) == ["absent.yaml", "run.sede", "run.rounds"]
    assert debug.stderr.startswith(plain.stderr)
    assert "ConfigError" in debug.stderr
    golden(plain.stderr)


MISTAKES = [
    (["rum"], "'rum'"),
    (["run", "--fast"], "--fast"),
    (["list", "dat"], "dat"),
    (["list", "runs", "absent"], "absent"),
    (["list", "data", "--cluster"], "data"),
    (["list", "runs", "outputs", "--cluster"], "outputs"),
    (["list", "--address", "http://HEAD:8265"], "--address=http://HEAD:8265"),
    (["list", "--address", "http://me:hunter2@head"], "--address"),
    (["list", "--address", "me:hunter2@head:8265"], "--address"),
    (["list", "data", "absent"], "absent"),
]


@pytest.mark.parametrize(("words", "named"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_in_the_arguments_is_one_line_and_exits_with_2(words: list[str], named: str, golden):
    done = fedvtc(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("fedvtc: ")
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr
    assert "hunter2" not in done.stderr
    # Python 3.11 quotes choices, 3.12 does not.
    golden(done.stderr.replace("'", ""))


def test_an_override_may_be_longer_than_a_file_name(capsys: pytest.CaptureFixture[str], keys_of):
    backbones = f"population.backbones=[{'{name: cnn_2x16, share: 0.1}, ' * 10}]"
    assert main(["plan", backbones, "--print-config"]) == 0
    capsys.readouterr()
    for words in (["plan", "a" * 300], ["plan", f"{'a' * 300}.yaml"], ["list", "runs", "a" * 300]):
        assert main(words) == 2
        assert keys_of(capsys.readouterr().err) == [words[-1]]


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_the_program_without_arguments_prints_its_help(capsys: pytest.CaptureFixture[str], monkeypatch, golden):
    monkeypatch.setenv("COLUMNS", "100")
    printed = help_of([], capsys)
    assert printed == help_of(["--help"], capsys)
    for name, command in COMMANDS.items():
        assert f"  {name} " in printed
        assert command.summary in printed
    golden(printed)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str], monkeypatch, golden):
    monkeypatch.setenv("COLUMNS", "100")
    printed = help_of([name, "--help"], capsys)
    options, _, keys = printed.partition("\nconfig keys")
    assert f"examples:\n  fedvtc {name}" in options
    assert bool(keys) == (name in ("run", "plan", "resume", "submit"))
    golden(options)


def test_the_help_of_resume_names_the_keys_that_may_change(capsys: pytest.CaptureFixture[str]):
    named = re.findall(r"(?m)^  ([a-z_]+\.[a-z_.]+)=", help_of(["resume", "--help"], capsys))
    assert set(named) == may_change(config_classes()["fedvtc"])


def test_the_help_of_run_names_every_key(capsys: pytest.CaptureFixture[str]):
    printed = help_of(["run", "--help"], capsys)
    docs = field_docs(Config) + [doc for cls in config_classes().values() for doc in field_docs(cls, "method")]
    for doc in docs:
        assert f"  {doc.key}={doc.default}" in printed or doc.key == "method.name"
        assert doc.text.split()[0] in printed


def test_the_printed_config_is_a_config(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["plan", "run.seed=5", "--print-config", "method.name=local"]) == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    config = load([tmp_path / "mine.yaml"], [], methods=config_classes())
    assert (config.run.seed, config.method.name) == (5, "local")


def test_a_plan_prints_tables_and_lines_and_a_picture_on_request(capsys: pytest.CaptureFixture[str], golden):
    words = ["plan", "population.num_clients=4", "placement.pool=inline", "run.participation=0.5", "--picture", "a.png"]
    assert main([*words, "placement.accelerator=cpu"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "Training images by client"
    golden(re.sub(r"outputs has .* free", "outputs has SOME free", "\n".join(lines)))
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


def test_a_plan_writes_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["plan", "population.num_clients=2", "placement.pool=inline", "method.name=local"]) == 0
    assert "Picture" not in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_does_not_fit_exits_with_2(capsys: pytest.CaptureFixture[str], keys_of):
    words = ["population.num_clients=40", "placement.clients_per_actor=1", "cluster.num_cpus=2"]
    assert main(["plan", *words]) == 2
    assert keys_of(capsys.readouterr().err) == ["placement"]


def test_absent_data_exit_with_2(capsys: pytest.CaptureFixture[str], keys_of):
    assert main(["plan", "data.name=npz", "data.path=absent.npz"]) == 2
    assert keys_of(capsys.readouterr().err) == ["absent.npz"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("data", DATASETS), ("backbones", BACKBONES), ("methods", names())],
    ids=["data", "backbones", "methods"],
)
def test_a_list_names_every_choice(capsys: pytest.CaptureFixture[str], golden, kind: str, expected: list[str]):
    assert main(["list", kind]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    forms = ["timm:NAME"] * (kind == "backbones") + ["package.module:NAME"]
    assert [line.split()[0] for line in lines[1:]] == [*expected, *forms]
    golden("\n".join(lines))


def test_a_working_folder_that_was_deleted_is_one_line(capsys, monkeypatch, tmp_path, keys_of, golden):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for words in (["list"], ["run"], ["plan", "absent.yaml"]):
        assert main(words) == 2
        message = capsys.readouterr().err
        assert keys_of(message) == ["working folder"]
    golden(message)


def test_a_list_without_runs_names_a_command_to_start_one(capsys: pytest.CaptureFixture[str], golden):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert "fedvtc run" in printed
    golden(printed)


def test_a_file_of_the_other_kind_is_named(tmp_path: Path, capsys, keys_of, golden):
    Path("sweep.yaml").write_text("base: []\nset: {run.rounds: 2}\ngrid: {run.seed: [0, 1]}\n")
    Path("config.yaml").write_text("include: []\nrun: {rounds: 2}\n")

    for words in (["run", "sweep.yaml"], ["submit", "sweep.yaml", "run.rounds=3"], ["sweep", "config.yaml"]):
        assert main(words) == 2
        text = capsys.readouterr().err
        assert keys_of(text) == [words[1]]
        golden(text)
    assert SWEEP_KEYS | {"name", "seed"} == {key_of(field.name) for field in fields(SweepKeys)}

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fedvtc.__main__ import program
from fedvtc.commands.main import main
from fedvtc.config import field_docs, load
from fedvtc.config.names import BACKBONES, DATASETS
from fedvtc.config.schema import Config
from fedvtc.learning.methods import config_classes, names

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "lightning", "ray", "sklearn", "matplotlib")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def fedvtc(*words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-m", "fedvtc", *words], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["run", "--help"], 0),
        (["plan", "--help"], 0),
        (["list", "--help"], 0),
        (["list"], 0),
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
    ],
)
def test_light_commands_import_nothing_heavy(words: list[str], code: int):
    program = f"""
import sys
from fedvtc.commands.main import main
try:
    code = main({words!r})
except SystemExit as stop:
    code = stop.code
assert code == {code}, code
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, heavy
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_a_coordinator_of_actors_waits_for_no_lightning():
    code = "import sys, fedvtc.federation.launch, fedvtc.runtime.actors.pool; "
    code += "print({'lightning', 'torchmetrics'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "set()\n", "")


PROGRAM = """
import atexit, sys
from fedvtc import __main__
atexit.register(print, "hook")
__main__.main = lambda: int(sys.argv[1])
__main__.program()
"""


@pytest.mark.parametrize(("code", "printed"), [(0, "hook\n"), (1, "hook\n"), (2, "hook\n"), (130, ""), (143, "")])
def test_an_interrupted_program_waits_for_no_exit_hook_of_a_library(code, printed):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-c", PROGRAM, str(code)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (code, printed, "")


def test_the_command_and_the_module_are_one_program():
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="fedvtc")
    assert command.load() is program


def test_mistakes_are_one_line_each_and_exit_two():
    done = fedvtc("run", "absent.yaml", "--plain", "run.sede=1", "--debug", "run.rounds=0")
    assert done.returncode == 2
    assert done.stderr.splitlines()[:3] == [
        "fedvtc: absent.yaml: no such file (command line). . is empty.",
        "fedvtc: run.sede: unknown key (command line). Did you mean run.seed?",
        "fedvtc: run.rounds: must be a whole number of at least 1, not 0 (command line).",
    ]
    assert "ConfigError" in done.stderr
    assert "Traceback" not in fedvtc("run", "run.sede=1").stderr


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["rum"], "fedvtc: argument COMMAND: invalid choice: 'rum'"),
        (["run", "--fast"], "fedvtc: unrecognized arguments: --fast. See fedvtc run --help."),
        (["list", "dat"], "fedvtc: argument kind: invalid choice: 'dat'"),
        (["list", "runs", "absent"], "fedvtc: absent: no such folder."),
        (["list", "data", "--cluster"], "fedvtc: data: list --cluster shows all jobs."),
        (["list", "runs", "outputs", "--cluster"], "fedvtc: outputs: list --cluster shows all jobs."),
        (["list", "--address", "http://HEAD:8265"], "fedvtc: --address=http://HEAD:8265: goes with --cluster."),
        (["list", "--address", "http://me:hunter2@head"], "fedvtc: --address: goes with --cluster."),
        (["list", "--address", "me:hunter2@head:8265"], "fedvtc: --address: goes with --cluster."),
        (["list", "data", "absent"], "fedvtc: absent: list data takes no folder."),
    ],
)
def test_unknown_words_are_one_line_and_exit_two(words: list[str], start: str):
    done = fedvtc(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(start)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["plan", f"population.backbones=[{'{name: cnn_2x16, share: 0.1}, ' * 10}]", "--print-config"], None),
        (["plan", "a" * 300], "is neither key=value nor a file"),
        (["plan", f"{'a' * 300}.yaml"], "no such file"),
        (["list", "runs", "a" * 300], "no such folder"),
    ],
)
def test_a_word_may_be_longer_than_a_file_name(words: list[str], what: str | None, capsys: pytest.CaptureFixture[str]):
    assert main(words) == (2 if what else 0)
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == (1 if what else 0)
    assert all(f"a: {what}" in error or f".yaml: {what}" in error for error in errors)


def test_nothing_prints_the_help(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 0
    assert "fedvtc plan conf/data/cifar10.yaml" in capsys.readouterr().out


def test_the_help_of_run_names_every_key(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    printed = capsys.readouterr().out
    docs = field_docs(Config) + [doc for cls in config_classes().values() for doc in field_docs(cls, "method")]
    for doc in docs:
        assert f"  {doc.key}={doc.default}" in printed or doc.key == "method.name"
        assert doc.text.split()[0] in printed


def test_the_printed_config_is_a_config(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["plan", "run.seed=5", "--print-config", "method.name=local"]) == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    config = load([tmp_path / "mine.yaml"], [], methods=config_classes())
    assert (config.run.seed, config.method.name) == (5, "local")


def test_a_plan_prints_config_tables_and_picture(capsys: pytest.CaptureFixture[str]):
    words = ["plan", "population.num_clients=4", "placement.pool=inline", "run.participation=0.5", "--picture", "a.png"]
    assert main(words) == 0
    config, _, tables = capsys.readouterr().out.partition("Training images by client")
    assert yaml.safe_load(config)["population"]["num_clients"] == 4
    for words_of_plan in (
        "resnet8",
        "Bytes per round, at most, with 2 of 4 clients",
        "prototypes",
        "Placement: 4 clients",
    ):
        assert words_of_plan in tables
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


def test_a_plan_that_does_not_fit_exits_two(capsys: pytest.CaptureFixture[str]):
    words = ["population.num_clients=40", "placement.clients_per_actor=1", "cluster.num_cpus=2"]
    assert main(["plan", *words]) == 2
    assert capsys.readouterr().err == (
        "fedvtc: placement: 40 actors x 1 CPU need 40 CPUs; this machine has 2. "
        "Set placement.clients_per_actor=auto or placement.cpus_per_actor=0.05.\n"
    )


def test_absent_data_exit_two(capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "data.name=npz", "data.path=absent.npz"]) == 2
    assert capsys.readouterr().err.startswith("fedvtc: absent.npz: ")


@pytest.mark.parametrize(
    ("kind", "expected"), [("data", list(DATASETS)), ("backbones", list(BACKBONES)), ("methods", names())]
)
def test_lists_of_names(capsys: pytest.CaptureFixture[str], kind: str, expected: list[str]):
    assert main(["list", kind]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == list(expected)


def test_no_runs_yet(capsys: pytest.CaptureFixture[str]):
    assert main(["list"]) == 0
    assert capsys.readouterr().out.startswith("No runs, for there is no folder ./outputs yet.")


def test_a_reader_that_stops_early_is_no_crash():
    command = f"{sys.executable} -m fedvtc run --help | head -n 1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")

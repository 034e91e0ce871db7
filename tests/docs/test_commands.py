"""Every `fedvtc` command in the documents and help texts is accepted by the program, from a folder without configs."""

import re
import shlex
from pathlib import Path

import pytest

from fedvtc.commands.doctor import examine
from fedvtc.commands.main import EXAMPLES, main
from fedvtc.commands.registry import COMMANDS
from fedvtc.config import check_resumable, load
from fedvtc.learning import methods
from fedvtc.learning.methods import config_classes

NEEDS_RUNS = ("report", "show", "table", "watch", "export", "evaluate", "privacy", "features")
NEEDS_A_CLUSTER = ("--address", "--runtime-env", "--working-dir")


def words_of(command):
    """The words of a command as a check without a cluster runs them, and the file that the output goes to or None."""
    words = shlex.split(command, comments=True)[1:]
    target = words.pop() if len(words) > 1 and words[-2] == ">" else None
    words = [word for word in words if word not in (">", "--plain", "--debug", "--trust")]
    if "--start-from" in words:
        # The earlier run does not exist.
        place = words.index("--start-from")
        words = words[:place] + words[place + 2 :]
    if words[0] in ("submit", "sweep"):
        for option in NEEDS_A_CLUSTER:
            words = [word for number, word in enumerate(words) if option not in words[max(0, number - 1) : number + 1]]
    if words[0] == "submit":
        words = ["run", *(word for word in words[1:] if word != "--no-wait")]
    if "--cluster" in words:
        # Without a cluster only the arguments can be checked.
        words += ["--help"]
    if words[0] in ("run", "plan"):
        # Checks the config of the run, and trains nothing.
        words = ["plan", *words[1:], "--print-config"]
    elif words[0] == "sweep":
        words = [*(word for word in words if word != "--results"), "--print"]
    return words, target


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """A function that runs commands in the given order, so that a command can read a file of an earlier one."""
    monkeypatch.chdir(tmp_path)
    # The check of torch takes seconds; the tests of `fedvtc doctor` make it.
    monkeypatch.delitem(examine.CHECKS, "torch and torchvision")

    def check(commands):
        for command in commands:
            run(*words_of(command), command)

    def run(words, target, command):
        if words[0] == "resume":
            # The run does not exist; the check covers the keys that the command changes.
            check_resumable(load([], [], methods=config_classes()), load([], words[2:], methods=config_classes()))
            return
        if words[0] == "doctor" and words[1:]:
            return
        if words[0] in NEEDS_RUNS:
            COMMANDS[words[0]].parser().parse_intermixed_args(words[1:])
            return
        if words[0] == "list" and "--help" not in words:
            for folder in ["outputs", *COMMANDS["list"].parser().parse_intermixed_args(words[1:]).folders]:
                Path(folder).mkdir(parents=True, exist_ok=True)

        try:
            code = main(words)
        except SystemExit as stop:
            code = stop.code
        assert code == 0, (command, capsys.readouterr().err)

        printed = capsys.readouterr().out
        if target:
            Path(target).write_text(printed, encoding="utf-8")

    return check


@pytest.mark.slow
def test_every_command_of_a_document_is_accepted(document_with_commands, commands, check, root, tmp_path, monkeypatch):
    (tmp_path / "jobs").symlink_to(root / "jobs")
    if document_with_commands.name == "adding-a-method.md":
        monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    check(commands(document_with_commands))


@pytest.mark.slow
def test_every_command_of_a_help_text_is_accepted(check):
    texts = [EXAMPLES, *(command.parser().epilog for command in COMMANDS.values())]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    check(dict.fromkeys(re.split(" {2,}", line)[0] for line in lines if line.startswith("fedvtc ")))


def test_the_readme_shows_every_command_that_a_reader_starts_with(commands, root):
    found = {command.split()[1] for command in commands(root / "README.md")}

    assert found == set(COMMANDS)

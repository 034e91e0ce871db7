"""`fedvtc init`: parser and command."""

import argparse
import os
import shlex
from pathlib import Path

from fedvtc.commands.parsing import Parser, make_parser
from fedvtc.errors import EXIT_OK, UserError

PROJECT = Path(__file__).parent / "project"
"""The folder with the files of a new project."""

ABOUT = """\
Writes a project to edit: an experiment, a sweep, a method of your own with its test, and a README with the commands.
The project runs at once."""

EXAMPLES = """\
examples:
  fedvtc init my_project
"""


def parser() -> Parser:
    """Returns the parser of `fedvtc init`."""
    parser = make_parser("fedvtc init", ABOUT, EXAMPLES)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a new or empty folder")
    parser.set_defaults(command=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs `fedvtc init`; returns the exit code.

    Raises:
        UserError: the folder has files, or cannot be written.
    """
    folder: Path = arguments.folder
    files = sorted(file for file in PROJECT.iterdir() if file.is_file())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder}: is not empty. Name a new folder.")
        for file in files:
            (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        fix = "Name a new folder in a place that you may write to."
        raise UserError(f"{folder}: cannot be written ({error.strerror}). {fix}") from None
    print(f"{folder}: {', '.join(file.name for file in files)}")
    inside = f"cd {shlex.quote(os.fspath(folder))} && " if folder.resolve() != Path.cwd() else ""
    print(f"Next: {inside}fedvtc run experiment.yaml")
    return EXIT_OK

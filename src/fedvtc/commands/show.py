"""`fedvtc show`: parser and command."""

import argparse
import sys
from pathlib import Path

from fedvtc.commands.parsing import Parser, make_parser
from fedvtc.errors import EXIT_OK, RunFolderError

ABOUT = """\
Shows one run: status with its reason, curve of accuracy, bytes, seconds by phase, incidents, next commands."""
EXAMPLES = """\
examples:
  fedvtc show outputs/mine
"""


def parser() -> Parser:
    """Returns the parser of `fedvtc show`."""
    parser = make_parser("fedvtc show", ABOUT, EXAMPLES)
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    parser.set_defaults(command=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs `fedvtc show`; returns the exit code.

    Raises:
        RunFolderError: the run folder is missing or damaged.
    """
    from fedvtc.reporting.run_facts import DAMAGE, damage, read_run
    from fedvtc.reporting.run_summary import summary_lines
    from fedvtc.storage.run_files import read_description

    read_description(arguments.folder)
    try:
        lines = summary_lines(read_run(arguments.folder), sys.stdout.encoding or "ascii")
    except DAMAGE as error:
        fix = f"See fedvtc doctor {arguments.folder}."
        raise RunFolderError(f"{arguments.folder}: damaged ({damage(error)}). {fix}") from None
    print("\n".join(lines))
    return EXIT_OK

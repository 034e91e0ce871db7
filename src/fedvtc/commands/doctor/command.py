"""`fedvtc doctor`: parser and command."""

import argparse
from pathlib import Path

from fedvtc.commands.parsing import Parser, make_console, make_parser
from fedvtc.errors import EXIT_OK, EXIT_USER_ERROR

ABOUT = """\
Checks this machine: packages, GPUs, memory, disk, Ray. With a run folder, also checks the records and every byte of
the checkpoints. Changes nothing. Exit code 2 if there is a fault: runs would fail, or the run folder is damaged."""

EXAMPLES = """\
examples:
  fedvtc doctor
  fedvtc doctor outputs/mine
"""


def parser() -> Parser:
    """Returns the parser of `fedvtc doctor`."""
    parser = make_parser("fedvtc doctor", ABOUT, EXAMPLES)
    parser.add_argument("folder", nargs="?", type=Path, metavar="RUN", help="a run folder to check")
    parser.add_argument("words", nargs="*", metavar="key=value", help="config keys, which win over the run's config")
    parser.add_argument("--trust", action="store_true", help="check checkpoint.dir even if another user owns RUN")
    parser.set_defaults(command=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs `fedvtc doctor`; returns 0, or 2 if there is a fault."""
    from fedvtc.commands.doctor.examine import examine
    from fedvtc.commands.doctor.finding import findings_table

    findings = examine(arguments.folder, arguments.words, trusted=arguments.trust)
    make_console().print(findings_table(findings))
    return EXIT_OK if all(finding.is_good for finding in findings) else EXIT_USER_ERROR

"""`fedvtc doctor`: parser and command."""

import argparse
from pathlib import Path

from fedvtc.commands.parsing import Parser, make_console, make_parser
from fedvtc.errors import EXIT_OK, EXIT_USER_ERROR

DOCTOR = """\
examples:
  fedvtc doctor
  fedvtc doctor outputs/mine
"""


def doctor_parser() -> Parser:
    """Parses the words of `fedvtc doctor`."""
    about = "Checks the environment and, where one is named, a run folder with every file of its checkpoints."
    parser = make_parser("fedvtc doctor", about, DOCTOR)
    parser.add_argument("folder", nargs="?", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("words", nargs="*", metavar="key=value", help="keys that win over the run's config.yaml")
    parser.add_argument("--trust", action="store_true", help="look at checkpoint.dir though RUN is another user's")
    parser.set_defaults(command=_doctor)
    return parser


def _doctor(words: argparse.Namespace) -> int:
    from fedvtc.commands import doctor

    findings = doctor.examine(words.folder, words.words, trusted=words.trust)
    make_console().print(doctor.findings_table(findings))
    return EXIT_OK if all(finding.is_good for finding in findings) else EXIT_USER_ERROR

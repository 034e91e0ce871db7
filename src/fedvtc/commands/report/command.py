"""`fedvtc report`: parser and command."""

import argparse
import glob
from collections.abc import Sequence
from pathlib import Path

from fedvtc.commands.parsing import Parser, make_parser
from fedvtc.errors import EXIT_OK, UserError, count_of
from fedvtc.reporting.lines import complain, say

DEFAULT_OUTPUT = Path("report")

ABOUT = """\
Writes a report of runs: a page, index.html, that needs no network, and its figures as SVG, PDF and PNG with their
numbers as CSV. Runs that differ in their seed only become one curve with a band."""

EXAMPLES = """\
examples:
  fedvtc report outputs/mnist-fedvtc-seed0
  fedvtc report outputs/comparison -o comparison
  fedvtc report 'outputs/digits-*' --target 0.8 --target 0.9
  fedvtc report outputs/comparison --privacy
"""


def parser() -> Parser:
    """Returns the parser of `fedvtc report`."""
    parser = make_parser("fedvtc report", ABOUT, EXAMPLES)
    folders = "run folders, sweep folders, or patterns such as 'outputs/digits-*'"
    parser.add_argument("folders", nargs="+", metavar="RUN | SWEEP | PATTERN", help=folders)
    output = f"folder of the report, made if missing; default: ./{DEFAULT_OUTPUT}"
    parser.add_argument("-o", "--output", type=Path, default=DEFAULT_OUTPUT, metavar="DIR", help=output)
    target = "a mean accuracy between 0 and 1 whose costs are compared; may be given several times"
    parser.add_argument("--target", type=float, action="append", default=[], metavar="ACCURACY", help=target)
    parser.add_argument("--title", help="heading of the page; default: the names of the folders")
    parser.add_argument("--page-only", action="store_true", help="write no figures beside the page, which is faster")
    privacy = "measure first, as fedvtc privacy does, every run that has no measures of privacy; takes a minute a run"
    parser.add_argument("--privacy", action="store_true", help=privacy)
    trust = "with --privacy: open run folders that belong to another user"
    parser.add_argument("--trust", action="store_true", help=trust)
    parser.set_defaults(command=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs `fedvtc report`; returns the exit code.

    Raises:
        UserError: a folder is missing or holds no run, a target is no accuracy, or the report cannot be written.
    """
    for target in arguments.target:
        if not 0 < target <= 1:
            raise UserError(f"--target {target:g}: is no accuracy. Give a number above 0 and up to 1.")
    folders = matched(arguments.folders)
    from fedvtc.reporting.page.report import checked_page, write_report
    from fedvtc.reporting.results import read_results

    runs, problems = read_results(folders)
    for problem in problems:
        complain(problem)
    if not runs:
        named = ", ".join(arguments.folders)
        raise UserError(f"{named}: holds no run. Name a run folder, or a folder that holds run folders.")
    if arguments.privacy:
        from fedvtc.commands.report.privacy import measure_privacy

        # Before minutes of work.
        checked_page(arguments.output)
        problems += measure_privacy([run.folder for run in runs], trusted=arguments.trust)
    title = arguments.title or ", ".join(map(_name, arguments.folders))
    try:
        page, num_files = write_report(
            arguments.output, title, runs, problems, arguments.target, with_files=not arguments.page_only
        )
    except OSError as error:
        what = f"{error.filename or arguments.output}: cannot be written ({error.strerror or error})"
        raise UserError(f"{what}. Free disk space, or name another folder by -o.") from None
    say(f"{page}: {count_of(len(runs), 'run')}, {page.stat().st_size / 1e6:.1f} MB")
    if num_files:
        say(f"{page.parent / 'figures'}: {count_of(num_files, 'file')}")
    return EXIT_OK


def _name(word: str) -> str:
    """Returns the name of a folder, or a pattern with the name of its folder."""
    path = Path(word).absolute()
    return f"{path.parent.name}/{path.name}" if glob.has_magic(path.name) else path.name or word


def matched(words: Sequence[str]) -> list[Path]:
    """Returns the folders that words of the command line name.

    Raises:
        UserError: a pattern matches no folder.
    """
    folders = []
    for word in words:
        found = [word] if Path(word).exists() or not glob.has_magic(word) else sorted(glob.glob(word))
        if not found:
            raise UserError(f"{word}: matches no folder. Put the pattern in quotes, and check its folder.")
        folders += [Path(name) for name in found]
    return folders

"""`fedvtc table`: parser and command."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedvtc.commands.parsing import Parser, add_where, make_console, make_parser, where_of, words_of
from fedvtc.errors import EXIT_OK, UserError
from fedvtc.reporting.lines import complain, is_terminal

if TYPE_CHECKING:
    from fedvtc.reporting.comparison.trials import Trials

ABOUT = """\
Makes a table of many runs: mean and standard deviation over seeds, the best value bold, the second underlined.
Runs that differ in their seed only are one row. INPUT is a sweep folder, run folders, folders that hold run folders,
or a CSV file that `fedvtc table --long` has written."""
EXAMPLES = """\
examples:
  fedvtc table outputs/mnist_methods
  fedvtc table outputs/mnist_methods --rows method --columns partition.alpha --metric test/accuracy/mean
  fedvtc table outputs/mnist_methods --metric test/accuracy/mean,bytes/up --percent --format latex
  fedvtc table outputs/mnist_methods --where partition.alpha=0.1 --compare FedProto --ranks
  fedvtc table outputs/mnist_methods --metric accuracy --heading accuracy=Accuracy --format latex
  fedvtc table outputs/mnist_methods --long > mnist_methods.csv
"""
FORMATS = ("text", "latex", "markdown", "csv", "html")


def parser() -> Parser:
    """Returns the parser of `fedvtc table`."""
    parser = make_parser("fedvtc table", ABOUT, EXAMPLES)
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="a sweep folder, run folders, or a long CSV file")
    several = "repeat the option or separate names by commas"
    add("--rows", action="append", metavar="KEY", help=f"settings of the rows, such as method; {several}")
    add(
        "--columns", action="append", metavar="KEY", help=f"settings of the columns, such as partition.alpha; {several}"
    )
    add("--metric", action="append", metavar="NAME", help=f"numbers, such as test/accuracy/mean or bytes/up; {several}")
    add_where(parser)
    add("--percent", action="store_true", help="show accuracies and other shares in percent")
    add("--digits", type=_digits, metavar="N", help="digits after the point of shares; default: 4, in percent 2")
    add("--sort", metavar="NAME", help="sort the rows by this number in the first column, the best row first")
    compare = "add the differences from this row, paired by seed, with 95 %% confidence intervals"
    add("--compare", metavar="ROW", help=compare)
    heading = "heading of a setting or number, such as training.optimizer.lr='learning rate'; repeat for more"
    add("--heading", action="append", default=[], metavar="NAME=TEXT", help=heading)
    add("--ranks", action="store_true", help="add the mean rank over seeds by the first metric")
    target = "rounds, bytes and seconds up to this mean accuracy, as target/rounds, target/bytes, target/seconds"
    add("--target", type=_target, metavar="ACCURACY", help=target)
    add("--format", choices=FORMATS, default="text", help="text (the default), latex, markdown, csv or html")
    add("--long", action="store_true", help="print a CSV file, one row per trial; `fedvtc table` reads the file again")
    add("--debug", action="store_true", help="print the traceback of an error")
    parser.set_defaults(command=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs `fedvtc table`; returns the exit code.

    Raises:
        UserError: an input is missing or damaged, a name is unknown, or a row would mix runs of different settings.
    """
    from fedvtc.reporting.comparison import formats
    from fedvtc.reporting.comparison.groups import compared, selected
    from fedvtc.reporting.comparison.long_csv import as_long_csv
    from fedvtc.reporting.comparison.metrics import default_names, metrics_of
    from fedvtc.reporting.comparison.sheet import Choice, sheet_of
    from fedvtc.reporting.comparison.terminal import print_sheet

    trials = selected(_read(arguments.inputs, arguments.target), where_of(arguments.where))
    rows, columns = words_of(arguments.rows), words_of(arguments.columns)
    names = [_number(trials, "--metric", word) for word in words_of(arguments.metric)]
    order = _number(trials, "--sort", arguments.sort) if arguments.sort else None
    table = compared(trials, rows or None, columns)
    if arguments.long:
        print(as_long_csv(trials, [*rows, *columns], names), end="")
        return EXIT_OK
    shown = names or default_names(trials.target, times=arguments.format == "text")
    headings = _headings(trials, arguments.heading, [*table.row_keys, *table.column_keys])
    metrics = metrics_of(shown, trials.target, percent=arguments.percent, digits=arguments.digits, headings=headings)
    choice = Choice(metrics, arguments.compare, arguments.ranks, not names, order, headings)
    if arguments.format == "csv":
        print(formats.as_csv(table, choice), end="")
        return EXIT_OK
    sheet = sheet_of(table, choice)
    if arguments.format == "text":
        print_sheet(sheet, make_console(), is_terminal=is_terminal())
    else:
        write = {"latex": formats.as_latex, "markdown": formats.as_markdown, "html": formats.as_html}
        print(write[arguments.format](sheet), end="")
    return EXIT_OK


def _read(inputs: Sequence[Path], target: float | None) -> "Trials":
    from fedvtc.reporting.comparison.long_csv import read_long_csv
    from fedvtc.reporting.comparison.trials import joined, read_folders

    files = [path for path in inputs if path.is_file()]
    folders = [path for path in inputs if path not in files]
    read = [read_long_csv(file) for file in files]
    for file, trials in zip(files, read, strict=True):
        if target not in (None, trials.target):
            fix = "Name the run folders, which have the whole curves, or remove --target."
            raise UserError(f"--target {target:g}: {file} has no numbers for this target. {fix}")
    if folders:
        found, problems = read_folders(folders, target)
        read += found
        for problem in problems:
            complain(problem)
    return joined(read)


def _number(trials: "Trials", option: str, word: str) -> str:
    """Returns the name of a number, given by this name or by the heading of its column."""
    from fedvtc.config.problems import did_you_mean, nearest
    from fedvtc.reporting.comparison.metrics import HEADINGS

    known = dict.fromkeys([*HEADINGS, *(name for row in trials.rows for name in row.numbers)])
    headings = {heading: name for name, heading in HEADINGS.items() if "{" not in heading}
    name = headings.get(word, word)
    if name not in known:
        fix = did_you_mean(word, known if nearest(word, known) else headings)
        raise UserError(f"{option} {word}: no run has this number. {fix}")
    return name


def _headings(trials: "Trials", given: Sequence[str], settings: Sequence[str]) -> dict[str, str]:
    """Returns the texts of `--heading` by setting or number."""
    headings = {}
    for word in given:
        name, equals, text = word.partition("=")
        if not equals or not text:
            raise UserError(f"--heading {word}: expected NAME=TEXT. Write for example --heading accuracy=Acc.")
        headings[name if name in settings else _number(trials, "--heading", name)] = text
    return headings


def _digits(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 15:
        raise argparse.ArgumentTypeError("expected a number from 0 to 15")
    return number


def _target(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError("expected an accuracy above 0 and at most 1")
    return number

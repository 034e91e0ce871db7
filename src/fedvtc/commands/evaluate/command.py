"""`fedvtc evaluate`: parser and command."""

import argparse

from fedvtc.commands.finished import add_run_arguments
from fedvtc.commands.parsing import Parser, make_console, make_parser
from fedvtc.errors import EXIT_OK, count_of

ABOUT = """\
Evaluates the final models of a run on other test sets, without training: the run's test images rotated, shifted or
noised, or another data set of the same classes. Adds a row per client and test set to evaluations.csv in the run
folder."""

EXAMPLES = """\
examples:
  fedvtc evaluate outputs/mine --on rotated:15 --on shifted:2 --on noise:0.1
  fedvtc evaluate outputs/mine --on npz:mine.npz --on data:mnist --on folder:photos
"""


def parser() -> Parser:
    """Returns the parser of `fedvtc evaluate`."""
    parser = make_parser("fedvtc evaluate", ABOUT, EXAMPLES)
    add_run_arguments(parser)
    on_help = (
        "a test set, any number of times: rotated:DEGREES, shifted:PIXELS, noise:DEVIATION, npz:FILE, folder:DIR or"
        " data:NAME; the run's own test set is always evaluated too"
    )
    parser.add_argument("--on", action="append", default=[], metavar="SET", help=on_help)
    parser.set_defaults(command=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs `fedvtc evaluate`; returns the exit code.

    Raises:
        UserError: the run is not finished or cannot be read, a test set is absent or does not fit, or evaluations.csv
            cannot be written.
    """
    from fedvtc.commands.evaluate.evaluating import evaluate, matrix_table
    from fedvtc.federation.finished import finished_run
    from fedvtc.storage.evaluations import save_evaluations

    with finished_run(arguments.folder, arguments.words, trusted=arguments.trust) as opened:
        rows = evaluate(opened, arguments.on, clients=arguments.clients)
    file = save_evaluations(arguments.folder, rows)
    make_console().print(matrix_table(rows))
    print(f"{file}: {count_of(len(rows), 'row')}")
    return EXIT_OK

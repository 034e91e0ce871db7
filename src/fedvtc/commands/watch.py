"""`fedvtc watch`: parser and command."""

import argparse
import time
from pathlib import Path

from fedvtc.commands.parsing import Parser, make_console, make_parser
from fedvtc.errors import EXIT_OK, UserError
from fedvtc.reporting.lines import is_terminal

ABOUT = """\
Shows the progress of a sweep until the sweep ends: trials done, running and failed, rounds, and the time left.
Reads the sweep folder only, so any machine that sees the folder can watch. Ctrl-C ends the view, not the sweep."""
EXAMPLES = """\
examples:
  fedvtc watch outputs/mnist_methods
  fedvtc watch outputs/mnist_methods --once
"""


def parser() -> Parser:
    """Returns the parser of `fedvtc watch`."""
    parser = make_parser("fedvtc watch", ABOUT, EXAMPLES)
    parser.add_argument("folder", type=Path, metavar="SWEEP", help="a sweep folder")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="seconds between two views")
    parser.add_argument("--once", action="store_true", help="show the present state and exit, as without a terminal")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    parser.set_defaults(command=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs `fedvtc watch`; returns the exit code.

    Raises:
        UserError: the folder is no sweep folder.
        RunFolderError: sweep.yaml is damaged.
    """
    from rich.live import Live

    from fedvtc.reporting.comparison.trials import DEFINITION
    from fedvtc.reporting.sweep_progress import progress_view, sweep_progress

    if not (arguments.folder / DEFINITION).is_file():
        fix = "Name the folder of a sweep, such as outputs/mnist_methods."
        raise UserError(f"{arguments.folder}: no sweep folder (no {DEFINITION}). {fix}")
    if not 0.1 <= arguments.every <= 86400:
        raise UserError(f"--every {arguments.every:g}: expected 0.1 to 86400 seconds. Leave --every out for 5 seconds.")
    console, progress = make_console(), sweep_progress(arguments.folder)
    if arguments.once or not is_terminal():
        console.print(progress_view(progress))
        return EXIT_OK
    with Live(progress_view(progress), console=console, auto_refresh=False) as live:
        while progress.is_active:
            time.sleep(arguments.every)
            progress = sweep_progress(arguments.folder)
            live.update(progress_view(progress), refresh=True)
    return EXIT_OK

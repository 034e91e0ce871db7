"""`fedvtc list`: parser and command."""

import argparse
from pathlib import Path

from fedvtc.commands.parsing import Parser, add_address, make_console, make_parser
from fedvtc.errors import EXIT_OK, UserError

DEFAULT_FOLDER = Path("outputs")

ABOUT = """\
Lists runs with their accuracy, the jobs of a Ray cluster, the configs that fedvtc ships, or the names of data sets,
backbones and methods that a config can use."""

EXAMPLES = """\
examples:
  fedvtc list
  fedvtc list runs outputs/mnist outputs/demo
  fedvtc list configs
  fedvtc list backbones
  fedvtc list --cluster --address http://HEAD:8265
"""


def parser() -> Parser:
    """Returns the parser of `fedvtc list`."""
    parser = make_parser("fedvtc list", ABOUT, EXAMPLES)
    kinds = ("runs", "configs", "data", "backbones", "methods")
    kind_help = "runs (the default), configs, data, backbones or methods"
    parser.add_argument("kind", nargs="?", default="runs", choices=kinds, metavar="KIND", help=kind_help)
    folders_help = "for runs: run folders, or folders that hold run folders; default: ./outputs"
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help=folders_help)
    parser.add_argument("--cluster", action="store_true", help="list the jobs of a Ray cluster instead of runs")
    add_address(parser)
    parser.set_defaults(command=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs `fedvtc list`; returns the exit code.

    Raises:
        UserError: arguments contradict each other, a folder is missing, or the cluster does not answer.
    """
    _check(arguments)
    console = make_console()
    if arguments.cluster:
        from fedvtc.commands import submit

        console.print(submit.jobs_table(submit.statuses(arguments.address)))
    elif arguments.kind != "runs":
        from fedvtc.commands.listing.names import names_table

        console.print(names_table(arguments.kind))
    elif not arguments.folders and not DEFAULT_FOLDER.is_dir():
        print(f"No runs: there is no folder ./{DEFAULT_FOLDER} yet. Start a run: fedvtc run conf/base.yaml")
    else:
        from fedvtc.reporting.runs import runs_table

        table, lines = runs_table(arguments.folders or [DEFAULT_FOLDER], console.width)
        if table is not None:
            console.print(table)
        print("\n".join(lines))
    return EXIT_OK


def _check(arguments: argparse.Namespace) -> None:
    """Raises a UserError if arguments contradict each other."""
    if arguments.cluster and (arguments.kind != "runs" or arguments.folders):
        word = [arguments.kind, *arguments.folders][-1]
        raise UserError(f"{word}: list --cluster lists all jobs, without KIND and FOLDER. Leave {word} out.")
    if arguments.address and not arguments.cluster:
        from fedvtc.config.secrets import shown

        raise UserError(f"{shown('--address', arguments.address)}: needs --cluster. Give both options.")
    if arguments.folders and arguments.kind != "runs":
        raise UserError(
            f"{arguments.folders[0]}: list {arguments.kind} takes no folder. Leave {arguments.folders[0]} out."
        )

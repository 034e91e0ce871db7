"""`fedvtc list`: parser and command."""

import argparse
import os
from pathlib import Path

from fedvtc.commands.parsing import Parser, add_address, add_where, make_console, make_parser, where_of, words_of
from fedvtc.errors import EXIT_OK, UserError
from fedvtc.reporting.lines import complain

DEFAULT_FOLDER = Path("outputs")
KINDS = ("runs", "configs", "data", "backbones", "methods")

ABOUT = """\
Lists runs with their accuracy, the jobs of a Ray cluster, the configs that fedvtc ships, or the names of data sets,
backbones and methods that a config can use."""

EXAMPLES = """\
examples:
  fedvtc list
  fedvtc list runs outputs/mnist outputs/demo
  fedvtc list runs --where status=failed --where data.name=mnist
  fedvtc list runs --columns method,training.optimizer.lr,accuracy,bytes/up --sort accuracy --reverse
  fedvtc list runs --json
  fedvtc list configs
  fedvtc list backbones
  fedvtc list --cluster --address http://HEAD:8265
"""


def parser() -> Parser:
    """Returns the parser of `fedvtc list`."""
    parser = make_parser("fedvtc list", ABOUT, EXAMPLES)
    kind_help = "runs (the default), configs, data, backbones or methods; a folder stands for `runs FOLDER`"
    parser.add_argument("kind", nargs="?", default="runs", metavar="KIND", help=kind_help)
    folders_help = "for runs: run folders, or folders that hold run folders; default: ./outputs"
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help=folders_help)
    of_runs = parser.add_argument_group("runs")
    add_where(of_runs)
    columns = "columns: headings of the list, config keys, numbers such as bytes/up; separated by commas"
    of_runs.add_argument("--columns", action="append", metavar="NAME", help=columns)
    of_runs.add_argument("--sort", metavar="NAME", help="sort by a column, config key or number; default: by age")
    of_runs.add_argument("--reverse", action="store_true", help="reverse the order")
    form = of_runs.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the runs as JSON")
    form.add_argument("--csv", action="store_true", help="print the runs as CSV")
    of_cluster = parser.add_argument_group("jobs")
    of_cluster.add_argument("--cluster", action="store_true", help="list the jobs of a Ray cluster instead of runs")
    add_address(of_cluster)
    parser.set_defaults(command=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs `fedvtc list`; returns the exit code.

    Raises:
        UserError: arguments contradict each other, a folder is missing, or the cluster does not answer.
    """
    if arguments.kind not in KINDS:
        arguments.folders = [_folder(arguments.kind), *arguments.folders]
        arguments.kind = "runs"
    _check(arguments)
    if arguments.cluster:
        from fedvtc.commands import submit

        make_console().print(submit.jobs_table(submit.statuses(arguments.address)))
    elif arguments.kind != "runs":
        from fedvtc.commands.listing.names import names_table

        make_console().print(names_table(arguments.kind))
    elif not arguments.folders and not DEFAULT_FOLDER.is_dir():
        message = f"No runs: there is no folder ./{DEFAULT_FOLDER} yet. Start a run: fedvtc run conf/base.yaml"
        if arguments.json or arguments.csv:
            raise UserError(message)
        print(message)
    else:
        _list_runs(arguments)
    return EXIT_OK


def _folder(word: str) -> Path:
    """Returns the folder that stands in the place of the kind."""
    from fedvtc.config.problems import did_you_mean

    if not os.path.exists(word):
        raise UserError(f"{word}: list knows no such kind, and there is no such folder. {did_you_mean(word, KINDS)}")
    return Path(word)


def _list_runs(arguments: argparse.Namespace) -> None:
    from fedvtc.reporting.runs import Selection, read_runs, runs_as_csv, runs_as_json, runs_table

    folders, columns = arguments.folders or [DEFAULT_FOLDER], words_of(arguments.columns) or None
    selection = Selection(where_of(arguments.where), arguments.sort, arguments.reverse, columns)
    if arguments.json or arguments.csv:
        rows, problems = read_runs(folders, selection)
        print((runs_as_json if arguments.json else runs_as_csv)(rows, columns), end="")
        for problem in problems:
            complain(problem)
        return
    console = make_console()
    table, lines = runs_table(folders, console.width, selection)
    if table is not None:
        console.print(table)
    print("\n".join(lines))


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
    own = ("where", "columns", "sort", "reverse", "json", "csv")
    given = next((name for name in own if getattr(arguments, name)), None)
    if given and (arguments.cluster or arguments.kind != "runs"):
        kind = "--cluster" if arguments.cluster else arguments.kind
        raise UserError(f"--{given}: works with runs only, not with {kind}. Leave one of the two out.")

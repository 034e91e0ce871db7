"""`fedvtc list`: parser and command."""

import argparse
from pathlib import Path

from fedvtc.commands.parsing import Parser, add_address, make_console, make_parser
from fedvtc.errors import EXIT_OK, UserError

DEFAULT_RUNS = Path("outputs")

LIST = """\
examples:
  fedvtc list
  fedvtc list runs outputs/mnist outputs/demo
  fedvtc list backbones
  fedvtc list --cluster --address http://HEAD:8265
"""


def list_parser() -> Parser:
    """Parses the words of `fedvtc list`."""
    parser = make_parser("fedvtc list", "Shows runs, jobs, data sets, backbones or methods.", LIST)
    parser.add_argument("kind", nargs="?", default="runs", choices=("runs", "data", "backbones", "methods"))
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="of runs; ./outputs when left out")
    parser.add_argument("--cluster", action="store_true", help="show the jobs of a cluster instead")
    add_address(parser)
    parser.set_defaults(command=_list)
    return parser


def _list(words: argparse.Namespace) -> int:
    from fedvtc.commands.listing import names
    from fedvtc.reporting import runs

    console = make_console()
    if words.cluster and (words.kind != "runs" or words.folders):
        raise UserError(f"{[words.kind, *words.folders][-1]}: list --cluster shows all jobs. Leave it out.")
    if words.address and not words.cluster:
        from fedvtc.config.secrets import shown

        raise UserError(f"{shown('--address', words.address)}: goes with --cluster. Give both.")
    if words.cluster:
        from fedvtc.commands import submit as submission

        console.print(submission.jobs_table(submission.statuses(words.address)))
        return EXIT_OK
    if words.kind != "runs":
        if words.folders:
            raise UserError(f"{words.folders[0]}: list {words.kind} takes no folder. Leave it out.")
        console.print(names.names_table(words.kind))
        return EXIT_OK
    if not words.folders and not DEFAULT_RUNS.is_dir():
        print(f"No runs, for there is no folder ./{DEFAULT_RUNS} yet. Start one: fedvtc run conf/base.yaml")
        return EXIT_OK
    table, lines = runs.runs_table(words.folders or [DEFAULT_RUNS])
    if table is not None:
        console.print(table)
    print("\n".join(lines))
    return EXIT_OK

"""The commands: `fedvtc run | resume | submit | sweep | plan | list | doctor`, their words, and what they do.

Nothing heavy is imported at the top, so that help and a config with a mistake answer at once.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fedvtc import examples
from fedvtc.command_words import Parser, config_parser, load_config, make_parser
from fedvtc.errors import EXIT_OK, EXIT_USER_ERROR, UserError

if TYPE_CHECKING:
    from rich.console import Console


DEFAULT_RUNS = Path("outputs")

PLAIN_WIDTH = 160
"""Columns where the output is not a terminal, so that tables in a log keep their rows whole."""


def _run_parser() -> Parser:
    parser = config_parser("run", "Runs a federation and writes its run folder.", examples.RUN)
    _add_run_options(parser)
    parser.set_defaults(command=_run)
    return parser


def _resume_parser() -> Parser:
    about = "Goes on with a run from its newest whole checkpoint. A run that has finished stays as it is."
    parser = make_parser("fedvtc resume", about, examples.RESUME)
    parser.add_argument("folder", type=Path, metavar="RUN", help="the run folder")
    parser.add_argument("words", nargs="*", metavar="key=value", help="keys that may change; see docs/resuming.md")
    _add_run_options(parser)
    parser.set_defaults(command=_resume)
    return parser


def _add_run_options(parser: Parser) -> None:
    parser.add_argument("--plain", action="store_true", help="one line per round, no live table")
    parser.add_argument("--debug", action="store_true", help="show where in the code a mistake was noticed")


def _submit_parser() -> Parser:
    about = "Runs a federation as a job of a Ray cluster, and follows its log. A run that the cluster has had goes on."
    parser = config_parser("submit", about, examples.SUBMIT)
    _add_address(parser)
    parser.add_argument("--runtime-env", type=Path, metavar="FILE", help="a runtime environment of Ray, as YAML")
    parser.add_argument("--working-dir", type=Path, metavar="DIR", help="a folder that the job runs in a copy of")
    parser.add_argument("--no-wait", action="store_true", help="return once it is submitted")
    parser.add_argument("--debug", action="store_true", help="show where in the code a mistake was noticed")
    parser.set_defaults(command=_submit)
    return parser


def _sweep_parser() -> Parser:
    from fedvtc.sweep import command

    parser = make_parser("fedvtc sweep", command.ABOUT, examples.SWEEP)
    command.add_options(parser)
    parser.set_defaults(command=lambda words: command.run(words, _console()))
    return parser


def _add_address(parser: argparse.ArgumentParser) -> None:
    text = "the cluster's dashboard; without it RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or http://127.0.0.1:8265"
    parser.add_argument("--address", metavar="URL", help=text)


def _plan_parser() -> Parser:
    about = (
        "Shows what a run would do: its config, who holds what, bytes per round, processes and memory. Trains nothing."
    )
    parser = config_parser("plan", about, examples.PLAN)
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and nothing else")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="where to put the picture of the partition")
    parser.set_defaults(command=_plan)
    return parser


def _list_parser() -> Parser:
    parser = make_parser("fedvtc list", "Shows runs, jobs, data sets, backbones or methods.", examples.LIST)
    parser.add_argument("kind", nargs="?", default="runs", choices=("runs", "data", "backbones", "methods"))
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="of runs; ./outputs when left out")
    parser.add_argument("--cluster", action="store_true", help="show the jobs of a cluster instead")
    _add_address(parser)
    parser.set_defaults(command=_list)
    return parser


def _doctor_parser() -> Parser:
    about = "Checks the environment and, where one is named, a run folder with every file of its checkpoints."
    parser = make_parser("fedvtc doctor", about, examples.DOCTOR)
    parser.add_argument("folder", nargs="?", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("words", nargs="*", metavar="key=value", help="keys that win over the run's config.yaml")
    parser.set_defaults(command=_doctor)
    return parser


def _run(words: argparse.Namespace) -> int:
    config = load_config(words.words)
    from fedvtc.run import run_federation

    run_federation(config, plain=words.plain)
    return EXIT_OK


def _resume(words: argparse.Namespace) -> int:
    from fedvtc.run import resume_federation

    resume_federation(words.folder, words.words, plain=words.plain)
    return EXIT_OK


def _submit(words: argparse.Namespace) -> int:
    config = load_config(words.words)
    from fedvtc import submission

    runtime_env = submission.read_runtime_env(words.runtime_env) if words.runtime_env else None
    job = submission.submit(config, address=words.address, runtime_env=runtime_env, working_dir=words.working_dir)
    named = [] if config.run.name else [f"run.name={job.run}"]
    options = {"--address": words.address, "--runtime-env": words.runtime_env, "--working-dir": words.working_dir}
    given = [str(word) for option, value in options.items() if value for word in (option, value)]
    lines = submission.advice(job, words.address, [*words.words, *named, *given], config.checkpoint.dir)
    print("\n".join(lines), flush=True)
    return EXIT_OK if words.no_wait else submission.watch(job, words.address)


def _doctor(words: argparse.Namespace) -> int:
    from fedvtc import doctor

    findings = doctor.examine(words.folder, words.words)
    _console().print(doctor.findings_table(findings))
    return EXIT_OK if all(finding.is_good for finding in findings) else EXIT_USER_ERROR


def _plan(words: argparse.Namespace) -> int:
    from fedvtc.config import to_yaml

    config = load_config(words.words)
    print(to_yaml(config), end="" if words.print_config else "\n", flush=True)
    if words.print_config:
        return EXIT_OK
    from fedvtc import planning

    plan = planning.make_plan(config)
    planning.print_plan(plan, _console())
    print(f"Picture: {planning.save_picture(plan, words.picture)}")
    return EXIT_OK


def _list(words: argparse.Namespace) -> int:
    from fedvtc import listing

    console = _console()
    if words.cluster and (words.kind != "runs" or words.folders):
        raise UserError(f"{[words.kind, *words.folders][-1]}: list --cluster shows all jobs. Leave it out.")
    if words.address and not words.cluster:
        from fedvtc.config.secrets import shown

        raise UserError(f"{shown('--address', words.address)}: goes with --cluster. Give both.")
    if words.cluster:
        from fedvtc import submission

        console.print(submission.jobs_table(submission.statuses(words.address)))
        return EXIT_OK
    if words.kind != "runs":
        if words.folders:
            raise UserError(f"{words.folders[0]}: list {words.kind} takes no folder. Leave it out.")
        console.print(listing.names_table(words.kind))
        return EXIT_OK
    if not words.folders and not DEFAULT_RUNS.is_dir():
        print(f"No runs, for there is no folder ./{DEFAULT_RUNS} yet. Start one: fedvtc run conf/base.yaml")
        return EXIT_OK
    table, lines = listing.runs_table(words.folders or [DEFAULT_RUNS])
    if table is not None:
        console.print(table)
    print("\n".join(lines))
    return EXIT_OK


def _console() -> "Console":
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)


PARSERS = {
    "run": _run_parser,
    "resume": _resume_parser,
    "submit": _submit_parser,
    "sweep": _sweep_parser,
    "plan": _plan_parser,
    "list": _list_parser,
    "doctor": _doctor_parser,
}
"""How the words of each command are read; `command` of what a parser finds does it, and gives the exit code."""

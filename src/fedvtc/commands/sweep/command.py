"""`fedvtc sweep`: its options, and what it does."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fedvtc.commands.parsing import Parser, make_console, make_parser
from fedvtc.errors import EXIT_OK, UserError

if TYPE_CHECKING:
    from rich.console import Console

import os
import shlex
from collections.abc import Sequence
from contextlib import nullcontext

from rich.console import Console

from fedvtc.commands.sweep.definition import load_sweep
from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.trials import Sweep
from fedvtc.config.secrets import shown
from fedvtc.errors import EXIT_CRASH
from fedvtc.federation.stopper import Stopper
from fedvtc.reporting.lines import say

ABOUT = "Runs many federations from one file, side by side, and makes a table of means over seeds."


SWEEP = """\
examples:
  fedvtc sweep conf/sweep/digits_quick.yaml
  fedvtc sweep conf/sweep/mnist_methods.yaml run.rounds=20 cluster.address=auto
  fedvtc sweep conf/sweep/mnist_methods.yaml --print
  fedvtc sweep conf/sweep/mnist_methods.yaml run.output_dir=/mnt/shared/outputs --executor jobs
  fedvtc sweep conf/sweep/mnist_methods.yaml --results
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The words that `run` takes."""
    parser.add_argument("words", nargs="+", metavar="FILE | key=value", help="a sweep file, and keys for every trial")
    parser.add_argument(
        "--executor", choices=("tune", "jobs"), default="tune", help="Ray Tune in this process, or a job for each trial"
    )
    parser.add_argument("--print", action="store_true", help="print the command of each trial, and start nothing")
    parser.add_argument("--results", action="store_true", help="print and write the table as it is, and start nothing")
    parser.add_argument("--plain", action="store_true", help="the table as in results.md")
    parser.add_argument("--debug", action="store_true", help="show where in the code a mistake was noticed")
    for_jobs = parser.add_argument_group("with --executor jobs")
    for_jobs.add_argument("--address", metavar="URL", help="the cluster's dashboard, as for fedvtc submit")
    for_jobs.add_argument("--runtime-env", type=Path, metavar="FILE", help="a runtime environment of Ray, as YAML")
    for_jobs.add_argument("--working-dir", type=Path, metavar="DIR", help="a folder that each job runs in a copy of")


def run(words: argparse.Namespace, console: Console) -> int:
    """Does what the words say.

    Returns:
        The exit code: 1 where a trial failed.

    Raises:
        UserError: an option does not go with the others, or the sweep file, its folder or the cluster are not as they
            need to be.
        Interrupted: the sweep was asked to end.
    """
    _check_options(words)
    sweep = _load(words.words)
    if words.print:
        print("\n".join(shlex.join(["fedvtc", "run", *trial.words]) for trial in sweep.trials))
        return EXIT_OK
    folder, code = SweepFolder(sweep), EXIT_OK
    if words.results:
        if not folder.path.is_dir():
            raise UserError(f"{folder.path}: no such folder, the sweep has not begun. Leave --results out to run it.")
        # Else the numbers of other configs would stand there as those that were asked for.
        folder.check()
    elif words.executor == "jobs":
        return _with_jobs(folder, words)
    else:
        with folder.opened():
            _say_how_far(folder)
            code = _with_tune(folder, words.words)
    _show(folder, console, words.plain)
    return code


def _check_options(words: argparse.Namespace) -> None:
    for option, value in _options_of_jobs(words).items():
        given = shown(option, str(value))
        if words.executor != "jobs":
            raise UserError(f"{given}: goes with --executor jobs. Give both.")
        if words.print or words.results:
            other = "--print" if words.print else "--results"
            raise UserError(f"{given}: is for jobs, and {other} starts none. Leave one of them out.")


def _options_of_jobs(words: argparse.Namespace) -> dict[str, Path | str]:
    """Those of `--executor jobs` that are given."""
    options = {"--address": words.address, "--runtime-env": words.runtime_env, "--working-dir": words.working_dir}
    return {option: value for option, value in options.items() if value}


def _load(words: Sequence[str]) -> Sweep:
    files = [word for word in words if "=" not in word or os.path.exists(word)]
    if len(files) != 1:
        what = f"a sweep takes one sweep file, not {len(files)}"
        raise UserError(f"{' '.join(files) or 'FILE'}: {what}. Such as conf/sweep/digits_quick.yaml.")
    return load_sweep(Path(files[0]), [word for word in words if word != files[0]])


def _say_how_far(folder: SweepFolder) -> None:
    num_trials = len(folder.sweep.trials)
    num_done = num_trials - len(folder.pending())
    done = f", {num_done} done" if num_done else ""
    say(f"{folder.sweep.name}: {num_trials} trials{done}, in {folder.path}")


def _with_tune(folder: SweepFolder, words: Sequence[str]) -> int:
    from fedvtc.commands.sweep.tuning import run_trials

    command = shlex.join(["fedvtc", "sweep", *words])
    try:
        failures = run_trials(folder, say)
    except KeyboardInterrupt:
        say(f"each trial goes on from its newest checkpoint with: {command}")
        raise
    finally:
        folder.settle()
    for trial in folder.sweep.trials:
        if trial.name in failures:
            say(f"{trial.name}: failed: {failures[trial.name]} (see {folder.log(trial)})")
    if failures:
        say(f"go on with: {command}")
    return EXIT_CRASH if failures else EXIT_OK


def _with_jobs(folder: SweepFolder, words: argparse.Namespace) -> int:
    from fedvtc.commands.sweep.as_jobs import check_as_jobs, submit_trials

    check_as_jobs(folder.sweep)
    given = [str(word) for option in _options_of_jobs(words).items() for word in option]
    is_here = folder.is_here
    with folder.opened() if is_here else nullcontext():
        if is_here:
            _say_how_far(folder)
        else:
            what = "is not here, or cannot be written, so the jobs of the cluster say what is done"
            say(f"{folder.sweep.name}: {len(folder.sweep.trials)} trials; {folder.sweep.output_dir} {what}")
        try:
            with Stopper(say, 0.0).listening():
                submit_trials(folder, is_here, words.address, words.runtime_env, words.working_dir, say)
        except KeyboardInterrupt:
            again = shlex.join(["fedvtc", "sweep", *words.words, "--executor", "jobs", *given])
            say(f"the jobs that were sent go on; go on with: {again}")
            raise
    where = "" if is_here else ", where that folder is"
    say(f"once they have ended{where}: {shlex.join(['fedvtc', 'sweep', *words.words, '--results'])}")
    return EXIT_OK


def _show(folder: SweepFolder, console: Console, plain: bool) -> None:
    from fedvtc.commands.sweep.results import ANEW, write_results
    from fedvtc.reporting.means import as_markdown, as_table

    groups = write_results(folder)
    if plain:
        print(as_markdown(groups, folder.sweep.name), end="")
    else:
        console.print(as_table(groups))
    for path in (path for group in groups for path in group.lacking):
        say(f"{path}: metrics.jsonl lacks records, so the run is not in the table. {ANEW}")
    say(f"table: {folder.path / 'results.csv'}, {folder.path / 'results.md'}")


def parser() -> Parser:
    """Parses the words of `fedvtc sweep`."""
    from fedvtc.commands.sweep import command

    parser = make_parser("fedvtc sweep", command.ABOUT, SWEEP)
    command.add_options(parser)
    parser.set_defaults(command=lambda words: command.run(words, make_console()))
    return parser

"""`fedvtc sweep`: its parser and command. Imports nothing heavy at the top."""

import argparse
import os
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from fedvtc.commands.parsing import Parser, make_console, make_parser
from fedvtc.errors import EXIT_CRASH, EXIT_OK, UserError, count_of
from fedvtc.reporting.lines import is_terminal, say

if TYPE_CHECKING:
    from fedvtc.commands.sweep.folder import SweepFolder
    from fedvtc.commands.sweep.trials import Sweep

ABOUT = "Runs many federations from one sweep file and makes a table of means over seeds."
EXAMPLES = """\
examples:
  fedvtc sweep conf/sweep/digits_quick.yaml
  fedvtc sweep conf/sweep/mnist_methods.yaml run.rounds=20 cluster.address=auto
  fedvtc sweep conf/sweep/mnist_methods.yaml --print
  fedvtc sweep conf/sweep/mnist_methods.yaml run.output_dir=/mnt/shared/outputs --executor jobs
  fedvtc sweep conf/sweep/mnist_methods.yaml --results
"""


def parser() -> Parser:
    """Returns the parser of `fedvtc sweep`."""
    parser = make_parser("fedvtc sweep", ABOUT, EXAMPLES)
    parser.add_argument("words", nargs="+", metavar="FILE | key=value", help="a sweep file, and keys for all trials")
    parser.add_argument(
        "--executor", choices=("tune", "jobs"), default="tune", help="run trials with Ray Tune, or each as a job"
    )
    parser.add_argument("--print", action="store_true", help="print the command of each trial and exit")
    parser.add_argument("--results", action="store_true", help="print and write the present table and exit")
    parser.add_argument("--plain", action="store_true", help="print the table as Markdown")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    for_jobs = parser.add_argument_group("with --executor jobs")
    for_jobs.add_argument("--address", metavar="URL", help="the cluster's dashboard, as for fedvtc submit")
    for_jobs.add_argument("--runtime-env", type=Path, metavar="FILE", help="a runtime environment of Ray, as YAML")
    for_jobs.add_argument("--working-dir", type=Path, metavar="DIR", help="a folder that each job runs in a copy of")
    parser.set_defaults(command=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs `fedvtc sweep`.

    Returns:
        The exit code: 1 if a trial failed, else 0.

    Raises:
        UserError: options conflict, or the sweep file, the sweep folder or the cluster has a problem.
        Interrupted: a signal ended the sweep.
    """
    _check_options(arguments)
    with _own_code_of_jobs(arguments):
        sweep = _load(arguments.words)
    if arguments.print:
        print("\n".join(shlex.join(["fedvtc", "run", *trial.arguments]) for trial in sweep.trials))
        return EXIT_OK
    from fedvtc.commands.sweep.folder import SweepFolder

    folder, code = SweepFolder(sweep), EXIT_OK
    if arguments.results:
        if not os.path.isdir(folder.path):
            what = "no such folder, the sweep has not started"
            raise UserError(f"{folder.path}: {what}. Run the command without --results to start the sweep.")
        # Without this check, the table could show results of other configs under the names of these trials.
        folder.check()
    elif arguments.executor == "jobs":
        return _run_with_jobs(folder, arguments)
    else:
        with folder.opened():
            _say_progress(folder)
            code = _run_with_tune(folder, arguments.words)
    _show_results(folder, arguments.plain)
    return code


def _check_options(arguments: argparse.Namespace) -> None:
    from fedvtc.config.secrets import shown

    for option, value in _job_options(arguments).items():
        given = shown(option, str(value))
        if arguments.executor != "jobs":
            raise UserError(f"{given}: works with --executor jobs only. Add --executor jobs or remove {option}.")
        if arguments.print or arguments.results:
            other = "--print" if arguments.print else "--results"
            raise UserError(f"{given}: has no effect with {other}, which starts no jobs. Remove one of the two.")


def _own_code_of_jobs(arguments: argparse.Namespace) -> AbstractContextManager[None]:
    """Returns a context that imports the user's own code as the jobs will."""
    if arguments.executor != "jobs" or arguments.print or arguments.results:
        return nullcontext()
    from fedvtc.commands import submit as submission
    from fedvtc.config.own_code import as_in_job

    runtime_env = submission.read_runtime_env(arguments.runtime_env) if arguments.runtime_env else None
    return as_in_job(submission.sent_folders(runtime_env, arguments.working_dir))


def _job_options(arguments: argparse.Namespace) -> dict[str, Path | str]:
    """Returns the given options that work with `--executor jobs` only."""
    options = {
        "--address": arguments.address,
        "--runtime-env": arguments.runtime_env,
        "--working-dir": arguments.working_dir,
    }
    return {option: value for option, value in options.items() if value}


def _load(words: Sequence[str]) -> "Sweep":
    from fedvtc.commands.sweep.loading import load_sweep
    from fedvtc.config.shipped import located

    files = [word for word in words if "=" not in word or os.path.exists(word)]
    if len(files) != 1:
        fix = "Give one, for example conf/sweep/digits_quick.yaml."
        raise UserError(f"{' '.join(files) or 'FILE'}: expected one sweep file, not {len(files)}. {fix}")
    return load_sweep(located(files[0]), [word for word in words if word != files[0]])


def _say_progress(folder: "SweepFolder") -> None:
    num_trials = len(folder.sweep.trials)
    num_done = num_trials - len(folder.pending())
    done = f", {num_done} done" if num_done else ""
    say(f"{folder.sweep.name}: {count_of(num_trials, 'trial')}{done}, in {folder.path}")


def _run_with_tune(folder: "SweepFolder", words: Sequence[str]) -> int:
    from fedvtc.commands.sweep import tuning

    command = shlex.join(["fedvtc", "sweep", *words])
    try:
        failures = tuning.run_trials(folder, say)
    except KeyboardInterrupt:
        say(f"resume each trial from its newest checkpoint with: {command}")
        raise
    finally:
        folder.mark_interrupted()
    for trial in folder.sweep.trials:
        if trial.name in failures:
            say(f"{trial.name}: failed: {failures[trial.name]} (see {folder.log(trial)})")
    if failures:
        say(f"retry failed trials with: {command}")
    return EXIT_CRASH if failures else EXIT_OK


def _run_with_jobs(folder: "SweepFolder", arguments: argparse.Namespace) -> int:
    from fedvtc.commands.sweep.as_jobs import check_as_jobs, submit_trials
    from fedvtc.federation.stopper import Stopper

    check_as_jobs(folder.sweep)
    options = _job_options(arguments)
    is_here = folder.is_on_this_machine
    with folder.opened() if is_here else nullcontext():
        if is_here:
            _say_progress(folder)
        else:
            what = (
                "does not exist on this machine or is not writable, so the cluster's jobs decide which trials are done"
            )
            say(f"{folder.sweep.name}: {count_of(len(folder.sweep.trials), 'trial')}; {folder.sweep.output_dir} {what}")
        try:
            with Stopper(say, 0.0, owns_process=True).listening():
                submit_trials(folder, is_here, arguments.address, arguments.runtime_env, arguments.working_dir, say)
        except KeyboardInterrupt:
            given = [str(part) for option in options.items() for part in option]
            command = shlex.join(["fedvtc", "sweep", *arguments.words, "--executor", "jobs", *given])
            say(f"submitted jobs keep running; submit the rest with: {command}")
            raise
    where = "" if is_here else ", on a machine with that folder"
    say(f"after the jobs have ended{where}: {shlex.join(['fedvtc', 'sweep', *arguments.words, '--results'])}")
    return EXIT_OK


def _show_results(folder: "SweepFolder", plain: bool) -> None:
    from fedvtc.commands.sweep.results import write_results
    from fedvtc.reporting.comparison.terminal import print_sheet
    from fedvtc.reporting.comparison.trials import RESTART_FIX

    results = write_results(folder)
    if plain:
        print(results.markdown, end="")
    else:
        print_sheet(results.sheet, make_console(), is_terminal=is_terminal())
    for path in results.incomplete_runs:
        say(f"{path}: metrics.jsonl lacks records, so the table leaves out this run. {RESTART_FIX}")
    say(f"table: {folder.path / 'results.csv'}, {folder.path / 'results.md'}")

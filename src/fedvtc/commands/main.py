"""Entry of the process: runs one command, prints errors, returns the exit code."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from fedvtc.commands.parsing import Parser, make_parser
from fedvtc.commands.registry import COMMANDS
from fedvtc.errors import (
    EXIT_CRASH,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_SIGNAL,
    EXIT_USER_ERROR,
    ClientError,
    FedvtcError,
    Interrupted,
    UserError,
)
from fedvtc.reporting.lines import complain, discard_unread_output, open_streams

EXAMPLES = """\
examples:
  fedvtc run                                                 run the defaults: digits, 8 clients, no download
  fedvtc run run.rounds=3 partition.alpha=0.5                change config keys
  fedvtc run conf/data/mnist.yaml conf/population/cnn4.yaml  merge config files, left to right
  fedvtc plan conf/data/cifar10.yaml                         show the partition, and whether the run fits
  fedvtc resume outputs/mine                                 resume a run that was stopped or killed
  fedvtc submit conf/experiment/digits.yaml run.output_dir=/mnt/shared/outputs    run on a Ray cluster
  fedvtc list                                                list the runs under ./outputs
  fedvtc init my_project                                     write a project with a method of your own
  fedvtc doctor                                              check whether runs work on this machine

`fedvtc COMMAND --help` shows the options and examples of a command, `fedvtc run --help` also every config key.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the words after `fedvtc`; None takes those of the process.

    Returns:
        The exit code: 0 done, 1 crash, 2 user error, 128 + N after signal N, such as 130 after Ctrl-C.

    Raises:
        SystemExit: after help and version (code 0), and for arguments that the parser refuses (code 2).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    open_streams()
    is_federation = _is_federation(given)
    if not is_federation:
        discard_unread_output()
    try:
        code = _dispatch(given)
        if not is_federation:
            # A full disk is an error: the output of other commands is their result.
            sys.stdout.flush()
        return code
    except FedvtcError as error:
        for line in str(error).splitlines():
            complain(f"fedvtc: {line}")
        if "--debug" in given:
            complain(traceback.format_exc())
        elif isinstance(error, ClientError) and error.trace:
            complain(error.trace)
        return EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_CRASH
    except KeyboardInterrupt as error:
        complain("fedvtc: interrupted.")
        return EXIT_SIGNAL + error.signum if isinstance(error, Interrupted) else EXIT_INTERRUPTED
    except Exception:
        complain(traceback.format_exc())
        return EXIT_CRASH
    finally:
        _drop_unwritable_output()


def _is_federation(given: Sequence[str]) -> bool:
    """Returns True if the arguments train a federation, which prints on stderr if stdout is closed or full."""
    return given[:1] in (["run"], ["resume"]) and {"-h", "--help"}.isdisjoint(given)


def _drop_unwritable_output() -> None:
    """Flushes stdout; if that fails, discards the buffer, so that Python does not raise again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(given: list[str]) -> int:
    if not given or given[0] not in COMMANDS:
        _top_parser().parse_args(given or ["--help"])
        return EXIT_OK
    try:
        os.getcwd()
    except OSError as error:
        fix = "Change to a folder that exists."
        raise UserError(f"working folder: cannot be used ({error.strerror}). {fix}") from None
    # Not argparse's subparsers: they refuse positionals on both sides of an option (run a.yaml --plain run.seed=1).
    arguments = COMMANDS[given[0]].parser().parse_intermixed_args(given[1:])
    return int(arguments.command(arguments))


def _top_parser() -> Parser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    about = "Federated learning in which every client has its own model architecture.\n\ncommands:\n"
    parser = make_parser("fedvtc", about + "\n".join(lines), EXAMPLES)
    parser.usage = "fedvtc COMMAND ..."
    parser.add_argument("--version", action="version", version=f"fedvtc {_version()}", help="show the version")
    parser.add_argument("command", metavar="COMMAND", choices=list(COMMANDS), help=argparse.SUPPRESS)
    return parser


def _version() -> str:
    # Imported here, because the import takes longer than the rest of `fedvtc --help`.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fedvtc")
    except PackageNotFoundError:  # A source tree that is not installed.
        return "(not installed)"

"""The command line as a process sees it: which command, which exit code, and what is said where it fails."""

import argparse
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Sequence

from fedvtc.commands.parsing import Parser, make_parser
from fedvtc.commands.registry import PARSERS
from fedvtc.errors import (
    EXIT_CRASH,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USER_ERROR,
    ClientError,
    FedvtcError,
    Interrupted,
    UserError,
)

ALL = """\
examples:
  fedvtc run                                                 the defaults: digits, 8 clients, no download
  fedvtc run run.rounds=3 partition.alpha=0.5                with other values
  fedvtc run conf/data/mnist.yaml conf/population/cnn4.yaml  from files, merged left to right
  fedvtc plan conf/data/cifar10.yaml                         who would hold what, and whether it fits
  fedvtc resume outputs/mine                                 goes on with a run that was stopped or lost
  fedvtc submit conf/experiment/digits.yaml run.output_dir=/mnt/shared/outputs    as a job of a cluster
  fedvtc list                                                the runs under ./outputs
  fedvtc doctor                                              whether a run would work here
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the words after `fedvtc`; None takes the process's own.

    Returns:
        The exit code: 0 done, 1 crash, 2 user error, 130 Ctrl-C, 143 SIGTERM.

    Raises:
        SystemExit: after help and version (0), and for words that no command takes (2).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _dispatch(given)
        if not _is_federation(given):
            sys.stdout.flush()
        return code
    except FedvtcError as error:
        for line in str(error).splitlines():
            print(f"fedvtc: {line}", file=sys.stderr)
        if "--debug" in given:
            traceback.print_exc()
        elif isinstance(error, ClientError) and error.trace:
            print(error.trace, file=sys.stderr)
        return EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_CRASH
    except KeyboardInterrupt as error:
        print("fedvtc: interrupted.", file=sys.stderr)
        return 128 + error.signum if isinstance(error, Interrupted) else EXIT_INTERRUPTED
    except BrokenPipeError:
        if _is_federation(given):
            traceback.print_exc()
            return EXIT_CRASH
        # The reader, such as `| head`, has what it wanted.
        return EXIT_OK
    except Exception:
        traceback.print_exc()
        return EXIT_CRASH
    finally:
        _let_go_of_output()


def _is_federation(given: Sequence[str]) -> bool:
    """Whether the words ask for more than text: a run goes on, and ends well, where nobody can read what it says."""
    return given[:1] in (["run"], ["resume"]) and {"-h", "--help"}.isdisjoint(given)


def _let_go_of_output() -> None:
    """What is left in the buffer and cannot be written must not raise once more when Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(given: list[str]) -> int:
    if not given or given[0] not in PARSERS:
        _top_parser().parse_args(given or ["--help"])
        return EXIT_OK
    # Not argparse's own sub-commands, for they refuse words on both sides of an option: run a.yaml --plain run.seed=1.
    words = PARSERS[given[0]]().parse_intermixed_args(given[1:])
    return int(words.command(words))


def _top_parser() -> Parser:
    about = """\
Federated learning where every client has its own architecture.

commands:
  run     runs a federation
  resume  goes on with a run that was stopped or lost
  submit  runs a federation as a job of a Ray cluster
  sweep   runs many federations from one file, and compares them
  plan    shows what a run would do, without training
  list    shows runs, jobs, data sets, backbones or methods
  doctor  checks the environment, or a run folder, and says what to mend"""
    parser = make_parser("fedvtc", about, ALL)
    parser.usage = "fedvtc COMMAND ..., and fedvtc COMMAND --help for its keys and options"
    parser.add_argument("--version", action="version", version=f"fedvtc {_version()}")
    parser.add_argument("command", metavar="COMMAND", choices=list(PARSERS), help=argparse.SUPPRESS)
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version("fedvtc")
    except importlib.metadata.PackageNotFoundError:  # Run from a source tree that was not installed.
        return "(not installed)"

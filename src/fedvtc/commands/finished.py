"""Arguments that the commands on a finished run share."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedvtc.commands.parsing import Parser
from fedvtc.errors import UserError


def add_run_arguments(parser: Parser, clients: str = "all clients") -> None:
    """Adds the run folder, config keys, `--clients` and `--trust`.

    Args:
        parser: the parser of the command.
        clients: the clients without `--clients`, for the help text.
    """
    parser.add_argument("folder", type=Path, metavar="RUN", help="the folder of a finished run")
    keys_help = "keys that a resumed run may change, such as data.root"
    parser.add_argument("words", nargs="*", metavar="key=value", help=keys_help)
    clients_help = f"numbers of clients, such as 0,3; default: {clients}"
    parser.add_argument("--clients", type=_numbers, metavar="K,K", help=clients_help)
    parser.add_argument("--trust", action="store_true", help="open a run folder that belongs to another user")


def default_folder(arguments: argparse.Namespace, name: str) -> Path:
    """Returns the folder of `-o`, or the folder of this name in the run folder."""
    folder: Path = arguments.output or arguments.folder / name
    return folder


@contextmanager
def new_folder(output: Path, fix: str = "Name a new folder: -o DIR.") -> Iterator[Path]:
    """Yields a folder that becomes `output` at the end of the block, with all its files.

    Args:
        output: the new folder.
        fix: the user's way out, if the folder exists or cannot be written.

    Raises:
        UserError: the folder exists or cannot be written.
    """
    from fedvtc.storage.atomic import appearing

    try:
        output.absolute().parent.mkdir(parents=True, exist_ok=True)
        with appearing(output.absolute()) as folder:
            if output.exists():
                # Before hours of work.
                raise FileExistsError
            yield folder
    except FileExistsError:
        raise UserError(f"{output}: exists. {fix}") from None
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror or error}). {fix}") from None


def checked_count(option: str, value: int, *, least: int) -> int:
    """Returns the value of an option; raises a UserError if the value is too small."""
    if value < least:
        raise UserError(f"{option} {value}: is too small. Give at least {least}.")
    return value


def _numbers(text: str) -> list[int]:
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers, such as 0,3")
    return [int(number) for number in numbers]

"""The words of a command: its parser, files and overrides among them, and a help that lists every key.

Nothing heavy is imported at the top, so that help and a config with a mistake answer at once.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from fedvtc.errors import EXIT_OK, EXIT_USER_ERROR

if TYPE_CHECKING:
    from rich.console import Console

import os
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from fedvtc.config import Config, MethodConfig


PLAIN_WIDTH = 160
"""Columns where the output is not a terminal, so that tables in a log keep their rows whole."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as for every other mistake of the user, and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Prints the line and ends the program."""
        print(f"fedvtc: {message}. See {self.prog} --help.", file=sys.stderr)
        raise SystemExit(EXIT_USER_ERROR)


def make_parser(prog: str, about: str, examples: str, *, add_help: bool = True) -> Parser:
    """A parser of one command, with examples under its help."""
    # Raw, so that examples keep their lines.
    formatter = argparse.RawDescriptionHelpFormatter
    return Parser(
        prog=prog, description=about, epilog=examples, formatter_class=formatter, allow_abbrev=False, add_help=add_help
    )


def config_parser(command: str, about: str, examples: str) -> Parser:
    """A parser of files, overrides, and a help that lists every key."""

    class Help(argparse.Action):
        def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
            print(parser.format_help())
            print(_keys_help(), flush=True)
            parser.exit(EXIT_OK)

    parser = make_parser(f"fedvtc {command}", about, examples, add_help=False)
    parser.add_argument("words", nargs="*", metavar="FILE | key=value", help="files merge left to right, keys win")
    parser.add_argument("-h", "--help", nargs=0, action=Help, help="show this, and every key with its default")
    return parser


def load_config(words: Sequence[str]) -> "Config":
    """Words that name a file are files, wherever they stand; all others are overrides."""
    from fedvtc.config import load

    files = [word for word in words if _is_file(word)]
    return load(files, [word for word in words if not _is_file(word)], methods=_methods())


def _is_file(word: str) -> bool:
    # Not Path.exists, which raises for a word that is too long for a file name.
    return ("=" not in word and word.endswith((".yaml", ".yml"))) or os.path.exists(word)


def _methods() -> "dict[str, type[MethodConfig]]":
    from fedvtc.learning.methods import config_classes

    return config_classes()


def _keys_help() -> str:
    """Every key with its type, default and text, by section; the keys of each method by method."""
    from fedvtc.config import Config, grouped_docs

    lines = ["keys: KEY=DEFAULT (TYPE, RANGE)"]
    for title, docs in grouped_docs(Config, _methods()).items():
        lines += ["", f"{title}:"]
        for doc in docs:
            lines.append(f"  {doc.key}={doc.default}  ({', '.join(filter(None, (doc.type, doc.range)))})")
            lines += textwrap.wrap(doc.text, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def add_address(parser: argparse.ArgumentParser) -> None:
    """Adds `--address`, the dashboard of a cluster."""
    text = "the cluster's dashboard; without it RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or http://127.0.0.1:8265"
    parser.add_argument("--address", metavar="URL", help=text)


def make_console() -> "Console":
    """Makes a console as wide as the terminal, or `PLAIN_WIDTH` columns wide where there is none."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)

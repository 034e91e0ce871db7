"""Parts that the parsers of all commands share: config words, shared options, the list of config keys, the console.

Nothing heavy is imported at the top, so that help and errors in a config appear at once.
"""

import argparse
import os
import shlex
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from fedvtc.errors import EXIT_OK, EXIT_USER_ERROR, ConfigError, UserError
from fedvtc.reporting.lines import complain, is_terminal

if TYPE_CHECKING:
    from rich.console import Console

    from fedvtc.config import Config, FieldDoc, MethodConfig
    from fedvtc.config.problems import Problem

PLAIN_WIDTH = 160
"""Columns of a table when the output is not a terminal; wide enough to keep rows on one line in a log."""


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line, like every other user error, and exits with code 2.

    Attributes:
        words: the arguments that are no options; known before `--help` prints.
    """

    words: Sequence[str] = ()

    def parse_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses arguments with positionals on both sides of an option."""
        self.words = [word for word in args or () if not word.startswith("-")]
        return super().parse_intermixed_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Prints the message and exits."""
        complain(f"fedvtc: {message}. See {self.prog} --help.")
        raise SystemExit(EXIT_USER_ERROR)


def make_parser(prog: str, about: str, examples: str, *, add_help: bool = True) -> Parser:
    """Returns a parser whose help ends with examples.

    Args:
        prog: the command as typed, such as `fedvtc list`.
        about: description at the top of the help.
        examples: text below the options; lines stay as they are.
        add_help: False leaves `--help` to the caller.
    """
    parser = Parser(
        prog=prog,
        description=about,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    if add_help:
        parser.add_argument("-h", "--help", action="help", help="show this help")
    return parser


def config_parser(command: str, about: str, examples: str) -> Parser:
    """Returns a parser of config files and overrides, whose help lists every config key."""
    parser = make_parser(f"fedvtc {command}", about, examples, add_help=False)
    words = (
        "config files or names of `fedvtc list configs`, merged left to right over the defaults, and config keys, which"
        " win over files"
    )
    parser.add_argument("words", nargs="*", metavar="FILE | key=value", help=words)
    add_help_with_keys(parser, "show this help and every config key", keys_help)
    return parser


def add_help_with_keys(parser: Parser, text: str, keys: Callable[[Sequence[str]], str]) -> None:
    """Adds `--help`, which prints the help and below it config keys.

    Args:
        parser: the parser, without `--help`.
        text: description of the option.
        keys: returns the text about config keys, given the words of the command line.
    """

    class Help(argparse.Action):
        def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
            print(parser.format_help())
            print(keys(parser.words if isinstance(parser, Parser) else ()), flush=True)
            parser.exit(EXIT_OK)

    parser.add_argument("-h", "--help", nargs=0, action=Help, help=text)


def load_config(words: Sequence[str], *, imports: bool = False) -> "Config":
    """Returns the config that files and overrides give, in any order.

    Args:
        words: YAML files, names of shipped configs, and `key=value` overrides.
        imports: True also imports the user's own backbones, loader and trackers, which may take seconds.

    Raises:
        ConfigError: lists every problem of the config.
    """
    from fedvtc.config import load

    files = [word for word in words if _is_file(word)]
    try:
        overrides = [word for word in words if not _is_file(word)]
        return load(files, overrides, methods=_methods(), more_checks=_import_problems if imports else _no_problems)
    except ConfigError:
        from fedvtc.commands.file_kinds import is_sweep_file

        for file in files:
            if is_sweep_file(file):
                what = f"{file}: is a sweep file, not a config"
                raise ConfigError([f"{what}. Start the sweep: fedvtc sweep {shlex.quote(file)}"]) from None
        raise


def _import_problems(config: "Config") -> "list[Problem]":
    from fedvtc.config.importing import own_code_problems
    from fedvtc.runtime.heavy_imports import fast_imports

    with fast_imports():
        return list(own_code_problems(config))


def _no_problems(config: "Config") -> "list[Problem]":
    return []


def _is_file(word: str) -> bool:
    from fedvtc.config.shipped import is_shipped

    # Not Path.exists, which raises for long overrides.
    if os.path.exists(word):
        return True
    if "=" in word:
        return False
    # A missing file must be reported as a file, not as an override.
    return word.endswith((".yaml", ".yml")) or os.path.isfile(f"{word}.yaml") or is_shipped(word)


def _known_methods(words: Sequence[str]) -> "tuple[dict[str, type[MethodConfig]], list[str]]":
    """Returns the sections of built-in and registered methods and of the method of a config, and a line per fault."""
    from fedvtc.config.own_code import OwnCodeError
    from fedvtc.config.registered import registered

    methods, known, faults = _methods(), {}, []
    for name in dict.fromkeys([*methods, *registered("methods")]):
        try:
            known[name] = methods[name]
        except OwnCodeError as error:
            faults.append(f"method.name={name}: {error.what}. {error.fix}")
    # Help does not depend on a correct config.
    with suppress(UserError):
        method = load_config(words).method
        known.setdefault(method.name, type(method))
    return known, faults


def _methods() -> "Mapping[str, type[MethodConfig]]":
    from fedvtc.learning.methods import config_classes

    return config_classes()


def keys_help(words: Sequence[str] = ()) -> str:
    """Returns every config key with its default, type and description, by section; then the keys of each method.

    Args:
        words: config files and overrides; the text has the keys of their method, too.
    """
    return _listed("config keys: KEY=DEFAULT  (TYPE, RANGE)", lambda doc: doc.text, words)


def resume_keys_help(words: Sequence[str] = ()) -> str:
    """Returns every key that a resumed run may change, with the effect of another value, by section and method."""
    head = "config keys that may change: KEY=DEFAULT  (TYPE, RANGE)"
    return _listed(head, lambda doc: f"{doc.text} On resume: {doc.effect}" if doc.effect else None, ())


def _listed(head: str, text_of: "Callable[[FieldDoc], str | None]", words: Sequence[str]) -> str:
    """Returns a list of config keys below a head; keys without a text are left out."""
    from fedvtc.config import Config, grouped_docs

    methods, broken = _known_methods(words)
    lines = [head, *([""] if broken else []), *broken]
    for title, docs in grouped_docs(Config, methods).items():
        texts = [(doc, text) for doc in docs if (text := text_of(doc)) is not None]
        lines += ["", f"{title}:"] if texts else []
        for doc, text in texts:
            lines.append(f"  {doc.key}={doc.default}  ({', '.join(filter(None, (doc.type, doc.range)))})")
            lines += textwrap.wrap(text, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def add_where(parser: argparse._ActionsContainer) -> None:
    """Adds `--where KEY=VALUE`, which selects runs; `where_of` reads the values."""
    text = "only runs with this value, such as status=finished; repeat for more keys, or for more values of a key"
    parser.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help=text)


def where_of(given: Sequence[str]) -> dict[str, list[str]]:
    """Returns the permitted values of each key of `--where`."""
    where: dict[str, list[str]] = {}
    for word in given:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UserError(f"--where {word}: expected KEY=VALUE. Write for example --where partition.alpha=0.1.")
        where.setdefault(key, []).append(text)
    return where


def words_of(given: Sequence[str] | None) -> list[str]:
    """Returns the names of an option that takes names separated by commas and may be repeated."""
    return list(dict.fromkeys(word for text in given or () for word in text.split(",") if word))


def add_address(parser: argparse._ActionsContainer) -> None:
    """Adds `--address`, the URL of a cluster's dashboard."""
    text = "dashboard of the Ray cluster; default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS or http://127.0.0.1:8265"
    parser.add_argument("--address", metavar="URL", help=text)


def make_console() -> "Console":
    """Returns a console as wide as the terminal, or `PLAIN_WIDTH` columns wide without a terminal."""
    from rich.console import Console

    return Console() if is_terminal() else Console(width=PLAIN_WIDTH)

"""Problems of a config, one line each."""

import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass

COMMAND_LINE = "command line"
"""The `where` of a problem with an override."""


@dataclass(frozen=True)
class Problem:
    """One wrong key or file."""

    key: str
    """The full key (`run.rounds`), or the path of the file."""
    what: str
    """The fault, without a full stop."""
    where: str = ""
    """`FILE:LINE`, or `command line`; empty for a default."""
    fix: str = ""
    """The remedy, as a sentence; empty if `what` implies the remedy."""

    def __str__(self) -> str:
        """Returns the line `KEY: FAULT (PLACE). REMEDY`."""
        where = f" ({self.where})" if self.where else ""
        fix = f" {self.fix}" if self.fix else ""
        return f"{self.key}: {self.what}{where}.{fix}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Returns the name most similar to `name`, or None if no name is similar."""
    by_lower = {candidate.lower(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[matches[0]] if matches else None


def did_you_mean(name: str, names: Iterable[str], *, prefix: str = "") -> str:
    """Returns `Did you mean X?`, or a list of all names if no name is similar."""
    names = list(names)
    near = nearest(name, names)
    return f"Did you mean {prefix}{near}?" if near else f"Known: {', '.join(names)}."


def show(value: object) -> str:
    """Returns a value as in YAML, cut at 60 letters."""
    words = {None: "null", True: "true", False: "false"}
    # By identity, because 1 and 0 equal True and False.
    for plain, word in words.items():
        if value is plain:
            return word
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def encoding_problem(key: str, text: str, where: str = "") -> Problem | None:
    """Returns a problem if config.yaml, which is UTF-8, cannot hold a text of the command line or of a path.

    Python keeps bytes that the locale cannot decode as surrogates.
    """
    try:
        text.encode()
        return None
    except UnicodeEncodeError:
        pass
    try:
        os.fsencode(text).decode()
    except UnicodeError:
        return Problem(key, f"is not UTF-8 text: {show(text)}", where, "Rename the file or folder.")
    return Problem(key, f"the locale cannot decode {show(text)}", where, "Set LC_ALL=C.UTF-8 and PYTHONUTF8=1.")

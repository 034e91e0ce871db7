"""One problem of a config as one line."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

COMMAND_LINE = "command line"
"""Where an override was set."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with one key or one file."""

    key: str
    """The full key (`run.rounds`), or the path of the file."""
    what: str
    """What is wrong, without a full stop."""
    where: str = ""
    """`FILE:LINE`, or `command line`; empty for a default."""
    fix: str = ""
    """What would work, as a sentence; empty when `what` says it."""

    def __str__(self) -> str:
        """The whole line: key, what is wrong, where it was set, what would work."""
        where = f" ({self.where})" if self.where else ""
        fix = f" {self.fix}" if self.fix else ""
        return f"{self.key}: {self.what}{where}.{fix}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name most like `name`, or None when none is near."""
    by_lower = {candidate.lower(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[matches[0]] if matches else None


def did_you_mean(name: str, names: Iterable[str], *, prefix: str = "") -> str:
    """`Did you mean X?`, or all that there is when none is near."""
    names = list(names)
    near = nearest(name, names)
    return f"Did you mean {prefix}{near}?" if near else f"Known: {', '.join(names)}."


def show(value: object) -> str:
    """A value as it would stand in YAML."""
    words = {None: "null", True: "true", False: "false"}
    # By identity, because 1 and 0 equal True and False.
    for plain, word in words.items():
        if value is plain:
            return word
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

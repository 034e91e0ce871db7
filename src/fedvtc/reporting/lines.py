"""Prints status lines; a closed or full standard output never ends a run."""

import sys
from contextlib import suppress


def say(line: str) -> None:
    """Prints a line; falls back to standard error if standard output is closed or its disk is full."""
    try:
        print(line, flush=True)
    except OSError:
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)

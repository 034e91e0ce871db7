"""Lines for whoever watches a federation, which does not end with its log."""

import sys
from contextlib import suppress


def say(line: str) -> None:
    """Prints a line; to standard error, if that works, where the reader is gone or a log is on a full disk."""
    try:
        print(line, flush=True)
    except OSError:
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)

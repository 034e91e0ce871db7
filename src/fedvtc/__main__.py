"""`fedvtc`, and `python -m fedvtc`: the command line as a process of its own."""

import os
import sys
from typing import NoReturn

from fedvtc.commands.main import main
from fedvtc.errors import EXIT_INTERRUPTED


def program() -> NoReturn:
    """Runs the command that the process was started with, and ends it."""
    code = main()
    if code >= EXIT_INTERRUPTED:
        # All that is ours is closed. Exit hooks of libraries may wait for a server, which is what was broken off.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    program()

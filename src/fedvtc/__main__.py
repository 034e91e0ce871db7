"""Entry point of the `fedvtc` script and of `python -m fedvtc`."""

import os
import sys
from typing import NoReturn

from fedvtc.commands.main import main
from fedvtc.errors import EXIT_SIGNAL


def program() -> NoReturn:
    """Runs the command of the process's arguments and exits with its code."""
    code = main()
    if code > EXIT_SIGNAL:
        # `main` has closed all that the command opened. Exit hooks of libraries may wait for a server: skip them.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    program()

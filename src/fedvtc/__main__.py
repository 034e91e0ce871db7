"""Entry point of the `fedvtc` script and of `python -m fedvtc`."""

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

from fedvtc.commands.main import main
from fedvtc.errors import EXIT_SIGNAL
from fedvtc.reporting.lines import OUTPUT_ERRORS


def program() -> NoReturn:
    """Runs the command of the process's arguments and exits with its code."""
    code = main()
    # `main` has closed all that the command opened. After a signal, exit hooks of libraries may wait for a server.
    if code <= EXIT_SIGNAL:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(*OUTPUT_ERRORS):
            stream.flush()
    # Not sys.exit: Python would then unload PyTorch, for seconds.
    os._exit(code)


if __name__ == "__main__":
    program()

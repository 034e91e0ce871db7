"""Prints lines for the user. An output that is closed or full, or lacks a letter, never ends a run."""

import io
import os
import sys
from contextlib import suppress

OUTPUT_ERRORS = (OSError, ValueError, RuntimeError)
"""Errors of an output that is closed or full, lacks a letter, or is written while a signal interrupts another write."""


def open_streams() -> None:
    """Prepares the standard streams of the program; called once, where the program begins.

    A closed stream is opened on /dev/null: the next file that the program opens would take the stream's number and
    receive the output. A letter that the encoding of a stream lacks is printed as an escape.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is that of the closed stream.
            os.open(os.devnull, os.O_RDWR)
        # Python leaves None in the place of a stream that is closed at its start.
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))
    for stream in (sys.stdout, sys.stderr):
        # A stream whose file was replaced, as in a forked daemon, may not be in a state to be changed.
        with suppress(*OUTPUT_ERRORS):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")


def discard_unread_output() -> None:
    """Makes standard output discard text once its reader has closed the pipe, as `| head` does.

    The program then runs to its end, and its exit code does not depend on the reader. Without this, the first write to
    the closed pipe raises BrokenPipeError, and rich ends the program with code 1.
    """
    stream = sys.stdout
    # Only the stream of the process: a replaced stream belongs to the code that replaced it.
    if stream is sys.__stdout__ and isinstance(stream, io.TextIOWrapper):
        with suppress(*OUTPUT_ERRORS):
            stream.flush()
        # An unbuffered stream, as of `python -u`, becomes one that sends each line at once.
        by_line = stream.line_buffering or stream.write_through
        buffer = io.BufferedWriter(io.FileIO(stream.fileno(), "w", closefd=False))
        sys.stdout = _DiscardingOutput(buffer, stream.encoding, stream.errors, line_buffering=by_line)


class _DiscardingOutput(io.TextIOWrapper):
    # Not a file whose `write` is Python: an exception of a signal's handler, raised when the bytes have just been
    # written, would hide that from the buffer, which would write them again.
    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._discard()
            super().flush()

    def _discard(self) -> None:
        # The number of the file stays in use, so that later writes and child processes discard their output too.
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), self.fileno())


def is_terminal() -> bool:
    """Returns True if standard output is a terminal; False if standard output is closed or replaced."""
    try:
        return sys.stdout.isatty()
    except (*OUTPUT_ERRORS, AttributeError):
        return False


def say(line: str) -> None:
    """Prints a line; falls back to standard error if standard output cannot take the line."""
    try:
        print(line, flush=True)
    except OUTPUT_ERRORS:
        complain(line)


def complain(line: str) -> None:
    """Prints a line to standard error, if that works."""
    with suppress(*OUTPUT_ERRORS):
        print(line, file=sys.stderr, flush=True)

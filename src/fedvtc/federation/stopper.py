"""Ctrl-C and SIGTERM: the first ends the run with all that is done saved, a second one ends it at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from fedvtc.errors import Interrupted


class Stopper:
    """Handles the signals of one run.

    A round that begins at a checkpoint is abandoned at once, for nothing but its own beginning is lost. Any other one
    may end first, and is saved then, if it ends within `grace_s`.

    Args:
        tell: gets a line for the user.
        grace_s: seconds that such a round may take.
    """

    def __init__(self, tell: Callable[[str], None], grace_s: float) -> None:
        self._tell, self._grace_s = tell, grace_s
        self._signum: int | None = None
        self._is_deferred = False
        self.may_abandon: Callable[[], bool] = lambda: True

    @property
    def is_requested(self) -> bool:
        """Whether the run is to end."""
        return self._signum is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles signals inside, if this is the main thread; no other one may."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
        before = [(signum, signal.getsignal(signum)) for signum in numbers]
        signal.signal(signal.SIGINT, self._asked)
        signal.signal(signal.SIGTERM, self._asked)
        signal.signal(signal.SIGALRM, self._too_late)
        try:
            yield
        except KeyboardInterrupt:
            # Ray, where it waits, makes a plain KeyboardInterrupt of ours.
            if self._signum is not None:
                raise Interrupted(self._signum) from None
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for signum, handler in before:
                signal.signal(signum, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Nothing is abandoned inside; who asked meanwhile is heard at the end.

        Raises:
            Interrupted: the run was asked to end.
        """
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        if self._signum is not None:
            self._interrupt(self._signum)

    def _asked(self, signum: int, frame: FrameType | None) -> None:
        if self._signum is not None:
            os._exit(128 + signum)
        self._signum = signum
        if self._is_deferred:
            return
        if self.may_abandon():
            self._interrupt(signum)
        self._tell(f"stopping after this round, or in {self._grace_s:g} s; once more stops at once")
        signal.setitimer(signal.ITIMER_REAL, max(self._grace_s, 0.001))

    def _too_late(self, signum: int, frame: FrameType | None) -> None:
        if self._signum is not None and not self._is_deferred:
            self._interrupt(self._signum)

    def _interrupt(self, signum: int) -> NoReturn:
        # What is saved and closed from now on takes the time that it takes.
        if threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, 0)
        raise Interrupted(signum)

"""Ctrl-C and SIGTERM: the first signal ends a run with its rounds saved, a second signal ends the process at once."""

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

    | state at the signal | reaction |
    |---|---|
    | all completed rounds are saved (`may_abandon`) | the current round is abandoned at once |
    | a completed round is not saved | the current round may end within `grace_s`, and is saved |
    | inside `deferred`, while a round is logged and saved | the run ends after the block |
    | an earlier signal has arrived | the process ends at once |

    Args:
        tell: prints a line for the user.
        grace_s: seconds that the current round may still take.

    Attributes:
        may_abandon: returns True if abandoning the current round loses only that round.
    """

    def __init__(self, tell: Callable[[str], None], grace_s: float) -> None:
        self._tell, self._grace_s = tell, grace_s
        self._signum: int | None = None
        self._is_deferred = False
        self.may_abandon: Callable[[], bool] = lambda: True

    @property
    def is_requested(self) -> bool:
        """True after a signal, until the run has ended."""
        return self._signum is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles signals inside the block; does nothing outside the main thread, where Python allows no handlers."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
        before = [(signum, signal.getsignal(signum)) for signum in numbers]
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGALRM, self._on_timeout)
        try:
            yield
        except KeyboardInterrupt:
            # Ray, while it waits, turns `Interrupted` into a plain KeyboardInterrupt.
            if self._signum is not None:
                raise Interrupted(self._signum) from None
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for signum, handler in before:
                signal.signal(signum, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Delays the reaction to a first signal to the end of the block.

        Raises:
            Interrupted: a signal arrived, in the block or during the round before.
        """
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        if self._signum is not None:
            self._interrupt(self._signum)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._signum is not None:
            os._exit(128 + signum)
        self._signum = signum
        if self._is_deferred:
            return
        if self.may_abandon():
            self._interrupt(signum)
        self._tell(f"stopping after this round, or in {self._grace_s:g} s; a second signal stops at once")
        signal.setitimer(signal.ITIMER_REAL, max(self._grace_s, 0.001))

    def _on_timeout(self, signum: int, frame: FrameType | None) -> None:
        if self._signum is not None and not self._is_deferred:
            self._interrupt(self._signum)

    def _interrupt(self, signum: int) -> NoReturn:
        # Ends the timer, because saving and closing have no time limit.
        if threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, 0)
        raise Interrupted(signum)

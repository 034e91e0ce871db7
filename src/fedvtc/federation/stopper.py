"""Signals of a run: the first signal ends the run with its rounds saved, a second signal ends the run at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from fedvtc.errors import EXIT_SIGNAL, WARNING_SIGNALS, Interrupted

INSISTING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that end the run at once after an earlier signal. A lost terminal sends SIGHUP twice, so SIGHUP does not."""


class Stopper:
    """Handles the signals of one run.

    | state at the signal | reaction |
    |---|---|
    | all completed rounds are saved (`may_abandon`) | the current round is abandoned at once |
    | a completed round is not saved | the current round may end within `grace_s`, and is saved |
    | inside `deferred`, while a round is logged and saved | the run ends after the block |
    | an earlier signal has arrived | SIGINT, SIGTERM: the run ends at once; another signal: ignored |

    Args:
        tell: prints a line for the user.
        grace_s: seconds that the current round may still take.
        owns_process: True if the process exists for the run only: at a second signal the process exits without any
            cleanup. False raises `Interrupted`, so that the process of a script or notebook lives on.

    Attributes:
        may_abandon: returns True if abandoning the current round loses only that round.
    """

    def __init__(self, tell: Callable[[str], None], grace_s: float, *, owns_process: bool = False) -> None:
        self._tell, self._grace_s, self._owns_process = tell, grace_s, owns_process
        self._signum: int | None = None
        self._is_deferred = self._has_timer = False
        self.may_abandon: Callable[[], bool] = lambda: True

    @property
    def is_requested(self) -> bool:
        """True after a signal, until the run has ended."""
        return self._signum is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles signals inside the block; does nothing outside the main thread, where Python allows no handlers.

        A signal of `WARNING_SIGNALS` keeps a handler that the process has set, and stays ignored under `nohup`.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [
            *INSISTING_SIGNALS,
            *(signum for signum in WARNING_SIGNALS if signal.getsignal(signum) is signal.SIG_DFL),
        ]
        # SIGALRM too, which `_on_signal` handles after a first signal.
        before = [(signum, signal.getsignal(signum)) for signum in (*numbers, signal.SIGALRM)]
        for signum in numbers:
            signal.signal(signum, self._on_signal)
        try:
            with self.naming_the_signal():
                yield
        finally:
            self._end_timer()
            for signum, handler in before:
                signal.signal(signum, handler)

    @contextmanager
    def naming_the_signal(self) -> Iterator[None]:
        """Raises `Interrupted` again where the block ends with a plain KeyboardInterrupt after a signal.

        Ray, while it waits, turns `Interrupted` into a plain KeyboardInterrupt. A block that keeps the reason of the
        run's end stands around this one.
        """
        try:
            yield
        except KeyboardInterrupt:
            if self._signum is not None:
                raise Interrupted(self._signum) from None
            raise

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
            if signum in INSISTING_SIGNALS:
                self._end_at_once(signum)
            return
        self._signum = signum
        if self._is_deferred:
            return
        if self.may_abandon():
            self._interrupt(signum)
        self._tell(f"stopping after this round, or in {self._grace_s:g} s; a second signal stops at once")
        # The process may use an alarm of its own, so the handler is set no earlier.
        signal.signal(signal.SIGALRM, self._on_timeout)
        signal.setitimer(signal.ITIMER_REAL, max(self._grace_s, 0.001))
        self._has_timer = True

    def _on_timeout(self, signum: int, frame: FrameType | None) -> None:
        if self._signum is not None and not self._is_deferred:
            self._interrupt(self._signum)

    def _end_at_once(self, signum: int) -> NoReturn:
        if self._owns_process:
            os._exit(EXIT_SIGNAL + signum)
        self._interrupt(signum)

    def _interrupt(self, signum: int) -> NoReturn:
        # Because saving and closing have no time limit.
        self._end_timer()
        raise Interrupted(signum)

    def _end_timer(self) -> None:
        if self._has_timer and threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._has_timer = False

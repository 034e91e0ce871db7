"""Signals of a run: real ones, each scenario in a process of its own."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fedvtc.errors import Interrupted
from fedvtc.federation.stopper import Stopper

SOURCE = str(Path(__file__).parents[2] / "src")
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)

# `ask` sends this process a signal; tests compare the printed lines.
START = """
import os, signal, sys, threading, time
from fedvtc.errors import Interrupted
from fedvtc.federation.stopper import Stopper

def say(*words):
    print(*words, flush=True)

def ask(signum=signal.SIGINT):
    os.kill(os.getpid(), signum)
    time.sleep(0.001)

def handlers():
    return [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]

stopper = Stopper(say, float(sys.argv[1]), owns_process=True)
"""


@pytest.fixture
def outcome():
    """Runs a scenario; gives the lines it printed and its exit code."""

    def run(scenario, grace_s=30.0):
        done = subprocess.run(
            [sys.executable, "-c", START + scenario, str(grace_s)],
            env=os.environ | {"PYTHONPATH": SOURCE},
            capture_output=True,
            text=True,
            timeout=60,
            # A suite that runs in the background may have handed down that Ctrl-C is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout.splitlines(), done.returncode

    return run


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_a_run_at_once_if_no_round_is_lost(outcome, signum):
    scenario = f"""
before = handlers()
try:
    with stopper.listening():
        say(stopper.is_requested)
        ask({signum:d})
        say("went on")
except Interrupted as error:
    say(error.signum, stopper.is_requested, isinstance(error, KeyboardInterrupt))
say(handlers() == before, signal.getitimer(signal.ITIMER_REAL))
"""
    assert outcome(scenario) == (["False", f"{signum:d} True True", "True (0.0, 0.0)"], 0)


@pytest.mark.parametrize("may_abandon", [True, False])
def test_a_deferred_block_ends_first(outcome, may_abandon):
    scenario = f"""
stopper.may_abandon = lambda: {may_abandon}
try:
    with stopper.listening():
        with stopper.deferred():
            ask(signal.SIGTERM)
            say("saved", stopper.is_requested)
        say("went on")
except Interrupted as error:
    say(error.signum)
"""
    assert outcome(scenario) == (["saved True", "15"], 0)


def test_a_round_may_end_if_unsaved_rounds_would_be_lost(outcome, golden):
    scenario = """
stopper.may_abandon = lambda: False
try:
    with stopper.listening():
        with stopper.deferred():
            say("saved", stopper.is_requested)
        ask()
        say("round done", stopper.is_requested)
        with stopper.deferred():
            say("saved")
        say("next round")
except Interrupted as error:
    say(error.signum)
"""
    (first, told, *rest), code = outcome(scenario)
    assert ([first, *rest], code) == (["saved False", "round done True", "saved", "2"], 0)
    golden(told)


def test_a_round_that_takes_longer_than_the_grace_is_abandoned(outcome, golden):
    scenario = """
stopper.may_abandon = lambda: False
began_s = time.monotonic()
try:
    with stopper.listening():
        ask(signal.SIGTERM)
        say("goes on")
        time.sleep(40)
        say("too long")
except Interrupted as error:
    say(error.signum, 0.3 <= time.monotonic() - began_s < 20)
"""
    (told, *rest), code = outcome(scenario, grace_s=0.3)
    assert (rest, code) == (["goes on", "15 True"], 0)
    golden(told)


def test_without_grace_a_round_is_abandoned_at_once(outcome):
    scenario = """
stopper.may_abandon = lambda: False
try:
    with stopper.listening():
        ask()
        time.sleep(40)
        say("too long")
except Interrupted as error:
    say(error.signum)
"""
    (_, *rest), code = outcome(scenario, grace_s=0)
    assert (rest, code) == (["2"], 0)


def test_a_grace_that_ends_inside_a_deferred_block_waits_for_the_block(outcome):
    scenario = """
stopper.may_abandon = lambda: False
try:
    with stopper.listening():
        ask()
        with stopper.deferred():
            until_s = time.monotonic() + 0.5
            while time.monotonic() < until_s:
                time.sleep(0.05)
            say("saved")
except Interrupted as error:
    say(error.signum)
"""
    lines, code = outcome(scenario, grace_s=0.1)
    assert (lines[1:], code) == (["saved", "2"], 0)


def test_closing_after_the_round_has_no_time_limit(outcome):
    scenario = """
stopper.may_abandon = lambda: False
try:
    with stopper.listening():
        ask()
        try:
            with stopper.deferred():
                say("saving")
        finally:
            time.sleep(0.8)
            say("saved", signal.getitimer(signal.ITIMER_REAL))
except Interrupted as error:
    say(error.signum)
"""
    lines, code = outcome(scenario, grace_s=0.4)
    assert (lines[1:], code) == (["saving", "saved (0.0, 0.0)", "2"], 0)


def test_a_deferred_block_that_raises_ends_the_deferral(outcome):
    scenario = """
try:
    with stopper.listening():
        try:
            with stopper.deferred():
                raise OSError
        except OSError:
            ask()
            say("went on")
except Interrupted as error:
    say(error.signum)
"""
    assert outcome(scenario) == (["2"], 0)


def test_a_plain_keyboard_interrupt_gets_its_signal_back(outcome):
    scenario = """
try:
    with stopper.listening():
        try:
            ask(signal.SIGTERM)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None
except Interrupted as error:
    say(error.signum)
try:
    with Stopper(say, 1).listening():
        raise KeyboardInterrupt
except KeyboardInterrupt as error:
    say(type(error).__name__)
"""
    assert outcome(scenario) == (["15", "KeyboardInterrupt"], 0)


@pytest.mark.parametrize(("second", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("where", ["deferred", "round", "cleanup"])
def test_a_second_signal_ends_the_process_at_once(outcome, where, second, code):
    scenario = f"""
stopper.may_abandon = lambda: {where == "cleanup"}
with stopper.listening():
    if {where!r} == "deferred":
        with stopper.deferred():
            ask()
            say("saving")
            ask(signal.{second})
            say("saved")
    try:
        ask()
        say("round")
        ask(signal.{second})
    finally:
        say("cleanup")
        ask(signal.{second})
        say("went on")
"""
    lines, exit_code = outcome(scenario)
    assert exit_code == code
    assert lines[-1] == {"deferred": "saving", "round": "round", "cleanup": "cleanup"}[where]


def test_a_second_signal_raises_in_a_process_that_goes_on(outcome):
    """A notebook or a script lives on with its variables, wherever the second signal arrives."""
    scenario = """
def library():
    stopper = Stopper(say, 30.0)
    stopper.may_abandon = lambda: False
    return stopper

before = handlers()
try:
    with (stopper := library()).listening(), stopper.deferred():
        ask()
        ask(signal.SIGTERM)
        say("went on")
except Interrupted as error:
    say("deferred", error.signum)
try:
    with library().listening():
        ask()
        ask()
        say("went on")
except Interrupted as error:
    say("round", error.signum)
stopper = Stopper(say, 30.0)
try:
    with stopper.listening():
        try:
            ask()
        finally:
            ask()
            say("went on")
except Interrupted as error:
    say("cleanup", error.signum)
say(handlers() == before, signal.getitimer(signal.ITIMER_REAL))
"""
    lines, code = outcome(scenario)
    assert (lines[0], lines[2:], code) == ("deferred 2", ["round 2", "cleanup 2", "True (0.0, 0.0)"], 0)


def test_signals_of_a_lost_terminal_and_of_slurm_end_a_run_once(outcome):
    scenario = """
for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    stopper = Stopper(say, 30.0, owns_process=True)
    try:
        with stopper.listening():
            with stopper.deferred():
                ask(signum)
                # A terminal that is lost sends SIGHUP from the shell and from the system.
                ask(signum)
                say("saved")
            say("went on")
    except Interrupted as error:
        say(error.signum == signum, signal.getsignal(signum) == signal.SIG_DFL)
# `nohup` ignores SIGHUP; another library may handle a signal.
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGUSR2, lambda *_: say("handled"))
with Stopper(say, 30.0).listening():
    ask(signal.SIGHUP)
    ask(signal.SIGUSR2)
    say("went on")
say(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)
"""
    assert outcome(scenario) == (["saved", "True True"] * 3 + ["handled", "went on", "True"], 0)


def test_an_alarm_of_the_process_stays(outcome):
    scenario = """
signal.signal(signal.SIGALRM, lambda *_: say("alarm"))
signal.setitimer(signal.ITIMER_REAL, 0.05)
with stopper.listening():
    time.sleep(0.1)
    signal.alarm(1000)
say(signal.alarm(0) > 990)
"""
    assert outcome(scenario) == (["alarm", "True"], 0)


def test_may_abandon_is_called_when_the_signal_arrives(outcome):
    scenario = """
saved = []
stopper.may_abandon = lambda: bool(saved)
try:
    with stopper.listening():
        saved.append(1)
        ask()
        say("went on")
except Interrupted:
    say("ended")
"""
    assert outcome(scenario) == (["ended"], 0)


def test_a_run_without_signals_restores_the_handlers():
    before = [signal.getsignal(signum) for signum in NUMBERS]
    stopper = Stopper(pytest.fail, 1.0)
    with stopper.listening():
        assert [signal.getsignal(signum) for signum in NUMBERS] != before
        with stopper.deferred():
            pass
    assert [signal.getsignal(signum) for signum in NUMBERS] == before
    with pytest.raises(ZeroDivisionError), stopper.listening():
        _ = 1 / 0
    assert [signal.getsignal(signum) for signum in NUMBERS] == before


def test_other_threads_install_no_handlers():
    before = [signal.getsignal(signum) for signum in NUMBERS]
    found = []

    def run():
        stopper = Stopper(pytest.fail, 1.0)
        with stopper.listening():
            found.append([signal.getsignal(signum) for signum in NUMBERS])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=20)
    assert found == [before]


def test_interrupted_holds_its_signal():
    error = Interrupted(signal.SIGTERM)
    assert (error.signum, isinstance(error, KeyboardInterrupt), isinstance(error, Exception)) == (15, True, False)

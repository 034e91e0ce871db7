"""What processes a test has started, and whether they are gone."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from zygote import Zygote

# Ray has its workers give way to all others (15): beside other tests, which do not, actors would hardly move.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray spells it so
# Else Ray starts a worker a CPU with each cluster, used or not, for a CPU second each.
os.environ["RAY_prestart_worker_first_driver"] = "0"  # noqa: SIM112
# Nobody looks at Ray's metrics, and the agent of a head with several nodes spends a tenth of a core on them.
os.environ["RAY_enable_metrics_collection"] = "0"  # noqa: SIM112
# Else every started process compiles fedvtc anew where the environment forbids to keep bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
LONGEST_FIRST = [
    *("test_sweep", "test_jobs", "test_chaos", "test_commands", "test_nodes", "test_wandb", "test_golden_bits"),
    *("test_calls", "test_same_bits", "test_wheel", "test_bad_input"),
]


def pytest_collection_modifyitems(items):
    """The longest files begin first, or one of them would still run long after the others have ended."""
    ranks = {stem: rank for rank, stem in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


def _table():
    """The parent and the name of every process that runs, by number; zombies have ended and do not count."""
    printed = subprocess.run(["ps", "-eo", "pid=,ppid=,stat=,comm="], capture_output=True, text=True, check=True).stdout
    rows = (line.split(None, 3) for line in printed.splitlines())
    return {int(pid): (int(parent), name) for pid, parent, state, name in rows if not state.startswith("Z")}


@pytest.fixture(scope="session")
def processes_below():
    """A function: the name of every process below one, by number."""

    def below(pid):
        table, found = _table(), {}
        while True:
            new = {
                child: name
                for child, (parent, name) in table.items()
                if parent in (pid, *found) and child not in found and name != "ps"
            }
            if not new:
                return found
            found |= new

    return below


@pytest.fixture(scope="session")
def still_running():
    """A function: those of the given processes that are there after some seconds, as Ray ends its own one by one."""

    def left(processes, patience_s=20):
        until_s = time.monotonic() + patience_s
        while True:
            table = _table()
            remaining = {pid: name for pid, name in processes.items() if table.get(pid, (0, ""))[1] == name}
            if not remaining or time.monotonic() > until_s:
                return remaining
            time.sleep(0.2)

    return left


@pytest.fixture(scope="session")
def zygote():
    """Starts `fedvtc` in forked processes, which do not import PyTorch anew: `zygote.start(...)`, `zygote.run(...)`."""
    with Zygote() as forks:
        yield forks

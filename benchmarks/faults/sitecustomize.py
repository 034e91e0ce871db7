"""Injects faults into named functions of a process; the program itself has no code for this.

    PYTHONPATH=benchmarks/faults FEDVTC_FAULT='[{"target": "fedvtc.learning.client.client:FederatedClient.train",
        "call": 3, "when": "before", "action": "kill", "marker": "/tmp/fault-0"}]' python -m fedvtc run

Every Python process that inherits the two variables reads them at its start. A fault strikes at the `call`-th call of
its target in a process, `before` or `after` the function runs, if the process can create the marker file, which then
holds its process id; so a fault strikes once over all processes and restarts. `process` limits a fault to Ray workers
(`actor`) or to all other processes (`driver`).
"""

import errno
import functools
import itertools
import os
import signal
import sys


class FaultFinder:
    """Finds modules with a target through the other finders, and wraps the targets after the module was executed."""

    def __init__(self, faults):
        self._faults = {}
        for fault in faults:
            self._faults.setdefault(fault["target"].partition(":")[0], []).append(fault)

    def find_spec(self, name, path=None, target=None):
        if name not in self._faults:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((found for found in others if found is not None), None)
        if spec is not None:
            execute = spec.loader.exec_module

            def execute_and_wrap(module):
                execute(module)
                for fault in self._faults[name]:
                    wrap(module, fault)

            spec.loader.exec_module = execute_and_wrap
        return spec


def wrap(module, fault):
    *owners, name = fault["target"].partition(":")[2].split(".")
    owner = functools.reduce(getattr, owners, module)
    original = vars(owner)[name]
    function = getattr(original, "__func__", original)
    calls = itertools.count(1)

    @functools.wraps(function)
    def broken(*args, **kwargs):
        strikes = is_meant(fault) and next(calls) == fault["call"]
        if strikes and fault["when"] == "before":
            strike(fault)
        result = function(*args, **kwargs)
        if strikes and fault["when"] == "after":
            strike(fault)
        return result

    # The function inside a class method is wrapped, so that the attribute stays a class method.
    setattr(owner, name, broken if function is original else type(original)(broken))


def is_meant(fault):
    process = "actor" if os.path.basename(sys.argv[0]) == "default_worker.py" else "driver"
    return fault.get("process", process) == process


def strike(fault):
    try:
        marker = os.open(fault["marker"], os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return
    os.write(marker, str(os.getpid()).encode())
    os.close(marker)
    if fault["action"] in ("kill", "stop"):
        os.kill(os.getpid(), signal.SIGKILL if fault["action"] == "kill" else signal.SIGSTOP)
    elif fault["action"] == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif fault["action"] == "memory":
        raise MemoryError


def run_the_next():
    """Runs the sitecustomize that this file hides, because Python runs only the first one of the path."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    here = os.path.dirname(os.path.abspath(__file__))
    spec = PathFinder.find_spec("sitecustomize", [path for path in sys.path if os.path.abspath(path) != here])
    if spec is not None:
        spec.loader.exec_module(module_from_spec(spec))


if "FEDVTC_FAULT" in os.environ:
    import json

    sys.meta_path.insert(0, FaultFinder(json.loads(os.environ["FEDVTC_FAULT"])))
run_the_next()

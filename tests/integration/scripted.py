"""An actor that does as it is told, for tests of what a pool makes of it; imports nothing heavy, so it starts soon."""

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

import ray

from fedvtc.errors import ClientMemoryError


class Spec(NamedTuple):
    """In place of a `ClientSpec`, whose module imports PyTorch."""

    client: int


ON_THEIR_WAY_S = 0.5
"""Seconds in which the answers before an end get to whoever waits for them."""
DIE, RUN_OUT_OF_MEMORY = "die", "run out of memory"


class ScriptedActor:
    """In place of `ClientActor`.

    Args:
        config: of the federation.
        script: in place of a data set: what a task of a client is to do, seconds to take or a way to fail, each way
            once; and under `folder` where it is noted that it was done.
        specs: not looked at.
        num_gpus: not looked at.
    """

    def __init__(self, config, script, specs, num_gpus):
        self._script, self._log = script, []

    def run(self, task, client, *arguments):
        self._log.append((task, client))
        if task == "log":
            return self._log[:-1]
        if task == "node":
            return ray.get_runtime_context().get_node_id()
        act = self._script.get((task, client), 0)
        if isinstance(act, str):
            self._fail_once(act, task, client)
        else:
            time.sleep(act)
        return f"{task} of {client}"

    def rebuild(self, client, history):
        self._log.append(("rebuild", client, len(history.steps)))
        return []

    def adopt(self, specs):
        pass

    def ready(self):
        return os.getpid()

    def _fail_once(self, way, task, client):
        try:
            Path(self._script["folder"], f"{task}-{client}").touch(exist_ok=False)
        except FileExistsError:
            return
        if way == RUN_OUT_OF_MEMORY:
            raise ClientMemoryError(client, 1, task, "MemoryError")
        time.sleep(ON_THEIR_WAY_S)
        os.kill(os.getpid(), signal.SIGKILL)

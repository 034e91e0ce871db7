"""An actor that follows a script, for tests of a pool; imports nothing heavy, so that the actor starts soon."""

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

import ray

from fedvtc.errors import ClientError, ClientMemoryError
from fedvtc.learning.exchange.messages import Upload
from fedvtc.runtime.actors.stream import Failed


class Fault(NamedTuple):
    """A fault that replaces the work of a task."""

    way: str
    times: int = 1


ON_THEIR_WAY_S = 0.5
"""Seconds for earlier answers to reach the coordinator before the process dies."""


def log(host, client):
    """Task: returns the calls that the client's actor received before."""


def node(host, client):
    """Task: returns the id of the node of the client's actor."""


def num_runs(host, client):
    """Task: returns the number of calls of `run` that the client's actor received, with the present call."""


class ScriptedActor:
    """Replaces `ClientActor`.

    Args:
        config: the run's config.
        script: replaces the data set: the seconds of a client's task, or its `Fault`, by (task, client); and under
            `folder` a folder where all actors together count faults. A real data set scripts nothing.
        specs: ignored.
        num_gpus: ignored.
        idle_folder: ignored.
    """

    def __init__(self, config, script, specs, num_gpus, idle_folder):
        self._script, self._log, self._absent = script if isinstance(script, dict) else {}, [], set()
        self._num_runs = 0

    def run(self, task, clients, *arguments):
        self._num_runs += 1
        for client in clients:
            try:
                result = self._result(task, client)
            except ClientError as error:
                result = Failed(error)
            yield result

    def _result(self, task, client):
        self._log.append((task, client))
        if task == "log":
            return self._log[:-1]
        if task == "node":
            return ray.get_runtime_context().get_node_id()
        if task == "num_runs":
            return self._num_runs
        if client in self._absent:
            raise ClientError(client, 1, task, f"KeyError: {client}")
        self._act(task, client)
        if task == "run_round":
            return Upload(client, 2, 1, {}, {"time/client": 1.0})
        return f"{task} of {client}"

    def rebuild(self, client, history):
        self._log.append(("rebuild", client, len(history.steps)))
        self._absent.add(client)
        self._act("rebuild", client)
        self._absent.remove(client)
        return []

    def give(self, client):
        self._log.append(("give", client))
        self._absent.add(client)
        self._act("give", client)
        return True, b"state"

    def take(self, client, state):
        self._log.append(("take", client, state))
        self._act("take", client)
        self._absent.discard(client)
        return []

    def forget(self, client):
        self._log.append(("forget", client))

    def save(self, clients, store, draft):
        return [(store, draft, client) for client in clients]

    def adopt(self, specs):
        pass

    def ready(self):
        return os.getpid()

    def _act(self, task, client):
        act = self._script.get((task, client), 0.0)
        if not isinstance(act, Fault):
            time.sleep(act)
            return
        for number in range(act.times):
            try:
                Path(self._script["folder"], f"{task}-{client}-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            if act.way == "memory":
                raise ClientMemoryError(client, 1, task, "MemoryError")
            time.sleep(ON_THEIR_WAY_S)
            os.kill(os.getpid(), signal.SIGKILL)

"""Checks of a run folder: run.json, config.yaml, the partition, and whether a secret got into a file."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedvtc.commands.doctor import checkpoints, records
from fedvtc.commands.doctor.finding import Finding, fault_of, safely
from fedvtc.config import Config, load
from fedvtc.config.secrets import secrets_in
from fedvtc.errors import ConfigError, DataError, RunFolderError
from fedvtc.learning.methods import config_classes
from fedvtc.storage import lock
from fedvtc.storage.run_files import config_layer
from fedvtc.storage.run_folder import RunFolder


def examine_run(path: Path, overrides: Sequence[str] = ()) -> Iterator[Finding]:
    """All that is checked of a run folder; without a run.json that can be read, nothing more.

    Args:
        path: of the folder.
        overrides: `key=value` that win over its config.yaml.
    """
    try:
        folder = RunFolder.open(path)
    except RunFolderError as error:
        yield fault_of("run.json", error, str(path))
        return
    try:
        holder = lock.holder(path)
    except OSError as error:
        fix = "Make it readable, on a file system that has locks."
        yield Finding(".lock", "fault", f"cannot be examined ({error.strerror})", fix)
        holder = "perhaps a process"
    config, found = _config(folder, overrides)
    yield _status(folder, holder, config)
    yield from safely("secrets", partial(_secrets, path), "fault")
    yield from found
    num_rounds = config.run.rounds if config else None
    state = {"is_finished": folder.status == "finished", "is_live": holder is not None}
    yield from safely("metrics.jsonl", partial(records.metrics, path, num_rounds, **state), "fault")
    yield from safely("clients.csv", partial(records.clients, path, **state), "fault")
    if config is not None:
        yield from safely("partition.npz", partial(_partition, path, config), "fault")
        from fedvtc.federation.trust import NOTHING_FOREIGN

        given = load([config_layer(path)], [*NOTHING_FOREIGN, *overrides], methods=config_classes())
        check = partial(checkpoints.examine, folder, config, given, is_live=holder is not None)
        yield from safely("checkpoints", check, "fault")


def _config(folder: RunFolder, overrides: Sequence[str]) -> tuple[Config | None, list[Finding]]:
    """What the run's config.yaml says, where it can be read, and how it is."""
    try:
        config = load([config_layer(folder.path)], overrides, methods=config_classes())
    except ConfigError as error:
        return None, [fault_of("config.yaml", ConfigError([problem])) for problem in error.problems]
    except RunFolderError as error:
        return None, [fault_of("config.yaml", error, str(folder.path / "config.yaml"))]
    return config, [Finding("config.yaml", "ok", "loads with this version")]


def _status(folder: RunFolder, holder: str | None, config: Config | None) -> Finding:
    from fedvtc.federation.status import resume_command

    num_attempts = len(folder.attempts)
    run = f"{folder.name} ({folder.id}), {num_attempts} attempt{'s' * (num_attempts != 1)}"
    if holder is not None:
        return Finding("run.json", "ok", f"{run}: {holder} writes it now")
    if folder.status == "finished":
        return Finding("run.json", "ok", f"{run}: finished")
    ended = "running, but no process writes it: it was killed" if folder.status == "running" else folder.status
    return Finding("run.json", "warning", f"{run}: {ended}", resume_command(config, folder.path))


def _partition(path: Path, config: Config) -> Iterator[Finding]:
    from fedvtc.learning.data import load_partition

    file = path / "partition.npz"
    if not file.exists():
        yield Finding("partition.npz", "warning", "is missing", "Resuming the run draws it again.")
        return
    num_clients = config.population.num_clients
    try:
        # Against its own labels: the data set itself may be large, or on another machine.
        parts = load_partition(file, _labels(file), num_clients)
    except DataError as error:
        yield fault_of("partition.npz", error, str(file))
        return
    yield Finding("partition.npz", "ok", f"{num_clients} clients, {sum(map(len, parts))} images")


def _labels(file: Path) -> NDArray[np.int64]:
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return np.asarray(arrays["labels"])
    except Exception:  # Whatever it is, `load_partition` says what is wrong.
        return np.empty(0, dtype=np.int64)


def _secrets(path: Path) -> Iterator[Finding]:
    """Whether a file tells what the environment keeps to itself; values are compared, never shown."""
    for file in ("run.json", "config.yaml"):
        if not (path / file).exists():
            continue
        text = (path / file).read_text(encoding="utf-8", errors="replace")
        for name in secrets_in(text):
            yield Finding(file, "fault", f"holds the value of ${name}", "Delete it there, and have a new one issued.")

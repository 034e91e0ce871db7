"""Checks a run folder: run.json, config.yaml, secrets in files, records, partition, data set and checkpoints."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from fedvtc.commands.doctor import checkpoints, records
from fedvtc.commands.doctor.finding import Finding, fault_of, safely
from fedvtc.config import Config, check_resumable, load
from fedvtc.config.own_code import is_import_path
from fedvtc.config.secrets import secrets_in
from fedvtc.errors import ConfigError, DataError, RunFolderError, count_of
from fedvtc.learning.methods import config_classes
from fedvtc.storage.run_files import config_layer
from fedvtc.storage.run_folder import RunFolder
from fedvtc.storage.run_status import RunStatus
from fedvtc.storage.trust import is_owned, resume_command


def examine_run(path: Path, overrides: Sequence[str] = (), *, trusted: bool = False) -> Iterator[Finding]:
    """Yields a row per file of a run folder; only one row if run.json cannot be read.

    Args:
        path: the run folder.
        overrides: `key=value` words that win over the run's config.yaml.
        trusted: True checks `checkpoint.dir` even if another user owns the run folder.
    """
    try:
        folder = RunFolder.open(path)
    except RunFolderError as error:
        yield fault_of("run.json", error, str(path))
        return
    try:
        status = folder.true_status
    except OSError as error:
        fix = "Make .lock readable, on a file system that supports locks."
        yield Finding(".lock", "fault", f"cannot be examined ({error.strerror})", fix)
        status = RunStatus(folder.status, holder="perhaps a process")
    refusal = _refusal(folder, trusted)
    own, config, found = _configs(folder, overrides, refusal)
    yield _status(folder, status)
    yield from safely("secrets", partial(_secrets, path), "fault")
    yield from found
    # The records are those of the rounds that the run was asked for, not of those that the overrides add.
    num_rounds = own.run.rounds if own else None
    is_extended = own is not None and config is not None and config.run.rounds > own.run.rounds
    state = {"is_finished": folder.status == "finished", "is_live": status.holder is not None}
    yield from safely("metrics.jsonl", partial(records.metrics, path, num_rounds, **state), "fault")
    yield from safely("clients.csv", partial(records.clients, path, **state), "fault")
    if config is not None:
        yield from safely("partition.npz", partial(check_partition, path, config), "fault")
        resumes = status.holder is None and (status.name != "finished" or is_extended)
        if resumes:
            yield from safely("data", partial(check_data, folder, config, refusal))
        check = partial(checkpoints.examine, folder, config, trusted=trusted, is_live=state["is_live"], resumes=resumes)
        yield from safely("checkpoints", check, "fault")


def _refusal(folder: RunFolder, trusted: bool) -> str:
    """Returns the remedy for code that is not imported because another user owns the folder, or an empty text."""
    return "" if trusted or is_owned(folder.path) else "Give --trust if you trust the owner of the folder."


def _configs(
    folder: RunFolder, overrides: Sequence[str], refusal: str
) -> tuple[Config | None, Config | None, list[Finding]]:
    """The config of the run, the config that a resume with the overrides has, and the rows for config.yaml.

    A config that does not load is None. Without overrides, or with overrides that a resume refuses, both are equal.
    """
    own, found = _loaded(folder, [], refusal)
    if not overrides:
        return own, own, found
    config, found = _loaded(folder, overrides, refusal)
    if own is not None and config is not None:
        try:
            check_resumable(own, config)
        except ConfigError as error:
            return own, own, _faults(error)
    return own, config or own, found


def _loaded(folder: RunFolder, overrides: Sequence[str], refusal: str) -> tuple[Config | None, list[Finding]]:
    try:
        config = load([config_layer(folder.path)], overrides, methods=config_classes(refusal))
    except ConfigError as error:
        return None, _faults(error)
    except RunFolderError as error:
        return None, [fault_of("config.yaml", error, str(folder.path / "config.yaml"))]
    return config, [Finding("config.yaml", "ok", "loads with this version of fedvtc")]


def _faults(error: ConfigError) -> list[Finding]:
    return [fault_of("config.yaml", ConfigError([problem])) for problem in error.problems]


def _status(folder: RunFolder, status: RunStatus) -> Finding:
    num_attempts = len(folder.attempts)
    run = f"{folder.name} ({folder.id}), {num_attempts} attempt{'s' * (num_attempts != 1)}"
    if status.holder is not None:
        return Finding("run.json", "ok", f"{run}: running, {status.holder} writes the folder")
    if status.name == "finished":
        return Finding("run.json", "ok", f"{run}: finished")
    ended = f"{status.name} ({status.reason})" if status.reason else status.name
    return Finding("run.json", "warning", f"{run}: {ended}", resume_command(folder.path))


def check_partition(path: Path, config: Config) -> Iterator[Finding]:
    """Yields the row for partition.npz of a run folder."""
    from fedvtc.learning.data import load_partition, read_partition

    file = path / "partition.npz"
    if not file.exists():
        yield Finding("partition.npz", "warning", "is missing", "fedvtc resume draws the partition again.")
        return
    num_clients = config.population.num_clients
    try:
        # Checked with the labels in the file: the data set may be large, or on another machine.
        _, labels_N = read_partition(file)
        parts = load_partition(file, labels_N, num_clients, may_overlap=config.partition.kind == "all")
    except DataError as error:
        yield fault_of("partition.npz", error, str(file))
        return
    yield Finding(
        "partition.npz", "ok", f"{count_of(num_clients, 'client')}, {count_of(sum(map(len, parts)), 'image')}"
    )


def check_data(folder: RunFolder, config: Config, refusal: str = "") -> Iterator[Finding]:
    """Yields the row for the data set of a run that can be resumed; downloads nothing.

    Args:
        folder: the run folder.
        config: the run's config.
        refusal: the remedy if a function of the user's own is not called; empty calls the function.
    """
    from fedvtc.federation.resume import check_same_data
    from fedvtc.learning.data import DataReport, load_dataset

    if refusal and is_import_path(config.data.name):
        yield Finding("data", "warning", f"{config.data.name} is code that is not imported here", refusal)
        return
    try:
        report = DataReport.of(load_dataset(replace(config.data, download=False)))
        check_same_data(folder, config.data, report)
    except DataError as error:
        yield fault_of("data", error)
        return
    known = "as in run.json" if folder.data_hash else "run.json has no hash to compare"
    yield Finding("data", "ok", f"{report.num_train:,} training and {report.num_test:,} test images, {known}")


def _secrets(path: Path) -> Iterator[Finding]:
    """Yields a fault for each secret environment variable whose value is in a file. Values are never shown."""
    for file in ("run.json", "config.yaml"):
        if not (path / file).exists():
            continue
        text = (path / file).read_text(encoding="utf-8", errors="replace")
        for name in secrets_in(text):
            yield Finding(
                file,
                "fault",
                f"holds the value of ${name}",
                "Delete the value from the file, and replace the secret by a new one.",
            )

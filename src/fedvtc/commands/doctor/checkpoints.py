"""Checks the checkpoints of a run: every byte, the fit to the run, and the round that a resume starts from."""

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from fedvtc.commands.doctor.finding import Finding, fault_of
from fedvtc.config import Config
from fedvtc.errors import CheckpointError, count_of
from fedvtc.reporting.tables import human_bytes
from fedvtc.storage.checkpoints import CheckpointStore, Manifest
from fedvtc.storage.records import count_recorded
from fedvtc.storage.run_folder import RunFolder
from fedvtc.storage.trust import resume_command

SKIPPED = "fedvtc resume skips this checkpoint and uses an older one."
NUM_ON_DISK = 2
"""Checkpoints that must fit on the disk: a new one is written before an old one is removed."""


def examine(folder: RunFolder, config: Config, *, trusted: bool, is_live: bool, resumes: bool) -> Iterator[Finding]:
    """Yields a row for each checkpoint, the round that a resume starts from, and the disk.

    Args:
        folder: the run folder.
        config: the run's config, with the overrides of the command.
        trusted: True checks `checkpoint.dir` even if another user owns the run folder.
        is_live: True if a process is writing the run.
        resumes: True if a resume would do rounds: the run has not finished, or the overrides make the run longer.
    """
    from fedvtc.federation.starting_point import check_starts_over, checkpoint_store
    from fedvtc.storage.checkpoints.contents import misfit
    from fedvtc.storage.trust import is_owned

    if config.checkpoint.dir is not None and not (trusted or is_owned(folder.path)):
        found = f"not checked: {config.checkpoint.dir} is named by the run folder of another user"
        fix = shlex.join(["fedvtc", "doctor", str(folder.path), "--trust"])
        yield Finding("checkpoints", "warning", found, fix)
        return
    try:
        store = checkpoint_store(config, folder)
        damaged: list[str] = []
        manifests = store.manifests(damaged.append)
    except (CheckpointError, OSError) as error:
        yield fault_of("checkpoints", error)
        return
    for line in damaged:
        what, _, found = line.partition(": ")
        yield Finding(what, "fault", found, SKIPPED)
    intact, fitting = [], []
    for manifest in manifests:
        problems = store.problems(manifest)
        if problems and is_live and manifest not in store.manifests():
            # The run removed this checkpoint during the check.
            continue
        what = f"checkpoints/{manifest.folder}"
        for problem in problems:
            damaged.append(problem)
            yield Finding(what, "fault", problem.partition(": ")[2], SKIPPED)
        if problems:
            continue
        intact.append(manifest)
        if fault := misfit(manifest, folder.id, config):
            damaged.append(fault[0])
            yield Finding(what, "fault", *fault)
            continue
        fitting.append(manifest)
        size = human_bytes(sum(shard.num_bytes for shard in manifest.shards))
        yield Finding(what, "ok", f"intact: {count_of(len(manifest.shards), 'file')}, {size}")
    if folder.status == "finished" and not resumes:
        if config.checkpoint.every is not None and not any(manifest.phase == "final" for manifest in intact):
            fix = f"Delete checkpoints/final if it exists, and repeat the last step: {resume_command(folder.path)}"
            if not intact:
                fix = "Free disk space, and repeat the run under another run.name if you need its models."
            yield Finding("checkpoints/final", "warning", "missing or damaged", fix)
    elif resumes:
        num_recorded = count_recorded(folder.path, config.population.num_clients)
        rounds = [manifest.round for manifest in fitting if manifest.phase == "round"]
        # The rule of a resume: a checkpoint newer than the records is used only if there is no other.
        rounds = [round for round in rounds if round <= num_recorded] or rounds
        try:
            if not (rounds or damaged):
                check_starts_over(store, folder, config, num_recorded)
            yield _resuming(rounds, config, store.location if damaged else None)
        except CheckpointError as error:
            yield fault_of("resuming", error, store.location)
        yield from _disk(store, manifests)


def _resuming(rounds: list[int], config: Config, damaged: str | None) -> Finding:
    """The row for the round that a resume starts from.

    Args:
        rounds: rounds with a usable checkpoint, newest first.
        config: the run's config.
        damaged: location of the checkpoints if some are damaged, else None.
    """
    if rounds:
        return Finding("resuming", "ok", f"resumes after round {rounds[0]} of {config.run.rounds}")
    if damaged is not None:
        fix = f"Repair a checkpoint, or remove {damaged} and metrics.jsonl to start over."
        return Finding("resuming", "fault", "not possible, every checkpoint is damaged", fix)
    return Finding("resuming", "warning", f"no checkpoint; a resume repeats {count_of(config.run.rounds, 'round')}")


def _disk(store: CheckpointStore, manifests: list[Manifest]) -> Iterator[Finding]:
    location = Path(store.location)
    if not manifests or "://" in store.location or not location.exists():
        return
    needed = NUM_ON_DISK * sum(shard.num_bytes for shard in manifests[0].shards)
    free = shutil.disk_usage(location).free
    found = f"{human_bytes(free)} free, the next checkpoints need {human_bytes(needed)}"
    if free < needed:
        fix = "Free disk space, or set checkpoint.dir to a folder on another disk."
        yield Finding("disk", "warning", found, fix)
    else:
        yield Finding("disk", "ok", found)

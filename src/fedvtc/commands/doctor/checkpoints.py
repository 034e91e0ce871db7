"""Checks of the checkpoints of a run: every byte of each, whose they are, and from which one the run would go on."""

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from fedvtc.commands.doctor.finding import Finding, fault_of
from fedvtc.config import Config
from fedvtc.errors import CheckpointError
from fedvtc.reporting.tables import human_bytes
from fedvtc.storage.checkpoints import CheckpointStore, Manifest
from fedvtc.storage.records import count_recorded
from fedvtc.storage.run_folder import RunFolder

SKIPPED = "It is passed over; an older one that is whole is used."
ROOM = 2
"""Checkpoints that must fit on the disk, for a new one is written before an old one is removed."""


def examine(folder: RunFolder, config: Config, *, trusted: bool, is_live: bool) -> Iterator[Finding]:
    """A row for each checkpoint, for what the run would go on from, and for the disk.

    Args:
        folder: of the run.
        config: as its config.yaml says, or who asks.
        trusted: True to look at a checkpoint.dir that the folder of another user names.
        is_live: whether a process writes the run now.
    """
    from fedvtc.federation.starting_point import check_starts_over, checkpoint_store
    from fedvtc.federation.trust import is_owned
    from fedvtc.storage.checkpoints.contents import misfit

    is_finished = folder.status == "finished"
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
    whole, fitting = [], []
    for manifest in manifests:
        problems = store.problems(manifest)
        if problems and is_live and manifest not in store.manifests():
            # The run has removed it while it was looked at.
            continue
        what = f"checkpoints/{manifest.folder}"
        for problem in problems:
            damaged.append(problem)
            yield Finding(what, "fault", problem.partition(": ")[2], SKIPPED)
        if problems:
            continue
        whole.append(manifest)
        if fault := misfit(manifest, folder.id, config):
            damaged.append(fault[0])
            yield Finding(what, "fault", *fault)
            continue
        fitting.append(manifest)
        size = human_bytes(sum(shard.num_bytes for shard in manifest.shards))
        yield Finding(what, "ok", f"whole: {len(manifest.shards)} files, {size}")
    if is_finished:
        if config.checkpoint.every is not None and not any(manifest.phase == "final" for manifest in whole):
            fix = "The newest round has the models as they were before the method's last step."
            yield Finding("checkpoints/final", "warning", "there is none that is whole", fix)
    elif not is_live:
        num_recorded = count_recorded(folder.path, config.population.num_clients)
        rounds = [manifest.round for manifest in fitting if manifest.phase == "round"]
        # As resuming does it: a checkpoint that the records do not reach is the last resort.
        rounds = [round for round in rounds if round <= num_recorded] or rounds
        try:
            if not (rounds or damaged):
                check_starts_over(store, folder, config, num_recorded)
            yield _resuming(rounds, config, store.location if damaged else None)
        except CheckpointError as error:
            yield fault_of("resuming", error, store.location)
        yield from _room(store, manifests)


def _resuming(rounds: list[int], config: Config, damaged: str | None) -> Finding:
    """What resuming would do.

    Args:
        rounds: those with a whole checkpoint, newest first.
        config: of the run.
        damaged: where checkpoints lie of which some are damaged; None where none is.
    """
    if rounds:
        return Finding("resuming", "ok", f"goes on after round {rounds[0]} of {config.run.rounds}")
    if damaged is not None:
        fix = f"Mend one of them, or remove {damaged} and metrics.jsonl to start over."
        return Finding("resuming", "fault", "refused, for no checkpoint is whole", fix)
    found = f"there is no checkpoint, all {config.run.rounds} rounds are done again"
    return Finding("resuming", "warning", found)


def _room(store: CheckpointStore, manifests: list[Manifest]) -> Iterator[Finding]:
    place = Path(store.location)
    if not manifests or "://" in store.location or not place.exists():
        return
    needed = ROOM * sum(shard.num_bytes for shard in manifests[0].shards)
    free = shutil.disk_usage(place).free
    found = f"{human_bytes(free)} free, the next ones need {human_bytes(needed)}"
    if free < needed:
        yield Finding("disk", "warning", found, "Free some, or set checkpoint.dir to another disk.")
    else:
        yield Finding("disk", "ok", found)

"""Starts a run from its config."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

from fedvtc.config import absolute_paths, changed_code, check_submitted, code_hashes, same_place, to_dict
from fedvtc.config.naming import default_name
from fedvtc.config.schema import Config
from fedvtc.errors import CheckpointError, RunExistsError
from fedvtc.federation.attempt import RunSummary, attempt
from fedvtc.federation.earlier_run import EarlierRun
from fedvtc.federation.resume import resume_folder
from fedvtc.federation.starting_point import checkpoint_store
from fedvtc.federation.status import undone_unless_begun
from fedvtc.learning.population import Population
from fedvtc.runtime.device import gpu_names
from fedvtc.runtime.incidents import Incidents
from fedvtc.storage.run_folder import RunFolder
from fedvtc.storage.run_id import RUN_ID_VARIABLE
from fedvtc.tracking import Tracker
from fedvtc.tracking.console import PlainConsole, make_console_tracker


def run_federation(
    config: Config,
    *,
    plain: bool = False,
    trackers: Sequence[Tracker] = (),
    trusted: bool = False,
    owns_process: bool = False,
    start_from: Path | None = None,
    needs_start: bool = True,
) -> RunSummary:
    """Runs a federation and writes its run folder; resumes the run of that name if `run.resume` is `auto`.

    Args:
        config: the whole, checked config.
        plain: print one line per round instead of a live table.
        trackers: trackers that receive the run beside the trackers of its config.
        trusted: resume a run even if its folder belongs to another user.
        owns_process: True if this process exists for the run only. A second Ctrl-C or SIGTERM then ends the process;
            otherwise it raises `Interrupted`.
        start_from: the folder of a run with equal rounds, which a new run takes over instead of computing them again.
        needs_start: False computes the rounds if the run of `start_from` has no whole checkpoint.

    Raises:
        UserError: the data, the cluster or the run folder do not fit the config.
        FedvtcError: the run failed.
        Interrupted: a signal ended the run. In the main thread, the run handles Ctrl-C, SIGTERM, and the signals
            SIGHUP, SIGUSR1 and SIGUSR2 that the process neither handles nor ignores.
    """
    check_submitted(config)
    config = absolute_paths(config)
    name = config.run.name or default_name(config)
    path = Path(config.run.output_dir, name)
    # Not Path.exists, which raises for names that are too long and for folders without read permission.
    if config.run.resume == "auto" and os.path.exists(path / "run.json"):
        return resume_folder(
            RunFolder.open(path),
            lambda before: same_place(before, config),
            plain=plain,
            trusted=trusted,
            trackers=trackers,
            owns_process=owns_process,
        )
    console = make_console_tracker(plain)
    earlier = EarlierRun.open(start_from, config, trusted) if start_from is not None else None
    try:
        return _run_new(config, name, earlier, console, trackers, owns_process=owns_process)
    except CheckpointError as error:
        if earlier is None or needs_start:
            raise
        console.note(f"{str(error).rstrip('.')}. This run computes its rounds itself.")
    return _run_new(config, name, None, console, trackers, owns_process=owns_process)


def _run_new(
    config: Config,
    name: str,
    earlier: EarlierRun | None,
    console: PlainConsole,
    trackers: Sequence[Tracker],
    *,
    owns_process: bool,
) -> RunSummary:
    """Runs a federation in a new run folder, which is removed after a user error before the first round."""
    population = Population.of(config, earlier.partition if earlier else None)
    folder = _new_folder(config, name)
    with folder.lock(), undone_unless_begun(folder, folder.discard), ExitStack() as stack:
        submitted_as = os.environ.get(RUN_ID_VARIABLE) or folder.id
        if folder.id != submitted_as:
            console.note(f"{folder.path}: no folder of run {submitted_as} exists; this is a new run, {folder.id}")
        incidents = Incidents(console.note)
        store = checkpoint_store(config, folder)
        start = None
        if earlier is not None:
            start = earlier.copy_rounds(folder, store, config, population, incidents)
            # `checkpoint.dir` may be outside of the folder.
            stack.enter_context(undone_unless_begun(folder, partial(store.remove, start.folder)))
            console.note(f"{folder.path}: starting after round {start.round} of {earlier.folder.path}")
            if changed := changed_code(earlier.folder.attempts, code_hashes(config)):
                what = f"{folder.path}: the code of {', '.join(changed)} has changed since {earlier.folder.path}"
                console.note(f"{what}; the copied rounds used the former code")
        return attempt(
            config, population, folder, store, start, console, incidents, trackers, owns_process=owns_process
        )


def _new_folder(config: Config, name: str) -> RunFolder:
    """Creates the run folder; a default name that is taken gets a number, because two runs can start in one second."""
    gpus = [] if config.placement.accelerator == "cpu" else gpu_names()
    numbered = (f"{name}-{number}" for number in count(2))
    chosen = name
    while True:
        try:
            return RunFolder.create(config.run.output_dir, chosen, to_dict(config), gpus)
        except RunExistsError:
            if config.run.name is not None:
                raise
            chosen = next(numbered)

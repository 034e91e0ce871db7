"""A run from its config, or from its folder on."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from fedvtc.config import check_submitted, same_place, to_dict
from fedvtc.config.naming import default_name
from fedvtc.config.schema import Config
from fedvtc.errors import RunExistsError, UserError
from fedvtc.federation.attempt import RunSummary, attempt
from fedvtc.federation.resume import resume_folder
from fedvtc.federation.status import has_begun
from fedvtc.learning.population import Population
from fedvtc.runtime.device import gpu_names
from fedvtc.runtime.incidents import Incidents
from fedvtc.storage.run_folder import RUN_ID_VARIABLE, RunFolder
from fedvtc.tracking import Tracker
from fedvtc.tracking.console import make_console_tracker


def run_federation(config: Config, *, plain: bool = False, trackers: Sequence[Tracker] = ()) -> RunSummary:
    """Runs a federation from its config to its run folder, or resumes it where `run.resume` says so.

    Args:
        config: whole and checked.
        plain: one line per round instead of a live table.
        trackers: hear of the run besides those of its own.

    Raises:
        UserError: the data, the cluster or the run folder are not as the config needs them.
        FedvtcError: the run could not go on.
    """
    check_submitted(config)
    name = config.run.name or default_name(config)
    path = Path(config.run.output_dir, name)
    # Not Path.exists, which raises for a name that is too long, or where it may not look.
    if config.run.resume == "auto" and os.path.exists(path / "run.json"):
        folder = RunFolder.open(path)
        return resume_folder(folder, lambda before: same_place(before, config), plain, trackers)
    population = Population.of(config)
    folder = _new_folder(config, name)
    with folder.lock(), _discarded_if_it_cannot_begin(folder):
        console = make_console_tracker(plain)
        submitted_as = os.environ.get(RUN_ID_VARIABLE) or folder.id
        if folder.id != submitted_as:
            console.note(f"{folder.path}: there is no folder of run {submitted_as}; a new run begins, {folder.id}")
        incidents = Incidents(console.note)
        return RunSummary(folder.path, attempt(config, population, folder, None, console, incidents, trackers))


def _new_folder(config: Config, name: str) -> RunFolder:
    """A name that the user did not give gets a number where a run that began in the same second has it."""
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


@contextmanager
def _discarded_if_it_cannot_begin(folder: RunFolder) -> Iterator[None]:
    """What the user has to mend leaves no folder, so that the name stays free."""
    try:
        yield
    except UserError:
        if not has_begun(folder):
            folder.discard()
        raise

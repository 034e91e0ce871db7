"""Ids of runs: a new id, or the id that `fedvtc submit` chose for the run of a job."""

import os
import re
import uuid

from fedvtc.errors import RunFolderError

RUN_ID = re.compile("[0-9a-f]{8}")
"""Form of a run's id."""
RUN_ID_VARIABLE = "FEDVTC_RUN_ID"
"""Environment variable with the id of the run that a submitted job starts."""
ATTEMPT_VARIABLE = "FEDVTC_ATTEMPT"
"""Environment variable with the number of a submitted job among the jobs of its run, from 1."""


def new_id() -> str:
    """Returns a new run id: 8 hex digits."""
    return uuid.uuid4().hex[:8]


def id_of_new_run() -> str:
    """Returns the id of FEDVTC_RUN_ID in the first job of a submitted run, else a new id.

    Raises:
        RunFolderError: if FEDVTC_RUN_ID is not an id.
    """
    run_id = os.environ.get(RUN_ID_VARIABLE) or new_id()
    if not RUN_ID.fullmatch(run_id):
        fix = f"Unset {RUN_ID_VARIABLE}; `fedvtc submit` sets it."
        raise RunFolderError(f"{RUN_ID_VARIABLE}={run_id!r}: must be 8 hex digits. {fix}")
    # The earlier jobs left no folder. Under their id, trackers could add a second curve to the first.
    return run_id if os.environ.get(ATTEMPT_VARIABLE, "1") == "1" else new_id()

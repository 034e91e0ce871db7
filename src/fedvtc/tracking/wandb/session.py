"""Opens a W&B run and ends W&B's service, the process on this machine that receives all logged values."""

import os
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil

from fedvtc.config.schema import Config
from fedvtc.tracking.base import RunInfo
from fedvtc.tracking.wandb.identity import keep_id, kept_id

if TYPE_CHECKING:
    import wandb

MAX_TAG_LETTERS = 64
ENVIRONMENT = ("versions", "hardware", "commits")
"""Parts of run.json, and of its newest attempt, that become `environment` in the config of the W&B run."""
VARIABLES = {
    "mode": "WANDB_MODE",
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "group": "WANDB_RUN_GROUP",
    "job_type": "WANDB_JOB_TYPE",
    "name": "WANDB_NAME",
    "notes": "WANDB_NOTES",
}
"""Environment variables that win over the config, by config key."""
STORE_S = 1.0
"""Seconds in which W&B's service, when it is told to end, writes its values to its file."""
SERVICE = "wandb-core"
"""Name of the service's program."""
COPIES = "WANDB_DATA_DIR"
"""Environment variable: W&B copies the files of artifacts and tables below this folder, and uploads the copies."""
HAS_COPIES_FOLDER = COPIES in os.environ
"""True if the user chose the folder; read before this process sets the variable for its first run."""
MODES = ("online", "offline", "shared", "disabled", "dryrun", "run")
"""Modes that W&B accepts, in lower case only."""


def open_run(run: RunInfo, explicit: dict[str, str], description: Mapping[str, Any]) -> "wandb.Run":
    """Opens the W&B run of a run folder; continues the W&B run of an earlier attempt.

    Args:
        run: facts about the run.
        explicit: arguments of `wandb.init` that win over environment and config.
        description: the content of run.json; empty if there is none.

    Raises:
        Exception: of any kind, if W&B cannot open the run within `tracking.wandb.timeout_s`.
    """
    import wandb

    keys = run.config.tracking.wandb
    # Silent, so that W&B neither asks for a key nor writes into the live table.
    wandb.setup(settings=wandb.Settings(silent=True))
    # W&B reads the environment once per process, and only for arguments that are not given.
    chosen: dict[str, Any] = {
        key: os.environ.get(variable) or getattr(keys, key) for key, variable in VARIABLES.items()
    }
    chosen["name"] = chosen["name"] or run.name
    settings = wandb.Settings(
        console="off",
        silent=True,
        init_timeout=keys.timeout_s,
        finish_timeout=keys.timeout_s,
        finish_timeout_raises=True,
        # The metadata would hold the command line.
        x_disable_meta=True,
    )
    opened = wandb.init(
        **(chosen | explicit),
        id=kept_id(run),
        resume="allow",
        reinit="create_new",
        dir=str(run.folder.absolute()),
        config=dict(run.config_dict) | _added_config(run, description),
        tags=_tags(run.config),
        settings=settings,
    )
    if not opened.disabled:
        keep_id(run, opened.id)
        if not HAS_COPIES_FOLDER:
            # The default is in the home folder, so `wandb sync` would need more than the run folder. W&B has no setting
            # for the folder and reads the variable for each copy. The variable stays set, because a deletion in this
            # thread could break another thread that copies the environment.
            os.environ[COPIES] = opened.settings.sync_dir
    return opened


def close_service() -> None:
    """Ends W&B's service and its open runs, so that the program's end does not wait for the service."""
    import wandb

    # `teardown` exits the program if the service has ended with an error.
    with suppress(SystemExit, *gone_errors()):
        wandb.teardown()


def end_service(stores: bool) -> None:
    """Ends W&B's service also if the service waits for the server.

    The service ends with its parent process, but not once `wandb.teardown` has asked it to end: then it first waits
    for the server, up to `tracking.wandb.timeout_s` if `wandb.init` is not done. So this function kills the service.

    Args:
        stores: True if the service holds values that it must first write to its file.
    """
    if not stores:
        _kill_service()
    # Python's exit would wait for the service, except during a teardown.
    teardown = threading.Thread(target=close_service, name="wandb-teardown", daemon=True)
    teardown.start()
    teardown.join(STORE_S)
    _kill_service()


def gone_errors() -> tuple[type[Exception], ...]:
    """Returns the errors that W&B raises after its service has died, for example by a signal to the whole job."""
    from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

    return ConnectionError, HandleAbandonedError, MailboxClosedError


def _kill_service() -> None:
    for process in psutil.Process().children():
        with suppress(psutil.Error):
            if process.name().startswith(SERVICE):
                process.kill()


def _added_config(run: RunInfo, description: Mapping[str, Any]) -> dict[str, Any]:
    """Returns keys of the W&B config beside those of the run: the environment, and the backbones in one line."""
    parts = [description, *description.get("attempts", [])[-1:]]
    environment = {name: part[name] for part in parts for name in ENVIRONMENT if name in part}
    mix = ", ".join(f"{name} x{count}" for name, count in Counter(run.backbones).items())
    return {"environment": environment, "backbone_mix": mix}


def _tags(config: Config) -> list[str]:
    given = (config.method.label or config.method.name, config.data.name, config.partition.kind)
    variable = (tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(","))
    tags = (*given, *config.tracking.wandb.tags, *filter(None, variable))
    return list(dict.fromkeys(tag[:MAX_TAG_LETTERS] for tag in tags))

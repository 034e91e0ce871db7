"""The ownership rule for run folders, like git's `safe.directory`.

A config.yaml names trackers to import, a cluster that can run code in this process, and servers that receive the
credentials of this machine. The user's own folders may set these values; folders of other users need `--trust`.
"""

import os
import pwd
import shlex
from pathlib import Path

from fedvtc.errors import RunFolderError

OWNED_FILES = ("run.json", "config.yaml")


def is_owned(folder: Path) -> bool:
    """True if the run folder, its run.json and its config.yaml belong to the user of this process."""
    return _foreign(folder) is None


def check_owner(folder: Path, trusted: bool) -> None:
    """Refuses the run folder of another user.

    Args:
        folder: path of an existing run folder.
        trusted: True if the user gave `--trust`.

    Raises:
        RunFolderError: another user owns the folder, its run.json or its config.yaml, and `trusted` is False.
    """
    if trusted or (foreign := _foreign(folder)) is None:
        return
    path, uid = foreign
    fix = "Give --trust if you trust that user: config.yaml can name code, clusters and servers."
    raise RunFolderError(f"{path}: belongs to {user_name(uid)}, not to {user_name(os.geteuid())}. {fix}")


def user_name(uid: int) -> str:
    """The login name of a user, or `user UID` if the system knows no name, as in many containers."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def resume_command(folder: Path) -> str:
    """The command line that resumes the run of a folder, quoted for a shell."""
    trust = [] if is_owned(folder) else ["--trust"]
    return shlex.join(["fedvtc", "resume", str(folder), *trust])


def _foreign(folder: Path) -> tuple[Path, int] | None:
    """The first path that belongs to another user, with its owner's uid; None if the user owns all of them."""
    for path in (folder, *(folder / name for name in OWNED_FILES)):
        try:
            uid = path.stat().st_uid
        except FileNotFoundError:
            continue
        if uid != os.geteuid():
            return path, uid
    return None

"""Names the Git commits that a run is made from."""

import os
import subprocess
from functools import cache
from pathlib import Path

import fedvtc

TIMEOUT_S = 5.0


def commits() -> dict[str, str]:
    """Returns the commit of the working folder as `project` and that of a checkout of fedvtc as `fedvtc`.

    A commit ends with `-dirty` if tracked files differ from the commit. A folder outside of Git has no commit.
    """
    working, root = Path.cwd(), Path(fedvtc.__file__).parents[2]
    # An installed fedvtc may lie in the folder of any project.
    is_checkout = (root / ".git").exists()
    # The checkout itself is no project of the user's.
    folders = {"project": working} if not (is_checkout and working.is_relative_to(root)) else {}
    folders |= {"fedvtc": root} if is_checkout else {}
    found = {name: _commit(folder) for name, folder in folders.items()}
    return {name: commit for name, commit in found.items() if commit}


# A process runs the code that it has loaded; a later commit does not change the code.
@cache
def _commit(folder: Path) -> str:
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    # Git would write its index to remember the unchanged files.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

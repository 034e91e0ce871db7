"""The upload command, as W&B itself reads it."""

import shlex
import shutil
import subprocess
import sys

import pytest

from fedvtc.tracking.wandb.local_log import upload_command


@pytest.fixture(scope="module")
def attempts(tmp_path_factory):
    """The folders of an offline and an online run, at paths with a space; W&B knows the kind by the folder's name."""
    import wandb

    folder = tmp_path_factory.mktemp("a run")
    settings = wandb.Settings(silent=True, console="off")
    run = wandb.init(mode="offline", dir=folder, settings=settings, reinit="create_new")
    run.log({"round": 1})
    run.finish()
    wandb.teardown()
    (offline,) = folder.glob("wandb/offline-run-*")
    online = offline.with_name(offline.name.removeprefix("offline-"))
    shutil.copytree(offline, online)
    return {"offline": offline, "online": online}


@pytest.mark.parametrize("kinds", [["offline"], ["online"], ["offline", "online"]])
def test_wandb_uploads_each_folder_of_the_command(attempts, tmp_path, kinds):
    folders = [attempts[kind] for kind in kinds]
    program, *words = shlex.split(upload_command(folders))
    assert program == "wandb"
    done = subprocess.run(
        [sys.executable, "-m", "wandb", *words, "--dry-run"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    # W&B names the folder's only file, with its path at the end of the line.
    named = [line for line in (done.stdout + done.stderr).splitlines() if line.endswith(".wandb")]
    assert len(named) == len(folders)
    assert all(any(str(folder) in line for line in named) for folder in folders)

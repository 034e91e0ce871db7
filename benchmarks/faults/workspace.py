"""Workspace of one run: folders, a disk, a cluster, the environment of its processes."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from faults import residue
from faults.trial import Setting, Trial

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAME = "run"


@dataclass(frozen=True)
class Workspace:
    """Workspace of one run.

    Attributes:
        mark: value that marks all processes of the run in their environment.
        folder: folder of all files of the run except those on the disk.
        disk: mount point of the run's own disk; the folder if the run has no disk.
        run: the run folder.
        words: words of the command `fedvtc run`.
        environment: environment of the processes.
        cluster: process that controls the run's own cluster; None without such a cluster.
    """

    mark: str
    folder: Path
    disk: Path
    run: Path
    words: tuple[str, ...]
    environment: Mapping[str, str]
    cluster: "subprocess.Popen[str] | None"

    def marker(self, number: int) -> Path:
        """The file that the injector creates when a fault strikes."""
        return _marker(self.folder, number)

    def close_cluster(self) -> None:
        """Ends the cluster in the normal way."""
        if self.cluster is not None:
            self.cluster.communicate(timeout=60)


@contextmanager
def workspace_of(setting: Setting, trial: Trial, folder: Path) -> Iterator[Workspace]:
    """Creates a new folder and, if the trial needs them, a disk and a cluster.

    The end of the block kills all processes that still run except Ray's agents, keeps the folder and removes the disk.
    """
    mark, disk, output = uuid.uuid4().hex, folder, folder
    # Ray creates sockets inside this folder, and the path of a socket is limited to 107 letters.
    (folder / "ray").mkdir(parents=True)
    words = [*setting.words, f"run.name={NAME}", "--plain", *trial.overrides]
    environment = _environment(mark, folder, trial)
    with ExitStack() as stack:
        if trial.disk:
            disk = folder / "disk"
            stack.enter_context(_mounted(disk, size=trial.disk[1]))
            words.append(f"{trial.disk[0]}={disk}")
            output = disk if trial.disk[0] == "run.output_dir" else folder
        stack.callback(_end, mark)
        cluster = None
        if trial.nodes:
            cluster = _cluster(trial.nodes, environment)
            assert cluster.stdout is not None
            words.append(f"cluster.address={cluster.stdout.readline().strip()}")
        else:
            words.append(f"cluster.num_cpus={trial.num_actors}")
        words.append(f"run.output_dir={output}")
        yield Workspace(mark, folder, disk, output / NAME, tuple(words), environment, cluster)


def _end(mark: str) -> None:
    # Repeated, because the processes may start others in the meantime.
    while left := residue.orphans(mark, patience_s=0.0):
        residue.kill(left)
        time.sleep(0.1)


def _environment(mark: str, folder: Path, trial: Trial) -> dict[str, str]:
    faults = [{**fault, "marker": str(_marker(folder, number))} for number, fault in enumerate(trial.faults)]
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "FEDVTC_FAULT")}
    return {
        **environment,
        "PYTHONPATH": f"{HERE}{os.pathsep}{ROOT / 'src'}",
        "OMP_NUM_THREADS": "1",
        "RAY_TMPDIR": str(folder / "ray"),
        residue.MARK: mark,
        # Keeps process titles from overwriting the mark.
        "SPT_NOENV": "1",
        **({"FEDVTC_FAULT": json.dumps(faults)} if faults else {}),
    }


def _marker(folder: Path, number: int) -> Path:
    return folder / f"fault-{number}"


def _cluster(nodes: tuple[int, int], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    command = [sys.executable, str(HERE / "nodes.py"), *map(str, nodes)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True, start_new_session=True)


@contextmanager
def _mounted(disk: Path, *, size: str) -> Iterator[None]:
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def can_mount(folder: Path) -> bool:
    """Returns True if this user may mount a disk."""
    try:
        with _mounted(folder / "probe", size="64k"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False

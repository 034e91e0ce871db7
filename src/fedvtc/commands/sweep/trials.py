"""A sweep and its trials, as values."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedvtc.commands.sweep.sweep_file import AshaKeys
from fedvtc.config import Config


@dataclass(frozen=True)
class Trial:
    """One federation of a sweep.

    Attributes:
        name: the name of the trial and of its run folder.
        values: the values that `list`, `grid` and `random` give the trial, by dotted key.
        config: the complete, checked config, with run name and output folder.
        arguments: the arguments of a `fedvtc run` with the same config.
    """

    name: str
    values: Mapping[str, Any]
    config: Config
    arguments: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The run folder of the trial."""
        return Path(self.config.run.output_dir, self.name)

    @property
    def has_run(self) -> bool:
        """True if the run folder holds a run; False also for a folder that this user may not search."""
        # Not Path.exists, which raises for a folder that may not be searched.
        return os.path.exists(self.path / "run.json")


@dataclass(frozen=True)
class Sweep:
    """A named list of trials.

    Attributes:
        name: the name of the sweep.
        file: the sweep file.
        path: the sweep folder, absolute; it holds run folders, logs and tables.
        output_dir: the parent of the sweep folder, as the user wrote it.
        trials: the trials, in the order of the sweep file.
        max_concurrent: the maximum number of trials that run at once; None sets no maximum.
        asha: early stopping; None runs every trial to its end.
        target: mean accuracy that the table counts rounds, bytes and seconds to; None counts nothing.
    """

    name: str
    file: Path
    path: Path
    output_dir: str
    trials: tuple[Trial, ...]
    max_concurrent: int | None
    asha: AshaKeys | None
    target: float | None = None

"""Trials of a sweep."""

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
        name: of its run folder.
        values: what the sweep file gives it and not to all, by dotted key.
        config: whole and checked, with its name and place.
        words: of the `fedvtc run` that is the same run.
    """

    name: str
    values: Mapping[str, Any]
    config: Config
    words: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Its run folder."""
        return Path(self.config.run.output_dir, self.name)


@dataclass(frozen=True)
class Sweep:
    """Trials under one name.

    Attributes:
        name: of the sweep.
        file: that it was read from.
        path: the folder with all that belongs to it, absolute.
        output_dir: the folder around it, as it was given.
        trials: in their order.
        max_concurrent: trials at a time; None leaves it to the cluster.
        asha: early stopping, or None.
    """

    name: str
    file: Path
    path: Path
    output_dir: str
    trials: tuple[Trial, ...]
    max_concurrent: int | None
    asha: AshaKeys | None

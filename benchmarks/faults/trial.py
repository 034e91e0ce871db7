"""What is done to one run, and the federation that it is done to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Setting:
    """The federation that all runs of one table are.

    Attributes:
        words: of `fedvtc run`, but for those that place it or name its folder.
        rounds: a multiple of `evaluate_every`.
        num_clients: of the federation.
        evaluate_every: rounds between evaluations, and between grids of samples.
    """

    words: tuple[str, ...]
    rounds: int
    num_clients: int
    evaluate_every: int

    @property
    def num_evaluations(self) -> int:
        """Of the rounds, and the final one."""
        return self.rounds // self.evaluate_every + 1

    @property
    def num_grids(self) -> int:
        """The last round has none but the final one."""
        return self.rounds // self.evaluate_every


class Attempt(Protocol):
    """What a disturbance sees of the process that it disturbs."""

    usual_s: Sequence[float]
    """Seconds from so many rounds done to one more where nothing disturbs; from no round the run folder counts, and
    from the last one the end of the process."""
    disk: Path
    """Where the trial's own disk is mounted, if it has one."""

    def wait(self, *, rounds: int = 0, seconds: float = 0.0) -> bool:
        """Returns once the run folder is there, so many rounds are done, and the seconds after that are over.

        False says that the process has ended before.
        """

    def signal(self, number: int, *, to_all: bool) -> None:
        """Sends a signal to the driver, or to all processes of its group, as a terminal does."""

    def order(self, word: str) -> None:
        """Tells the cluster of two nodes what to do."""


@dataclass(frozen=True)
class Trial:
    """One disturbed run.

    Attributes:
        kind: its name in `KINDS`.
        where: what was drawn, for the table.
        num_actors: processes that host clients.
        code: the exit code of every attempt that does not finish the run; 0 where the first must finish it.
        faults: for the injector; each must strike.
        overrides: words of all attempts.
        nodes: CPUs of the two nodes of a cluster that the run attaches to.
        disk: the key that gets the path of a disk of the trial's own, and the size of the disk.
        disturb: runs beside the first attempt.
        damage: changes the run folder after the first attempt; the second must print each text that it returns.
        has_weights: whether the run can leave a final checkpoint.
        ray_code: with which Ray may end an attempt before it can end itself; None where it does not.
    """

    kind: str
    where: str
    num_actors: int
    code: int = 0
    faults: tuple[Mapping[str, Any], ...] = ()
    overrides: tuple[str, ...] = ()
    nodes: tuple[int, int] | None = None
    disk: tuple[str, str] | None = None
    disturb: Callable[[Attempt], None] | None = None
    damage: Callable[[Path], Sequence[str]] | None = None
    has_weights: bool = True
    ray_code: int | None = None

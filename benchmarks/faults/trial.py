"""A federation, and the fault of one run of the federation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Setting:
    """The federation of all runs of one table.

    Attributes:
        words: words of `fedvtc run`, without those for the cluster and the run folder.
        rounds: number of rounds, a multiple of `evaluate_every`.
        num_clients: number of clients.
        evaluate_every: rounds between evaluations, and between grids of samples.
    """

    words: tuple[str, ...]
    rounds: int
    num_clients: int
    evaluate_every: int

    @property
    def num_evaluations(self) -> int:
        """Number of evaluations, including the final one."""
        return self.rounds // self.evaluate_every + 1

    @property
    def num_grids(self) -> int:
        """Number of grids of samples; the last round has only the final grid."""
        return self.rounds // self.evaluate_every


class Attempt(Protocol):
    """Control of the process that a trial disturbs."""

    usual_s: Sequence[float]
    """Seconds of each step of an undisturbed run: to the first round from the creation of the run folder, then from
    round to round, then from the last round to the end of the process."""
    disk: Path
    """Mount point of the trial's own disk, if the trial has one."""

    def wait(self, *, rounds: int = 0, seconds: float = 0.0) -> bool:
        """Waits until the run folder exists, the rounds are done, and then the seconds have passed.

        Returns False if the process ended before.
        """

    def signal(self, number: int, *, to_all: bool) -> None:
        """Sends a signal to the driver, or to all processes of its group, as a terminal does."""

    def order(self, word: str) -> None:
        """Sends an order to the cluster of two nodes."""


@dataclass(frozen=True)
class Trial:
    """One disturbed run.

    Attributes:
        kind: name of the fault in `KINDS`.
        where: the drawn moment, for the table.
        num_actors: number of actors.
        code: exit code of every attempt that does not finish the run; 0 if the first attempt must finish the run.
        faults: faults for the injector; each must strike.
        overrides: overrides of the run's config.
        nodes: CPUs of the two nodes of a cluster that the run attaches to; None to start a cluster in the run.
        disk: the key that gets the path of the trial's own disk, and the size of the disk.
        disturb: function that runs beside the first attempt.
        damage: function that changes the run folder after the first attempt; the second attempt must print each
            returned text.
        has_weights: True if the run can leave a final checkpoint.
        ray_code: exit code of an attempt that Ray ends before the program does; None if Ray does not.
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

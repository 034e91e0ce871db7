"""The table of a sweep, computed from its run folders: results.csv and results.md with means over seeds."""

from dataclasses import dataclass
from pathlib import Path

from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.errors import RunFolderError
from fedvtc.reporting.comparison.formats import as_csv, as_markdown
from fedvtc.reporting.comparison.groups import Comparison, compared
from fedvtc.reporting.comparison.metrics import default_names, metrics_of
from fedvtc.reporting.comparison.sheet import Choice, Sheet, sheet_of
from fedvtc.reporting.comparison.trials import INCOMPLETE, Planned, of_sweep
from fedvtc.storage.atomic import replaced


@dataclass(frozen=True)
class Results:
    """The table of a sweep: that of `fedvtc table` without options.

    Attributes:
        name: the name of the sweep.
        table: one row for trials that differ in their seed only, in the order of the trials.
    """

    name: str
    table: Comparison

    @property
    def csv(self) -> str:
        """The content of results.csv."""
        return as_csv(self.table, self._choice(times=False))

    @property
    def markdown(self) -> str:
        """The content of results.md."""
        return f"# {self.name}\n\n{as_markdown(sheet_of(self.table, self._choice(times=False)))}"

    @property
    def sheet(self) -> Sheet:
        """The table for the terminal, with measured times."""
        return sheet_of(self.table, self._choice(times=True))

    @property
    def incomplete_runs(self) -> list[Path]:
        """Folders of finished runs with missing or damaged records; their numbers are not in the means."""
        trials = [trial for group in self.table.groups.values() for trial in group.trials]
        return [trial.folder for trial in trials if trial.status == INCOMPLETE and trial.folder is not None]

    def _choice(self, *, times: bool) -> Choice:
        target = self.table.target
        return Choice(metrics_of(default_names(target, times=times), target), counts=True)


def results(folder: SweepFolder) -> Results:
    """Reads the run folders of a sweep.

    Raises:
        RunFolderError: a run folder is damaged.
    """
    planned = [Planned(trial.name, trial.path, trial.values, folder.state(trial)) for trial in folder.sweep.trials]
    return Results(folder.sweep.name, compared(of_sweep(planned, folder.sweep.target)))


def write_results(folder: SweepFolder) -> Results:
    """Writes results.csv and results.md into the sweep folder.

    The files contain no measured times, so an interrupted and resumed sweep gets the same files as an undisturbed one.

    Raises:
        RunFolderError: a run folder is damaged, or the files cannot be written.
    """
    found = results(folder)
    for name, text in (("results.csv", found.csv), ("results.md", found.markdown)):
        try:
            with replaced(folder.path / name) as beside:
                beside.write_text(text, encoding="utf-8")
        except OSError as error:
            fix = "Check permissions and free disk space."
            raise RunFolderError(f"{folder.path / name}: cannot be written ({error.strerror}). {fix}") from None
    return found

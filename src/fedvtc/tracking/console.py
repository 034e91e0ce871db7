"""Shows a run on the terminal while it runs: a live table, or one plain line per round."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedvtc.errors import count_of
from fedvtc.learning.metrics import EVALUATED_CLIENTS, HEADLINE_METRICS
from fedvtc.reporting.lines import OUTPUT_ERRORS, is_terminal, say
from fedvtc.reporting.tables import human_bytes
from fedvtc.tracking.base import RunInfo, Tracker

ROWS_SHOWN = 12
WIDE_COLUMNS = 120
"""Narrower terminals show the classification loss only."""

LOSSES = {
    "loss": "loss/classification",
    "proto": "loss/prototype",
    "recon": "loss/reconstruction",
    "KL": "loss/kl",
    "DM": "loss/distribution_matching",
    "tune": "loss/finetune",
}
SUMMARY = {
    "generalization accuracy": "test/accuracy/mean",
    "  std over clients": "test/accuracy/std",
    "  worst client": "test/accuracy/min",
    "  worst tenth of clients": "test/accuracy/worst10",
    "  on classes held": "test/accuracy/held/mean",
    "  on classes missing": "test/accuracy/missing/mean",
    "personalised accuracy": "test/accuracy/personalised/mean",
    "worst class recall": "test/recall/worst/mean",
    "precision (macro)": "test/precision/mean",
    "recall (macro)": "test/recall/mean",
    "F1 (macro)": "test/f1/mean",
}


class PlainConsole(Tracker):
    """Prints one line per record, for logs and pipes."""

    def start(self, run: RunInfo) -> None:
        """Prints name, size and folder of the run."""
        self._run = run
        clients, rounds = count_of(len(run.backbones), "client"), count_of(run.config.run.rounds, "round")
        self._say(f"{run.name}: {clients}, {rounds}, in {run.folder}")

    def client_done(self, client: int, num_done: int, num_total: int) -> None:
        """Does nothing: a log shows no progress within a round."""

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Prints the record in one line."""
        self._say(plain_line(record, self._run.config.run.rounds))

    def note(self, text: str) -> None:
        """Prints a line for the user, between the lines of the rounds."""
        self._say(text)

    def finish(self, status: str) -> None:
        """Prints the status of a run that did not finish."""
        if status != "finished":
            self._say(f"{self._run.name}: {status}")

    def summary(self, record: Mapping[str, Any], incidents: Mapping[str, int]) -> None:
        """Prints the last evaluation, the incidents by kind, the run folder and a next command."""
        known = {label: record[key] for label, key in SUMMARY.items() if record.get(key) is not None}
        width = max(map(len, known), default=0)
        for label, value in known.items():
            self._say(f"{label:<{width}}  {value:.3f}")
        if incidents:
            counts = ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in sorted(incidents.items()))
            self._say(f"incidents: {counts}")
        self._say(f"run folder: {self._run.folder}")
        self._say(f"next: fedvtc list runs {self._run.folder.parent}")

    def _say(self, line: str) -> None:
        say(line)


class LiveConsole(PlainConsole):
    """Redraws a table of the last rounds and the progress of the current round in place.

    Args:
        console: the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._records: list[Mapping[str, Any]] = []
        self._clients = (0, 0)

    def start(self, run: RunInfo) -> None:
        """Prints name, size and folder of the run and opens the table."""
        super().start(run)
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4)
        with suppress(*OUTPUT_ERRORS):
            self._live.start()

    def client_done(self, client: int, num_done: int, num_total: int) -> None:
        """Counts the clients that have finished the current round."""
        self._clients = (num_done, num_total)

    def log(self, record: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> None:
        """Adds a row to the table."""
        self._records.append(record)
        self._clients = (0, 0)
        # A closed terminal must not end the run.
        with suppress(*OUTPUT_ERRORS):
            self._live.refresh()

    def finish(self, status: str) -> None:
        """Ends the redrawing; the last table stays on the screen."""
        with suppress(*OUTPUT_ERRORS):
            self._live.stop()
        super().finish(status)

    def _say(self, line: str) -> None:
        # Names and paths may hold square brackets, which markup would swallow.
        try:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        except OUTPUT_ERRORS:
            say(line)

    def _render(self) -> RenderableType:
        return Group(self._table(), self._progress())

    def _table(self) -> Table:
        wide = self._console.width >= WIDE_COLUMNS
        losses = {
            heading: key
            for heading, key in LOSSES.items()
            if any(key in record for record in self._records) and (wide or key == "loss/classification")
        }
        table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for heading in ("round", *HEADLINE_METRICS, *losses, "up", "down", "time"):
            table.add_column(heading, justify="right", no_wrap=True)
        for record in self._records[-ROWS_SHOWN:]:
            accuracies = [_number(record.get(key), ".3f") for key in HEADLINE_METRICS.values()]
            terms = [_number(record.get(key), ".3g") for key in losses.values()]
            traffic = [_traffic(record, way) or "-" for way in ("up", "down")]
            table.add_row(
                _round_name(record), *accuracies, *terms, *traffic, _number(record.get("time/round"), ".1f", "s")
            )
        return table

    def _progress(self) -> RenderableType:
        rounds = self._run.config.run.rounds
        num_done = self._records[-1]["round"] if self._records else self._run.resumed_round or 0
        parts = [f"round {min(num_done + 1, rounds)}/{rounds}"]
        if self._clients[1]:
            parts.append(f"clients {self._clients[0]}/{self._clients[1]} done")
        seconds = [record["time/round"] for record in self._records if record.get("time/round") is not None]
        if seconds and num_done < rounds:
            left_s = sum(seconds) / len(seconds) * (rounds - num_done)
            parts.append(f"about {_duration(left_s)} left")
        line = Table.grid(padding=(0, 2))
        line.add_row(ProgressBar(total=rounds, completed=num_done, width=20), Text(", ".join(parts)))
        return line


def make_console_tracker(plain: bool) -> PlainConsole:
    """Makes the live table if standard output is a terminal that can redraw, else plain lines.

    Args:
        plain: True makes plain lines even on a terminal; NO_COLOR and TERM=dumb have this effect too.
    """
    dumb = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return PlainConsole() if plain or dumb or not is_terminal() else LiveConsole(Console())


def plain_line(record: Mapping[str, Any], rounds: int) -> str:
    """Formats a record as one line; missing metrics are left out."""
    name = _round_name(record)
    parts = [name if name == "final" else f"round {name}/{rounds}"]
    mean, *others = ((label, record.get(key)) for label, key in HEADLINE_METRICS.items())
    if mean[1] is not None:
        known = ", ".join(f"{label} {value:.3f}" for label, value in others if value is not None)
        evaluated = f" of {count_of(record[EVALUATED_CLIENTS], 'client')}" if EVALUATED_CLIENTS in record else ""
        parts.append(f"accuracy {mean[1]:.3f}{evaluated}" + (f" ({known})" if known else ""))
    # A method with a loss of its own may report no classification term.
    loss = record.get("loss/classification", record.get("loss/train"))
    if loss is not None:
        parts.append(f"loss {loss:.3g}")
    parts.extend(f"{way} {traffic}" for way in ("up", "down") if (traffic := _traffic(record, way)))
    if record.get("time/round") is not None:
        parts.append(f"{record['time/round']:.1f} s")
    return "  ".join(parts)


def _round_name(record: Mapping[str, Any]) -> str:
    return "final" if record.get("phase") == "final" else str(record["round"])


def _traffic(record: Mapping[str, Any], way: str) -> str | None:
    """Formats the bytes of all kinds in one direction; None if the record counts none."""
    counted = [value for key, value in record.items() if key.startswith(f"bytes/{way}/")]
    return human_bytes(sum(counted)) if counted else None


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}} {unit}".rstrip()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

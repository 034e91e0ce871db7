"""One row of what the doctor says, and the table of all rows."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

State = Literal["ok", "warning", "fault"]
STYLES: dict[State, str] = {"ok": "green", "warning": "yellow", "fault": "bold red"}


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        what: the part of the environment or the file of a run.
        state: `fault` where a run would fail or the run is damaged, `warning` where it would suffer.
        found: what is so.
        fix: what would work; empty where nothing has to be done.
    """

    what: str
    state: State
    found: str
    fix: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it keeps nobody from running."""
        return self.state != "fault"


def fault_of(what: str, error: BaseException, where: str = "") -> Finding:
    """The fault that an error of fedvtc's tells: what is wrong, and after its first sentence what would work.

    Args:
        what: the row's name.
        error: its text is `WHERE: what is wrong. What would work.`
        where: the start of the text that the row's name says already.
    """
    found, _, fix = str(error).removeprefix(f"{where}: ").partition(". ")
    return Finding(what, "fault", found.rstrip("."), fix)


def safely(what: str, check: Callable[[], Iterable[Finding]], state: State = "warning") -> list[Finding]:
    """What a check found; one that breaks is a finding too, for the doctor must not be a patient.

    Args:
        what: the name of that finding's row.
        check: yields what it finds.
        state: of that finding.
    """
    findings = []
    try:
        # One by one, so that what was found before it broke is kept.
        for finding in check():
            findings.append(finding)
    except Exception as error:
        text = next(iter(str(error).strip().splitlines()), "")
        reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
        findings.append(Finding(what, state, f"could not be checked ({reason})"))
    return findings


def findings_table(findings: Iterable[Finding]) -> Table:
    """A row per finding, and how many are not well."""
    findings = list(findings)
    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left", caption_style="bold")
    table.add_column("check", no_wrap=True)
    table.add_column("state")
    table.add_column("found", overflow="fold", ratio=3)
    table.add_column("what would work", overflow="fold", ratio=2)
    for finding in findings:
        state = Text(finding.state, STYLES[finding.state])
        table.add_row(Text(finding.what), state, Text(finding.found), Text(finding.fix))
    counts = Counter(finding.state for finding in findings)
    counted = [f"{counts[state]} {state}{'s' * (counts[state] > 1)}" for state in ("fault", "warning") if counts[state]]
    table.caption = ", ".join(counted) if counted else "All is well."
    return table

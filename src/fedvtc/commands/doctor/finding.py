"""The result of one check, and the table of all results."""

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
    """The result of one check: one row of the table.

    Attributes:
        what: the part of the environment, or the file of the run.
        state: `fault` if runs would fail or the run is damaged, `warning` if runs would be slow or short of something.
        found: the result in words.
        fix: the next step for the user; empty if there is nothing to do.
    """

    what: str
    state: State
    found: str
    fix: str = ""

    @property
    def is_good(self) -> bool:
        """True unless the finding is a fault."""
        return self.state != "fault"


def fault_of(what: str, error: BaseException, where: str = "") -> Finding:
    """Turns an error of fedvtc into a fault: the first sentence is the finding, the rest is the fix.

    Args:
        what: name of the row.
        error: an error with the text `WHERE: what is wrong. What to do.`
        where: start of the text to leave out, because the name of the row says it.
    """
    found, _, fix = str(error).removeprefix(f"{where}: ").partition(". ")
    return Finding(what, "fault", found.rstrip("."), fix)


def safely(what: str, check: Callable[[], Iterable[Finding]], state: State = "warning") -> list[Finding]:
    """Runs a check; an exception becomes a finding, after the findings that the check yielded before.

    Args:
        what: name of the row for an exception.
        check: yields findings.
        state: state of the finding for an exception.
    """
    findings = []
    try:
        # One by one: `list(check())` would lose the findings before an exception.
        for finding in check():
            findings.append(finding)
    except Exception as error:
        text = next(iter(str(error).strip().splitlines()), "")
        reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
        findings.append(Finding(what, state, f"the check failed ({reason})"))
    return findings


def findings_table(findings: Iterable[Finding]) -> Table:
    """Returns a table with a row per finding; the caption counts faults and warnings."""
    findings = list(findings)
    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left", caption_style="bold")
    table.add_column("check", no_wrap=True)
    table.add_column("state")
    table.add_column("found", overflow="fold", ratio=3)
    table.add_column("what to do", overflow="fold", ratio=2)
    for finding in findings:
        state = Text(finding.state, STYLES[finding.state])
        table.add_row(Text(finding.what), state, Text(finding.found), Text(finding.fix))
    counts = Counter(finding.state for finding in findings)
    counted = [f"{counts[state]} {state}{'s' * (counts[state] > 1)}" for state in ("fault", "warning") if counts[state]]
    table.caption = ", ".join(counted) if counted else "No problems found."
    return table

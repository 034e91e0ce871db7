"""Measures the privacy of runs before a report shows them."""

from collections.abc import Sequence
from pathlib import Path

from fedvtc.commands.privacy.files import measure_into
from fedvtc.errors import UserError
from fedvtc.reporting.lines import complain, say
from fedvtc.storage.privacy import MEASURES_FILE, PRIVACY_FOLDER, has_measures


def measure_privacy(runs: Sequence[Path], *, trusted: bool = False) -> list[str]:
    """Measures every run without measures of privacy as `fedvtc privacy` does, and prints a line for each.

    Args:
        runs: the run folders.
        trusted: open a run even if its folder belongs to another user.

    Returns:
        A line for each run that cannot be measured.
    """
    missing = [run for run in runs if not has_measures(run)]
    problems = []
    for number, run in enumerate(missing, start=1):
        say(f"{run}: measuring privacy ({number} of {len(missing)})")
        output = run / PRIVACY_FOLDER
        fix = f"Make {run} writable, and remove a {PRIVACY_FOLDER}/ without {MEASURES_FILE}."
        try:
            measure_into(output, run, trusted=trusted, fix=fix)
        except UserError as error:
            problems.append(f"privacy is not measured: {' '.join(str(error).splitlines())}")
            complain(problems[-1])
    return problems

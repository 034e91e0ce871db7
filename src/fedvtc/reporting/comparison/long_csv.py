"""The long CSV file: a row a trial. A table made from the file equals the table made from the run folders.

Columns without `/` are the trial, its settings, its status and the target; columns with `/` are numbers in full, and
empty where a trial has none.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from fedvtc.errors import UserError
from fedvtc.reporting.comparison.groups import STATUS
from fedvtc.reporting.comparison.trials import TrialRow, Trials
from fedvtc.reporting.run_facts import METHOD, SEED

TRIAL, TARGET = "trial", "target"
OWN = (TRIAL, STATUS, TARGET)
FIX = "Write the file with `fedvtc table FOLDER --long`."


def as_long_csv(trials: Trials, keys: Sequence[str] = (), names: Sequence[str] = ()) -> str:
    """Renders trials as CSV, one row a trial.

    Args:
        trials: the trials.
        keys: further settings to write beside those that differ.
        names: names of the numbers to write; empty writes every number.
    """
    keys = list(dict.fromkeys([METHOD, *trials.keys, *keys, SEED]))
    names = names or list(dict.fromkeys(name for row in trials.rows for name in row.numbers))
    target = [] if trials.target is None else [TARGET]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([TRIAL, *keys, STATUS, *target, *names])
    for row in trials.rows:
        values = [row.values.get(key, "") for key in keys]
        numbers = [row.numbers.get(name, "") for name in names]
        writer.writerow([row.name, *values, row.status, *([trials.target] if target else []), *numbers])
    return text.getvalue()


def read_long_csv(file: Path) -> Trials:
    """Reads a long CSV file.

    Raises:
        UserError: the file cannot be read or is not a long CSV file.
    """
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            header, *lines = csv.reader(opened, strict=True)
        if TRIAL not in header or STATUS not in header:
            raise ValueError(f"no column {STATUS if TRIAL in header else TRIAL}")
        if len(set(header)) < len(header):
            raise ValueError("two columns have the same name")
        for number, line in enumerate(lines, start=2):
            if len(line) != len(header):
                raise ValueError(f"row {number} has {len(line)} cells, the header {len(header)}")
        cells = [dict(zip(header, line, strict=True)) for line in lines]
        targets = {float(cell[TARGET]) for cell in cells if cell.get(TARGET)}
        if len(targets) > 1:
            raise ValueError("several targets")
        rows = tuple(_row(cell) for cell in cells)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}). Name a file that you may read.") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{file}: not a long CSV file ({error}). {FIX}") from None
    keys = [name for name in header if "/" not in name and name not in OWN]
    differing = [key for key in keys if len({row.values.get(key, "") for row in rows}) > 1]
    return Trials(rows, tuple(differing), targets.pop() if targets else None)


def _row(cells: dict[str, str]) -> TrialRow:
    values = {key: text for key, text in cells.items() if "/" not in key and key not in OWN and text}
    numbers = {name: float(text) for name, text in cells.items() if "/" in name and text}
    return TrialRow(cells[TRIAL], values, cells[STATUS], numbers)

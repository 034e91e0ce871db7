"""Finds runs whose numbers up to the target cannot be compared, because the runs have different evaluations."""

from collections.abc import Iterator, Mapping, Sequence

from fedvtc.errors import UserError
from fedvtc.reporting.comparison.groups import Comparison
from fedvtc.reporting.comparison.pairing import Place
from fedvtc.reporting.comparison.trials import TrialRow
from fedvtc.reporting.comparison.values import EVALUATIONS
from fedvtc.reporting.run_numbers import TARGET_BYTES, TARGET_ROUNDS, TARGET_SECONDS

TO_TARGET = (TARGET_ROUNDS, TARGET_BYTES, TARGET_SECONDS)
"""Numbers up to the first evaluation that reaches the target."""


def check_evaluations(table: Comparison, names: Sequence[str], bases: Mapping[Place, Place]) -> None:
    """Refuses a mean or a difference of numbers up to the target over runs that have different evaluations.

    Args:
        table: the table.
        names: names of the numbers of the table.
        bases: the cell of the baseline for each cell that has one.

    Raises:
        UserError: runs of a cell, or of a cell and its cell of the baseline, have different evaluations.
    """
    name = next((name for name in names if name in TO_TARGET), None)
    if name is None:
        return
    for place in (Place(*place) for place in table.groups):
        places = [place, *([bases[place]] if place in bases else [])]
        trials = [trial for other in places for trial in table.group(*other).trials]
        for key, texts in _differing(trials):
            mix = "row would mix" if len(places) == 1 else "difference would compare"
            what = f"one {mix} runs of different {key} ({', '.join(texts[:3])})"
            fix = f"Choose runs with --where {key}={texts[0]}, or numbers without target/* with --metric."
            raise UserError(f"{place.text or 'the table'}: {name}: {what}. {fix}")


def evaluation_notes(table: Comparison, names: Sequence[str]) -> Iterator[str]:
    """Yields a sentence for each key of evaluations that differs between runs with a number up to the target."""
    if not any(name in TO_TARGET for name in names):
        return
    for key, texts in _differing([trial for group in table.groups.values() for trial in group.trials]):
        some = ", ".join(texts[:3])
        yield f"Runs differ in {key} ({some}): compare numbers up to the target between runs of one value only."


def _differing(trials: Sequence[TrialRow]) -> Iterator[tuple[str, list[str]]]:
    """Yields each key of evaluations with several values, and the values; a run without the value has no say."""
    for key in EVALUATIONS:
        texts = list(dict.fromkeys(trial.values[key] for trial in trials if trial.numbers and key in trial.values))
        if len(texts) > 1:
            yield key, texts

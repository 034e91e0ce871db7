"""Finds the cell of the baseline that the differences of a cell refer to."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from fedvtc.config.problems import did_you_mean
from fedvtc.errors import UserError
from fedvtc.reporting.comparison.groups import Comparison, Texts
from fedvtc.reporting.seeds import Difference, paired_difference

METHOD_KEYS = "method."
"""Start of the keys of a method; methods have different keys."""


class Place(NamedTuple):
    """The row and the column of a cell."""

    row: Texts
    column: Texts

    @property
    def settings(self) -> Texts:
        """The values of the cell that the baseline must have too: all but the first of the row."""
        return (*self.row[1:], *self.column)

    @property
    def text(self) -> str:
        """The values of the cell, for messages."""
        return " ".join(filter(None, [*self.row, *self.column]))


def baseline_places(table: Comparison, baseline: str | None) -> dict[Place, Place]:
    """Returns the cell of the baseline for each cell that has one; cells without finished runs have none.

    The cell of the baseline has `baseline` as first value of its row, and otherwise equal values. If no cell has equal
    values, keys of a method count only where both cells have a value.

    Args:
        table: the table.
        baseline: a value of the first row key; None returns no cells.

    Raises:
        UserError: no row has the value, several cells of the baseline fit a cell, or keys of a method fit no cell.
    """
    if baseline is None:
        return {}
    known = dict.fromkeys(row[0] for row in table.rows if row)
    if baseline not in known:
        raise UserError(f"--compare {baseline}: no row has this text. {did_you_mean(baseline, known)}")
    places = [Place(*place) for place, group in table.groups.items() if group.num_finished]
    bases = [place for place in places if place.row[0] == baseline]
    others = [place for place in places if place.row[0] != baseline]
    keys = (*table.row_keys[1:], *table.column_keys)
    found = {place: base for place in others if (base := _base(keys, place, bases, baseline)) is not None}
    if bases and others and not found:
        _refuse(baseline, others[0], bases, _differing(keys, others[0], bases[0]))
    return found


def difference(table: Comparison, place: Place, name: str, bases: Mapping[Place, Place]) -> Difference | None:
    """Returns the difference of a cell from its cell of the baseline; None for cells without a common seed."""
    if place not in bases:
        return None
    return paired_difference(table.group(*place).numbers(name), table.group(*bases[place]).numbers(name))


def _base(keys: Texts, place: Place, bases: Sequence[Place], baseline: str) -> Place | None:
    """Returns the cell of the baseline that fits a cell; None if a key that is no key of a method fits no cell."""
    equal = [base for base in bases if base.settings == place.settings]
    if equal:
        return equal[0]
    near = [base for base in bases if all(key.startswith(METHOD_KEYS) for key in _differing(keys, place, base))]
    fitting = [base for base in near if not _contrary(keys, place, base)]
    if len(fitting) > 1:
        _refuse(baseline, place, fitting, _differing(keys, fitting[0], fitting[1]))
    if near and not fitting:
        _refuse(baseline, place, near, _contrary(keys, place, near[0]))
    return fitting[0] if fitting else None


def _differing(keys: Texts, place: Place, base: Place) -> dict[str, int]:
    """Returns the keys whose values differ, and the number of each value."""
    values = zip(keys, place.settings, base.settings, strict=True)
    return {key: number for number, (key, mine, theirs) in enumerate(values) if mine != theirs}


def _contrary(keys: Texts, place: Place, base: Place) -> dict[str, int]:
    """Returns the keys of which both cells have a value, and the values differ."""
    found = _differing(keys, place, base)
    return {key: number for key, number in found.items() if place.settings[number] and base.settings[number]}


def _refuse(baseline: str, place: Place, bases: Sequence[Place], differing: Mapping[str, int]) -> NoReturn:
    """Raises a UserError that names the first of some keys."""
    key, number = next(iter(differing.items()))
    mine, *theirs = (one.settings[number] or "(none)" for one in (place, *bases))
    what = f"{place.text} has {key} {mine}, but {baseline} has {', '.join(dict.fromkeys(theirs))}"
    raise UserError(
        f"--compare {baseline}: {what}. Compare with another row, or name only runs with one value of {key}."
    )

"""The cells of a table, without the marks of a format: means with deviations, best and second, differences, ranks."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from fedvtc.errors import count_of
from fedvtc.reporting.comparison.evaluations import check_evaluations, evaluation_notes
from fedvtc.reporting.comparison.groups import Comparison, Group, Texts
from fedvtc.reporting.comparison.metrics import Metric
from fedvtc.reporting.comparison.pairing import Place, baseline_places, difference
from fedvtc.reporting.run_facts import METHOD
from fedvtc.reporting.seeds import LEVEL, Difference, badness, mean_and_std, mean_ranks

MISSING = "-"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        main: the mean, or the text of a cell without numbers.
        spread: the standard deviation; empty without.
        rest: a text behind the numbers, such as the number of runs.
        mark: place in the column.
    """

    main: str
    spread: str = ""
    rest: str = ""
    mark: Literal["", "best", "second"] = ""


@dataclass(frozen=True)
class Choice:
    """The columns of a table beside its labels.

    Attributes:
        metrics: the metrics, in order.
        baseline: the value of the first row key that differences refer to; None shows no differences.
        ranks: True adds the mean rank by the first metric.
        counts: True adds the numbers of finished and of all trials.
        order: name of the metric by which rows are sorted, the best row first; None keeps the order of the trials.
        headings: texts that replace the names of settings in headings.
    """

    metrics: Sequence[Metric]
    baseline: str | None = None
    ranks: bool = False
    counts: bool = False
    order: str | None = None
    headings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sheet:
    """A table as cells.

    Attributes:
        labels: headings of the leading columns.
        columns: headings of the other columns: of the group of columns, and of the column itself.
        rows: the texts of the leading columns, and the cells of the others.
        notes: sentences about the table; ` +- ` stands for the sign.
    """

    labels: Texts
    columns: Sequence[tuple[str, str]]
    rows: Sequence[tuple[Texts, Sequence[Cell]]]
    notes: Sequence[str] = field(default_factory=tuple)


def sheet_of(table: Comparison, choice: Choice) -> Sheet:
    """Returns the cells of a table.

    Raises:
        UserError: the baseline fits no row or several rows, or runs with a number up to the target have different
            evaluations.
    """
    rows = sorted_rows(table, choice)
    bases = checked_bases(table, choice)
    columns: list[tuple[str, str]] = []
    cells: list[list[Cell]] = []
    several = len(choice.metrics) > 1 or choice.counts
    for column in table.columns:
        above = column_text(table.column_keys, column, choice.headings)
        if choice.counts:
            columns.append((above, "finished"))
            cells.append([Cell(_finished(table.group(row, column))) for row in rows])
        for metric in choice.metrics:
            groups = [table.group(row, column) for row in rows]
            heading = (above, metric.heading) if several or not above else ("", above)
            columns.append(heading)
            cells.append(_marked([_cell(group, metric, table, choice) for group in groups], groups, metric))
            if choice.baseline is not None:
                columns.append((heading[0], f"{heading[1]} vs {choice.baseline}"))
                found = [difference(table, Place(row, column), metric.name, bases) for row in rows]
                cells.append([_difference_cell(one, metric) for one in found])
    if choice.ranks:
        ranks, _ = ranks_of(table, choice.metrics[0])
        columns.append(("", "rank"))
        cells.append([Cell(f"{ranks[row]:.2f}" if row in ranks else MISSING) for row in rows])
    body = [(row, [column[number] for column in cells]) for number, row in enumerate(rows)]
    labels = tuple(choice.headings.get(key, key) for key in table.row_keys)
    return Sheet(labels, columns, body, _notes(table, choice, cells))


def checked_bases(table: Comparison, choice: Choice) -> Mapping[Place, Place]:
    """Returns the cell of the baseline for each cell that has one; empty without a baseline.

    Raises:
        UserError: the baseline fits no row or several rows, or runs with a number up to the target have different
            evaluations.
    """
    bases = baseline_places(table, choice.baseline)
    check_evaluations(table, [metric.name for metric in choice.metrics], bases)
    return bases


def sorted_rows(table: Comparison, choice: Choice) -> list[Texts]:
    """Returns the rows in the order of the table; with `choice.order` the best row of the first column first."""
    if choice.order is None:
        return list(table.rows)
    metric = Metric(choice.order, choice.order)

    def key(row: Texts) -> tuple[bool, float]:
        mean, _ = mean_and_std(list(table.group(row, table.columns[0]).numbers(metric.name).values()))
        return mean is None, 0.0 if mean is None else badness(mean, higher_is_better=metric.higher_is_better)

    return sorted(table.rows, key=key)


def ranks_of(table: Comparison, metric: Metric) -> tuple[dict[Texts, float], int]:
    """Returns the mean rank of each row, and the number of blocks that the mean is over.

    A block is a seed of a column; only blocks count in which every row with numbers has a number.
    """
    numbers = {
        row: {
            (column, seed): value
            for column in table.columns
            for seed, value in table.group(row, column).numbers(metric.name).items()
        }
        for row in table.rows
    }
    ranked = {row: own for row, own in numbers.items() if own}
    blocks = [block for block in next(iter(ranked.values()), {}) if all(block in own for own in ranked.values())]
    if not blocks:
        return {}, 0
    values = [[own[block] for own in ranked.values()] for block in blocks]
    ranks = mean_ranks(values, higher_is_better=metric.higher_is_better)
    return dict(zip(ranked, ranks, strict=True)), len(blocks)


def column_text(keys: Texts, values: Texts, headings: Mapping[str, str] = MappingProxyType({})) -> str:
    """Returns the heading of a column, such as `alpha 0.1`; a method stands for itself."""
    parts = []
    for key, value in zip(keys, values, strict=True):
        name = headings.get(key, "" if key == METHOD else key.rpartition(".")[2])
        parts.append(f"{name} {value}".strip())
    return ", ".join(parts)


def _finished(group: Group) -> str:
    stopped = f", {group.num_stopped} stopped" if group.num_stopped else ""
    return f"{group.num_finished}/{len(group.trials)}{stopped}"


def _cell(group: Group, metric: Metric, table: Comparison, choice: Choice) -> Cell:
    values = list(group.numbers(metric.name).values())
    mean, std = mean_and_std(values)
    if mean is None:
        return Cell(MISSING)
    spread = metric.text(std) if std is not None and metric.shows_spread else ""
    rest = ""
    if len(values) < group.num_finished:
        # Runs that never reach the target are not in the means.
        rest = f"({len(values)}/{group.num_finished})"
    elif not choice.counts and len(values) < _most_finished(table):
        rest = f"(n={len(values)})"
    return Cell(metric.text(mean), spread, rest)


def _marked(cells: Sequence[Cell], groups: Sequence[Group], metric: Metric) -> list[Cell]:
    """Marks the best and the second cells of a column; cells with equal text share a mark."""
    badnesses: dict[str, float] = {}
    for cell, group in zip(cells, groups, strict=True):
        values = group.numbers(metric.name)
        # A mean over some of the runs, such as those that reached the target, does not compete.
        if values and len(values) == group.num_finished:
            mean = mean_and_std(list(values.values()))[0] or 0.0
            badnesses.setdefault(cell.main, badness(mean, higher_is_better=metric.higher_is_better))
    order = sorted((text for text, value in badnesses.items() if value < math.inf), key=badnesses.__getitem__)
    if len(order) < 2:
        return list(cells)
    marks: Mapping[str, Literal["best", "second"]] = {order[0]: "best", order[1]: "second"}
    return [
        replace(cell, mark=marks.get(cell.main, "")) if len(group.numbers(metric.name)) == group.num_finished else cell
        for cell, group in zip(cells, groups, strict=True)
    ]


def _difference_cell(found: Difference | None, metric: Metric) -> Cell:
    if found is None:
        return Cell(MISSING)
    mean = metric.text(found.mean, signed=True)
    if found.low is None or found.high is None:
        return Cell(mean, rest=f"(n={found.num_pairs})")
    ends = f"[{metric.text(found.low, signed=True)}, {metric.text(found.high, signed=True)}]"
    return Cell(f"{mean} {ends}", rest=f"(n={found.num_pairs})")


def _most_finished(table: Comparison) -> int:
    return max(group.num_finished for group in table.groups.values())


def _notes(table: Comparison, choice: Choice, columns: Sequence[Sequence[Cell]]) -> tuple[str, ...]:
    return tuple(_sentences(table, choice, {cell.mark for column in columns for cell in column}))


def _sentences(table: Comparison, choice: Choice, marks: set[str]) -> Iterator[str]:
    about = f"{choice.metrics[0].name}, mean" if len(choice.metrics) == 1 else "Mean"
    count = "" if choice.counts else f", n = {_most_finished(table)}"
    yield f"{about} +- sample standard deviation over seeds of the runs that have finished{count}."
    if any(metric.is_percent for metric in choice.metrics):
        yield "Accuracy and other shares in %."
    if "best" in marks:
        yield "In each column the best value is bold, the second underlined."
    if choice.baseline is not None:
        interval = f"{LEVEL * 100:g} % confidence interval (Student's t)"
        yield f"vs {choice.baseline}: mean difference over n seeds, paired by seed, with its {interval}."
    if choice.ranks:
        _, num_blocks = ranks_of(table, choice.metrics[0])
        blocks = f"{count_of(num_blocks, 'pair')} of column and seed"
        yield f"rank: mean rank by {choice.metrics[0].heading} over {blocks}, 1 is the best."
    yield from evaluation_notes(table, [metric.name for metric in choice.metrics])

"""Writes a table as Markdown, LaTeX, HTML or CSV. Labels are escaped: no label becomes markup."""

import csv
import html
import io
import re
from collections.abc import Callable
from itertools import groupby
from typing import Any

from fedvtc.reporting.comparison.groups import Comparison
from fedvtc.reporting.comparison.pairing import Place, difference
from fedvtc.reporting.comparison.sheet import (
    Cell,
    Choice,
    Sheet,
    checked_bases,
    column_text,
    ranks_of,
    sorted_rows,
)
from fedvtc.reporting.seeds import mean_and_std

_LATEX = {letter: f"\\{letter}" for letter in "&%$#_{}"}
_LATEX |= {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
_LATEX |= {"<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}"}
# After the end of a row, LaTeX would take a star or a bracket as an argument.
_LATEX |= {letter: f"{{{letter}}}" for letter in "[]*"}
_MARKDOWN = re.compile(r"[\\`*<>\[\]|~$&#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def as_markdown(sheet: Sheet) -> str:
    """Renders a table as Markdown: the notes, then the table."""
    headings = [*sheet.labels, *(": ".join(filter(None, column)) for column in sheet.columns)]
    lines = [[_markdown(text) for text in headings], ["---"] * len(headings)]
    marks = {"": "{}", "best": "**{}**", "second": "<ins>{}</ins>"}
    for labels, cells in sheet.rows:
        texts = [joined(cell, " +- ", _markdown, marks) for cell in cells]
        lines.append([*map(_markdown, labels), *texts])
    return "\n".join(
        [*(_markdown(note) for note in sheet.notes), "", *(f"| {' | '.join(line)} |" for line in lines), ""]
    )


def as_latex(sheet: Sheet) -> str:
    """Renders a table as a LaTeX `tabular` with the rules of the package booktabs; the notes are comments."""
    marks = {"": "{}", "best": "\\textbf{{{}}}", "second": "\\underline{{{}}}"}
    lines = [f"% {' '.join(note.split())}" for note in sheet.notes]
    lines += [
        "% Needs \\usepackage{booktabs}.",
        f"\\begin{{tabular}}{{{'l' * len(sheet.labels)}{'r' * len(sheet.columns)}}}",
    ]
    lines.append("\\toprule")
    if any(above for above, _ in sheet.columns):
        spans, rules, column = [""] * len(sheet.labels), [], len(sheet.labels) + 1
        for above, inner in groupby(sheet.columns, key=lambda heading: heading[0]):
            num = len(list(inner))
            spans.append(f"\\multicolumn{{{num}}}{{c}}{{{_latex(above)}}}" if above else " & ".join([""] * num))
            rules += [f"\\cmidrule(lr){{{column}-{column + num - 1}}}"] if above else []
            column += num
        lines += [f"{' & '.join(spans)} \\\\", "".join(rules)]
    headings = [*sheet.labels, *(below for _, below in sheet.columns)]
    lines += [f"{' & '.join(map(_latex, headings))} \\\\", "\\midrule"]
    for labels, cells in sheet.rows:
        texts = [joined(cell, " $\\pm$ ", _latex_numbers, marks) for cell in cells]
        lines.append(f"{' & '.join([*map(_latex, labels), *texts])} \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def as_html(sheet: Sheet) -> str:
    """Renders a table as an HTML element with the notes as caption, in ASCII."""
    marks = {"": "{}", "best": "<strong>{}</strong>", "second": "<u>{}</u>"}
    notes = " ".join(sheet.notes).replace(" +- ", " \u00b1 ")
    lines = ["<table>", f"<caption>{_html(notes)}</caption>", "<thead>"]
    if any(above for above, _ in sheet.columns):
        spans = [f'<th scope="col" rowspan="2">{_html(label)}</th>' for label in sheet.labels]
        for above, inner in groupby(sheet.columns, key=lambda heading: heading[0]):
            spans.append(f'<th scope="colgroup" colspan="{len(list(inner))}">{_html(above)}</th>')
        lines.append(f"<tr>{''.join(spans)}</tr>")
        headings = [below for _, below in sheet.columns]
    else:
        headings = [*sheet.labels, *(below for _, below in sheet.columns)]
    names = "".join(f'<th scope="col">{_html(text)}</th>' for text in headings)
    lines += [f"<tr>{names}</tr>", "</thead>", "<tbody>"]
    for labels, cells in sheet.rows:
        heads = "".join(f'<th scope="row">{_html(label)}</th>' for label in labels)
        texts = "".join(f"<td>{joined(cell, ' &plusmn; ', _html, marks)}</td>" for cell in cells)
        lines.append(f"<tr>{heads}{texts}</tr>")
    return "\n".join([*lines, "</tbody>", "</table>", ""])


def as_csv(comparison: Comparison, choice: Choice) -> str:
    """Renders a table as CSV: numbers with all digits, empty cells for missing numbers."""
    bases = checked_bases(comparison, choice)
    ranks, _ = ranks_of(comparison, choice.metrics[0]) if choice.ranks else ({}, 0)
    ends = ["", "/std"] + (
        [] if choice.baseline is None else [f"/difference{end}" for end in ("", "/low", "/high", "/n")]
    )
    header = list(comparison.row_keys)
    for column in comparison.columns:
        above = column_text(comparison.column_keys, column)
        names = ["trials", "finished", "stopped_early"]
        names += [f"{metric.name}{end}" for metric in choice.metrics for end in ends]
        header += [f"{above}: {name}" if above else name for name in names]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*header, *(["rank"] if choice.ranks else [])])
    for row in sorted_rows(comparison, choice):
        cells: list[Any] = []
        for column in comparison.columns:
            group = comparison.group(row, column)
            cells += [len(group.trials), group.num_finished, group.num_stopped]
            for metric in choice.metrics:
                cells += mean_and_std(list(group.numbers(metric.name).values()))
                if choice.baseline is not None:
                    found = difference(comparison, Place(row, column), metric.name, bases)
                    cells += [found.mean, found.low, found.high, found.num_pairs] if found else [None] * 4
        cells += [ranks.get(row)] if choice.ranks else []
        writer.writerow([*row, *("" if cell is None else cell for cell in cells)])
    return text.getvalue()


def joined(cell: Cell, sign: str, escape: Callable[[str], str], marks: dict[str, str]) -> str:
    """Returns the text of a cell.

    Args:
        cell: the cell.
        sign: text between the mean and the standard deviation.
        escape: escapes a text for the format.
        marks: for each mark, a format string that puts the mark around the numbers; without one, no mark is shown.
    """
    numbers = sign.join(map(escape, filter(None, (cell.main, cell.spread))))
    marked = marks.get(cell.mark, "{}").format(numbers)
    return f"{marked} {escape(cell.rest)}" if cell.rest else marked


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(lambda match: f"\\{match[0]}", " ".join(text.split()))


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def _latex_numbers(text: str) -> str:
    # A hyphen is no minus sign.
    return re.sub(r"(?<!\w)[+-](?=\d)", r"$\g<0>$", _latex(text))


def _html(text: str) -> str:
    escaped = html.escape(" ".join(text.split()))
    return escaped.encode("ascii", "xmlcharrefreplace").decode()

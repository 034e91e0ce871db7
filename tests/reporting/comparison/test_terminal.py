"""Tables on the terminal: no number is cut at any width, and a file gets one table."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fedvtc.reporting.comparison.sheet import Cell, Sheet
from fedvtc.reporting.comparison.terminal import print_sheet

cells = st.builds(
    Cell, st.floats(0, 1).map("{:.4f}".format), st.sampled_from(["", "0.0123"]), st.sampled_from(["", "(n=2)"])
)


@st.composite
def sheets(draw):
    num_columns = draw(st.integers(1, 9))
    columns = [(draw(st.sampled_from(["", "alpha 0.1"])), f"metric{number}") for number in range(num_columns)]
    names = draw(st.lists(st.text("abcdef", min_size=1, max_size=12), min_size=1, max_size=4, unique=True))
    return Sheet(
        ("method",),
        columns,
        [((name,), draw(st.lists(cells, min_size=num_columns, max_size=num_columns))) for name in names],
        ("A note.",),
    )


def printed(sheet, width, *, is_terminal):
    file = io.StringIO()
    print_sheet(sheet, Console(file=file, width=width), is_terminal=is_terminal)
    return file.getvalue()


def numbers(sheet):
    """The texts of all cells, one row of the table after another."""
    for _, row in sheet.rows:
        yield [" ".join(filter(None, [" +- ".join(filter(None, [cell.main, cell.spread])), cell.rest])) for cell in row]


@given(sheet=sheets(), width=st.integers(60, 160))
def test_columns_that_do_not_fit_stand_below_with_the_labels_again(sheet, width):
    lines = printed(sheet, width, is_terminal=True).splitlines()
    assert max(map(len, lines)) <= width
    blocks = [block.splitlines()[-len(sheet.rows) :] for block in "\n".join(lines[:-1]).split("\n\n")]
    for number, ((label,), _) in enumerate(sheet.rows):
        found = [block[number].split() for block in blocks]
        assert [words[0] for words in found] == [label] * len(blocks)
        texts = " ".join(" ".join(words[1:]) for words in found)
        assert texts == " ".join(list(numbers(sheet))[number])


@given(sheet=sheets())
def test_a_file_gets_one_table_whatever_its_width(sheet):
    *lines, note = printed(sheet, 60, is_terminal=False).splitlines()
    assert note == "A note."
    assert [line.split()[1:] for line in lines[-len(sheet.rows) :]] == [" ".join(row).split() for row in numbers(sheet)]
    assert "metric0" in lines[0] + lines[1]

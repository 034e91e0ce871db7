import io

import numpy as np
import pytest
from rich.console import Console

from fedvtc.reporting.tables import class_table, human_bytes, human_count


def shown(table, width=140):
    screen = io.StringIO()
    Console(file=screen, width=width, color_system=None).print(table)
    return screen.getvalue()


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (2.5e9, "2.5 GB"),
        (5e18, "5000.0 PB"),
    ],
)
def test_bytes_are_formatted_in_decimal_units(num_bytes, text):
    assert human_bytes(num_bytes) == text


@pytest.mark.parametrize(("num", "text"), [(12, "12"), (12_300, "12.3 k"), (11_700_000, "11.7 M")])
def test_counts_are_formatted_in_thousands(num, text):
    assert human_count(num) == text


def test_few_classes_have_a_column_each():
    text = shown(class_table(np.array([[12, 0, 3], [0, 7, 0]]), ["cat", "[red]", "dog"], ["cnn", "vit"]))
    header, *rows = [line.replace("\u2502", " ").replace("\u2503", " ").split() for line in text.splitlines()]
    cells = [row for row in rows if row and row[0] in ("client", "0", "1")]
    assert header == ["Training", "images", "by", "client"]
    assert cells == [
        ["client", "backbone", "images", "classes", "cat", "[red]", "dog"],
        ["0", "cnn", "15", "2", "12", ".", "3"],
        ["1", "vit", "7", "1", ".", "7", "."],
    ]


def test_many_classes_are_cut_to_the_largest():
    counts_KC = np.zeros((2, 100), dtype=int)
    counts_KC[0, [3, 50, 7, 99, 20, 21]] = [10, 40, 30, 20, 1, 1]
    counts_KC[1, 5] = 9
    text = shown(class_table(counts_KC, [f"c{label}" for label in range(100)], ["cnn", "vit"]))
    assert "c50: 40, c7: 30, c99: 20, c3: 10, 2 more" in text
    assert "c5: 9 " in text


@pytest.mark.parametrize("width", [52, 64, 65, 80])
def test_no_word_and_no_number_is_cut_on_a_narrow_terminal(width):
    counts_KC = np.array([[102, 0, 3, 1], [0, 7, 0, 2]])
    table = class_table(counts_KC, ["cat", "[red]", "dog", "ox"], ["cnn_2x16", "vit"], max_width=width)
    words = shown(table, width).replace("\u2502", " ").replace("\u2503", " ").split()
    assert {"102", "client", "backbone", "images", "classes", "cnn_2x16"} <= {word.strip(",:") for word in words}
    assert "\u2026" not in "".join(words)
    # A column for each class takes 65 columns.
    assert ("largest" in words) == (width < 65)


def test_many_clients_are_cut_and_the_others_are_counted():
    counts_KC = np.full((45, 2), 3)
    text = shown(class_table(counts_KC, ["a", "b"], ["cnn"] * 45))
    assert "and 5 more clients with 30 images" in text
    assert text.count("cnn") == 40

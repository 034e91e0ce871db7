"""`fedvtc table`: the numbers, the marks, the formats, and the long CSV file that gives the same table again."""

import csv
import html.parser
import io
import json
import re
import shutil
import subprocess

import pytest
import yaml
from markdown_it import MarkdownIt

from fedvtc.commands.main import main
from fedvtc.reporting.comparison.metrics import metrics_of

ACCURACY = "test/accuracy/mean"
WILD = "R&D_50%|<b>$x$*#{~^\\}"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, write_run):
    """A sweep folder with two methods, two degrees of skew and two seeds; one trial has not started."""
    folder = tmp_path_factory.mktemp("sweeps") / "mine"
    scores = {
        ("Alone", 0.1): (0.3, 0.5),
        (WILD, 0.1): (0.5, 0.74),
        ("Alone", 1.0): (0.6, 0.65),
        (WILD, 1.0): (0.7,),
    }
    trials = {}
    for (label, alpha), accuracies in scores.items():
        for seed in (0, 1):
            name = f"{'alone' if label == 'Alone' else 'ours'}-{alpha}-{seed}"
            trials[name] = {"values": {"label": label, "partition.alpha": alpha, "run.seed": seed}, "run": []}
            if seed < len(accuracies):
                overrides = ["run.rounds=1", f"run.seed={seed}", f"partition.alpha={alpha}", "method.name=local"]
                final = {ACCURACY: accuracies[seed], "test/accuracy/min": accuracies[seed] / 3}
                records = [
                    {"round": 1, "phase": "round", ACCURACY: 0.6, "bytes/up/a": 3e6, "time/round": 2.5}
                    | {"cpu/client": 2.0 + seed, "flops/train": 4e9},
                    {"round": 1, "phase": "final", **final},
                ]
                write_run(folder / name, [*overrides, f"method.label={json.dumps(label)}"], records)
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"target": 0.6, "trials": trials}, sort_keys=False))
    return folder


@pytest.fixture
def table(sweep, capsys):
    """A function that runs `fedvtc table` with the sweep or another input, and returns the output."""

    def run(words, given=None):
        assert main(["table", str(given or sweep), *words.split()]) == 0
        return capsys.readouterr().out

    return run


def cells(markdown):
    return [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("|")]


def test_means_marks_and_the_number_of_seeds_worked_by_hand(table):
    headings, _, alone, ours = cells(table(f"--columns partition.alpha --metric {ACCURACY} --format markdown"))

    assert headings == ["method", "alpha 0.1", "alpha 1.0"]
    # The sample deviation of 0.3 and 0.5 is 0.2 / sqrt(2).
    assert alone[1:] == ["<ins>0.4000 +- 0.1414</ins>", "<ins>0.6250 +- 0.0354</ins>"]
    assert ours[1:] == ["**0.6200 +- 0.1697**", "**0.7000** (n=1)"]


def test_few_seconds_have_a_decimal():
    (metric,) = metrics_of(["cpu/total"], None)
    assert [metric.text(value) for value in (0.34, 9.99, 10.4, 790.2)] == ["0.3", "10.0", "10", "790"]


def test_whole_rounds_have_no_decimal(table):
    (metric,) = metrics_of(["target/rounds"], 0.5)
    assert [metric.text(value) for value in (10.0, 7.5, 20 / 3)] == ["10", "7.5", "6.7"]
    assert metric.text(-2.0, signed=True) == "-2"
    for kind, cell in (("markdown", "| 1 |"), ("latex", "& 1 \\\\"), ("html", "<td>1</td>")):
        assert cell in table(f"--where partition.alpha=0.1 --metric target/rounds --format {kind}")


def test_differences_are_paired_by_seed_and_ranks_are_means_over_columns_and_seeds(table):
    words = f"--columns partition.alpha --metric {ACCURACY} --percent --compare Alone --ranks --format"
    (alone, ours) = csv.DictReader(io.StringIO(table(f"{words} csv")))

    # Differences 0.2 and 0.24; the 97.5 % quantile of Student's t with one degree of freedom is 12.7062.
    own = [float(ours[f"alpha 0.1: {ACCURACY}/difference{end}"]) for end in ("", "/low", "/high", "/n")]
    assert own == pytest.approx([0.22, 0.22 - 12.7062 * 0.02, 0.22 + 12.7062 * 0.02, 2], abs=1e-5)
    assert alone[f"alpha 0.1: {ACCURACY}/difference"] == ""
    assert (alone["rank"], ours["rank"]) == ("2.0", "1.0")
    text = table(f"{words} markdown")
    assert "over 3 pairs of column and seed" in text
    assert cells(text)[3][1:3] == ["**62.00 +- 16.97**", "+22.00 \\[-3.41, +47.41\\] (n=2)"]
    assert cells(text)[3][4:] == ["+10.00 (n=1)", "1.00"]


def test_the_long_file_gives_the_same_tables_byte_for_byte(table, tmp_path):
    file = tmp_path / "long.csv"
    file.write_text(table("--long"))

    assert table("--long", file) == file.read_text()
    choices = f"--percent --metric {ACCURACY},bytes/up,target/rounds --where partition.alpha=0.1 --sort {ACCURACY}"
    for words in ("", "--format markdown", "--rows partition.alpha,method --format latex", f"{choices} --format html"):
        assert table(words, file) == table(words)
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert [row["status"] for row in rows].count("absent") == 1
    assert (rows[0]["trial"], rows[0]["method"], rows[0][ACCURACY], rows[0]["target/bytes"], rows[0]["target"]) == (
        "alone-0.1-0",
        "Alone",
        "0.3",
        "3000000.0",
        "0.6",
    )


def test_runs_without_a_sweep_are_told_apart_by_the_settings_that_change_results(sweep, capsys):
    folders = [str(path) for path in sweep.iterdir() if path.is_dir()]

    assert main(["table", *folders, "--format", "markdown", "--metric", ACCURACY, "--sort", ACCURACY]) == 0

    headings, _, *rows = cells(capsys.readouterr().out)
    assert headings == ["method", "partition.alpha", "accuracy"]
    found = [(row[0] == "Alone", row[1]) for row in rows]
    assert found == [(False, "1.0"), (True, "1.0"), (False, "0.1"), (True, "0.1")]


def test_headings_of_settings_and_numbers_can_be_chosen(table):
    words = "--rows method --columns partition.alpha --metric accuracy,bytes/up --format markdown"
    heading, *_ = cells(table(words))
    assert heading == ["method", "alpha 0.1: accuracy", "alpha 0.1: up", "alpha 1.0: accuracy", "alpha 1.0: up"]
    chosen = "--heading method=Method --heading partition.alpha=a --heading accuracy=Acc. --heading bytes/up=MB"
    heading, *_ = cells(table(f"{words} {chosen}"))
    assert heading == ["Method", "a 0.1: Acc.", "a 0.1: MB", "a 1.0: Acc.", "a 1.0: MB"]


def test_labels_become_no_markup(table):
    words = f"--where partition.alpha=0.1 --metric {ACCURACY} --format"

    rendered = MarkdownIt().enable("table").render(table(f"{words} markdown"))
    assert text_of(rendered).count(WILD) == 1
    page = table(f"{words} html")
    assert text_of(page).count(WILD) == 1
    assert page.isascii()
    assert "R\\&D\\_50\\%\\textbar{}\\textless{}b\\textgreater{}\\$x\\${*}\\#\\{" in table(f"{words} latex")


def text_of(page):
    texts = []
    reader = html.parser.HTMLParser()
    reader.handle_data = texts.append
    reader.feed(page)
    return "\n".join(texts)


@pytest.mark.parametrize(
    "words", ["", f"--columns partition.alpha --metric {ACCURACY},bytes/up --compare Alone --ranks"]
)
def test_the_latex_table_is_whole(table, words, tmp_path):
    text = table(f"{words} --format latex")
    if shutil.which("pdflatex"):
        page = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{text}\\end{{document}}\n"
        (tmp_path / "table.tex").write_text(page)
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        return
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    code = re.sub(r"\\[&%$#_{}]", "", "\n".join(lines))
    alignment = re.fullmatch(r"\\begin\{tabular\}\{(l+r+)\}", lines[0])[1]
    assert lines[-1] == "\\end{tabular}"
    assert code.count("{") == code.count("}")
    assert code.count("$") % 2 == 0
    assert not re.search(r"[%#_]", code)
    commands = {
        "begin",
        "end",
        "toprule",
        "midrule",
        "bottomrule",
        "cmidrule",
        "multicolumn",
        "textbf",
        "underline",
        "pm",
    }
    letters = {"textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar"}
    assert set(re.findall(r"\\([a-z]+)", code)) <= commands | letters
    rows = [line for line in code.splitlines() if line.endswith("\\\\")]
    for row in rows:
        spans = [int(num) - 1 for num in re.findall(r"\\multicolumn\{(\d+)\}", row)]
        assert row.count("&") + 1 + sum(spans) == len(alignment), row


@pytest.mark.parametrize(
    "words",
    [
        "--rows method",
        "--rows method --where partition.alpha=0.3",
        "--rows partition.alpa",
        "--metric test/acuracy/mean",
        "--sort acuracy",
        "--compare Nobody",
        "--where alpha",
        "--heading accuracy",
        "--heading acuracy=Acc",
    ],
)
def test_a_choice_that_cannot_work_is_one_line(sweep, words, capsys, golden):
    assert main(["table", str(sweep), *words.split()]) == 2
    golden(capsys.readouterr().err)


def test_a_number_is_named_by_the_heading_of_its_column(sweep, capsys):
    printed = []
    for metric, order in (("accuracy,up", "accuracy"), ("test/accuracy/mean,bytes/up", "test/accuracy/mean")):
        assert main(["table", str(sweep), "--metric", metric, "--sort", order]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n", b"trial,status\nx\n", b"trial,status,a/b\nx,finished,high\n", b"\xff"]
)
def test_another_file_is_no_long_csv_file(tmp_path, content, capsys, keys_of):
    file = tmp_path / "other.csv"
    file.write_bytes(content)
    assert main(["table", str(file)]) == 2
    assert keys_of(capsys.readouterr().err) == [str(file)]


def test_two_runs_of_one_seed_are_not_counted_twice(sweep, tmp_path, capsys, golden):
    shutil.copytree(sweep / "alone-0.1-0", tmp_path / "copy")
    assert main(["table", str(sweep / "alone-0.1-0"), str(tmp_path / "copy")]) == 2
    golden(capsys.readouterr().err, {str(sweep): "SWEEP"})


def test_a_run_of_an_earlier_version_has_the_defaults_of_keys_that_came_later(tmp_path, write_run, capsys):
    for seed in (0, 1):
        overrides = ["run.rounds=1", f"run.seed={seed}", "method.name=local"]
        records = [{"round": 1, "phase": phase, ACCURACY: 0.5} for phase in ("round", "final")]
        write_run(tmp_path / str(seed), overrides, records)
    file = tmp_path / "0/config.yaml"
    before = file.read_text()
    file.write_text("".join(line for line in before.splitlines(True) if "validation_share" not in line))
    assert file.read_text() != before
    assert main(["table", str(tmp_path), "--metric", ACCURACY, "--rows", "method", "--format", "markdown"]) == 0
    assert "n = 2" in capsys.readouterr().out

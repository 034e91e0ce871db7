"""`fedvtc report`: the page, figures as files, and refusals.

In one file, because a process takes seconds to bundle the scripts of the page.
"""

import base64
import gzip
import html
import json
import re

import pytest
from PIL import Image

from fedvtc.commands.main import main
from fedvtc.reporting.charts.all import figures_of
from fedvtc.reporting.page import pictures
from fedvtc.reporting.page.files import write_figure
from fedvtc.reporting.page.pictures import pictures_of
from fedvtc.reporting.page.report import write_report
from fedvtc.reporting.results import read_results
from fedvtc.storage.run_folder import RunFolder

EVIL = "</script><script>alert(1)</script>"


@pytest.fixture
def runs(fake_run, tmp_path):
    path = fake_run("Local", 0)
    (path / "samples").mkdir()
    (path / "privacy").mkdir()
    measures = {"psnr/generated": {"value": 20.125, "meaning": "higher is <nearer>"}}
    (path / "privacy/privacy.json").write_text(json.dumps({"measures": measures}))
    Image.new("L", (4, 4)).save(path / "samples/round_000002.png")
    fake_run(EVIL.replace("/", "|"), 0, method={"name": "mine", "label": EVIL})
    return read_results([tmp_path / "runs"])[0]


@pytest.mark.slow
def test_a_page_needs_nothing_else_and_escapes_the_texts_of_runs(runs, tmp_path):
    page, num_files = write_report(tmp_path / "report", "Mine & yours", runs, ["x: damaged"], [], with_files=False)
    text = page.read_text()
    assert (num_files, list(page.parent.iterdir())) == (0, [page])
    assert page.stat().st_size < 2_000_000
    assert "default-src 'none'" in text
    # Elements of the page itself, without the scripts.
    html = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:|//)""", html)
    assert "Mine &amp; yours" in html
    assert "alert(1)</" not in html
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in html
    assert "client 1 was &lt;lost&gt;" in html
    assert "x: damaged" in html
    row = '<th scope="row">psnr/generated<small>higher is &lt;nearer&gt;</small></th><td>20.12</td>'
    assert row in html
    assert "data:image/png;base64," in html
    assert f"fedvtc run {runs[0].folder}/config.yaml run.name=null" in html or "fedvtc run &#39;" in html
    packed = re.search(r'id="data">([^<]+)</script>', text).group(1)
    data = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert {figure["name"] for figure in data["figures"]} == set(data["tables"])
    assert data["groups"]["Local"] == {"colour": "#009e73", "dash": [1, 0], "shape": "circle"}
    # Four clients and three classes of one of two runs.
    assert {figure["name"]: figure["num_drawn"] for figure in data["figures"]}["recall"] == 12
    assert data["tables"]["summary"].splitlines()[0] == "group,metric,value"


@pytest.mark.slow
def test_a_figure_becomes_three_pictures_and_its_numbers(runs, tmp_path):
    figure = next(figure for figure in figures_of(runs) if figure.name == "recall")
    files = {file.name: file.read_bytes() for file in write_figure(figure, tmp_path)}
    names = ["recall-local-seed-0", "recall-script-script-alert-1-script-seed-0"]
    assert sorted(files) == sorted(
        ["recall.csv", *(f"{name}.{end}" for name in names for end in ("svg", "pdf", "png"))]
    )
    assert files["recall.csv"].startswith(b"run,client,class,recall,held\n")
    assert files[f"{names[0]}.svg"].startswith(b"<svg")
    assert files[f"{names[0]}.pdf"].startswith(b"%PDF")
    assert files[f"{names[0]}.png"].startswith(b"\x89PNG")
    # One cell for each of four clients and three classes.
    assert files[f"{names[0]}.svg"].count(b'aria-roledescription="rect mark"') in (0, 12)


@pytest.mark.slow
def test_the_legend_of_a_file_is_no_wider_than_its_chart(fake_run, tmp_path):
    for number in range(12):
        fake_run(f"Method number {number}", 0, num_clients=1, num_rounds=1)
    found = figures_of(read_results([tmp_path / "runs"])[0])
    figure = next(figure for figure in found if figure.name == "losses")
    write_figure(figure, tmp_path)
    (svg,) = tmp_path.glob("losses-*.svg")
    assert int(re.search(r'width="(\d+)', svg.read_text()).group(1)) < 800


def test_each_group_shows_its_first_pictures_before_any_shows_more(fake_run, tmp_path, monkeypatch):
    for label in ("A", "B"):
        run = fake_run(label, 0)
        for folder in ("samples", "features", "privacy"):
            (run / folder).mkdir()
        for round in (2, 4, 6, 8, 10, 12):
            (run / f"samples/round_{round:06d}.png").write_bytes(bytes(10))
        (run / "features/real.png").write_bytes(bytes(10))
        (run / "privacy/copies.png").write_bytes(bytes(10))
        (run / "privacy/inversions.png").symlink_to(run / "run.json")
    runs, _ = read_results([tmp_path / "runs"])

    def titles(run):
        return [picture.title for picture in pictures_of(runs)[0] if picture.run == run]

    rounds = [f"generated, round {round}" for round in (2, 6, 8, 12)]
    assert titles("A, seed 0")[:-1] == ["real test images", *rounds]
    # The link is left out.
    assert titles("B, seed 0")[-1].startswith("generated images that are nearest")
    monkeypatch.setattr(pictures, "MAX_BYTES", 35)
    assert pictures_of(runs)[1] == 9
    assert (titles("A, seed 0"), titles("B, seed 0")) == (["real test images", rounds[0]], ["real test images"])


@pytest.fixture
def bare_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        folder = RunFolder.create(
            tmp_path / "runs", f"local-{seed}", {"run": {"seed": seed}, "method": {"name": "local"}}
        )
        rounds = [{"round": round, "phase": "round", "loss/train": 0.5} for round in range(1, seed + 2)]
        (folder.path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in rounds))
        folder.set_status("interrupted", reason="SIGTERM")
    return tmp_path / "runs"


@pytest.mark.slow
def test_runs_without_an_evaluation_have_a_page_too(bare_runs, capsys):
    assert main(["report", "runs/local-*", "-o", "mine", "--page-only", "--title", "Two runs"]) == 0
    line = capsys.readouterr().out
    assert line.startswith("mine/index.html: 2 runs, ")
    text = (bare_runs.parent / "mine/index.html").read_text()
    assert "<title>Two runs</title>" in text
    assert "interrupted (SIGTERM)" in text
    (row,) = overview(text)
    assert row[:3] == ["local", "2", "1 to 2"]
    assert "numbers so far, unfinished: 2 of 2 runs (2 interrupted)" in text
    assert "No run is left out: none has finished" in text
    # A report is replaced by a new one.
    assert main(["report", "runs/local-*", "-o", "mine", "--page-only", "--privacy"]) == 0
    text = (bare_runs.parent / "mine/index.html").read_text()
    assert "<title>runs/local-*</title>" in text
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["privacy is not measured"] * 2
    assert all(f"<li>{html.escape(line)}</li>" in text for line in lines)


@pytest.mark.slow
def test_a_page_tells_which_runs_are_left_out_of_means(fake_run, tmp_path, capsys):
    for seed in (0, 1):
        fake_run("FedProto", seed)
    for label in ("FedProto", "FedVTC+"):
        RunFolder.open(fake_run(label, 2, right=0.0, is_finished=False)).set_status("failed", reason="a reason")
    assert main(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "mine"), "--page-only"]) == 0
    text = (tmp_path / "mine/index.html").read_text()
    proto, vtc = overview(text)
    assert proto[:4] == ["FedProto", "2 of 3", "3", "0.9000 \N{PLUS-MINUS SIGN} 0.0000"]
    assert vtc == ["FedVTC+", "0 of 1", *["-"] * (len(proto) - 2)]
    assert "<small>left out: 1 of 3 runs (1 failed)</small>" in text
    named = "FedProto: 1 of 3 runs (1 failed); FedVTC+: 1 of 1 run (1 failed)"
    assert f"<li>Curves, means and differences have finished runs only. Unfinished: {named}.</li>" in text
    # The table of the same folders has the same mean.
    capsys.readouterr()
    assert main(["table", str(tmp_path / "runs"), "--metric", "test/accuracy/mean", "--format", "markdown"]) == 0
    assert re.search(r"FedProto .*0\.9000", capsys.readouterr().out)


def overview(text):
    """Returns the cells of the overview, row by row, without the small print."""
    body = re.search(r'aria-label="Overview".*?<tbody>(.*?)</tbody>', text, re.DOTALL).group(1)
    cells = re.compile(r"<t[hd][^>]*>(.*?)(?:<small>.*?</small>)?</t[hd]>")
    return [[html.unescape(cell) for cell in cells.findall(row)] for row in body.strip().splitlines()]


@pytest.mark.parametrize(
    "words",
    [["nothing"], ["runs/x*"], ["empty"], ["runs", "--target", "1.5"], ["runs", "-o", "taken"], ["runs", "-o", "file"]],
)
def test_a_report_that_cannot_be_made_is_one_line(bare_runs, words, capsys, golden, keys_of):
    for name in ("empty", "taken"):
        (bare_runs.parent / name).mkdir()
    (bare_runs.parent / "file").write_text("")
    (bare_runs.parent / "taken/index.html").write_text("<html>my page</html>")
    assert main(["report", *words]) == 2
    error = capsys.readouterr().err
    assert len(keys_of(error)) == 1
    golden(error)
    assert (bare_runs.parent / "taken/index.html").read_text() == "<html>my page</html>"

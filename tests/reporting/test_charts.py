"""Figures of reports: their numbers, their colours, and charts that Vega-Lite accepts."""

import ast
import json
from pathlib import Path

import pytest
import vl_convert

from fedvtc.reporting.charts import classes as charts_of_classes
from fedvtc.reporting.charts import curves
from fedvtc.reporting.charts.all import figures_of
from fedvtc.reporting.charts.figure import TABLE, as_csv
from fedvtc.reporting.charts.last_step import last_step
from fedvtc.reporting.charts.style import NUM_STYLES, chart_config, colour_of, dash_of, places_of
from fedvtc.reporting.page.files import VEGA_LITE, spec_of
from fedvtc.reporting.results import RunResult, read_results
from fedvtc.storage.evaluations import save_evaluations
from fedvtc.storage.features import POSITIONS, save_points

SOURCE = Path(__file__).parents[2] / "src/fedvtc"


@pytest.fixture(scope="module")
def figures(write_measured_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed, right in ((0, 0.5), (1, 0.7)):
        run = write_measured_run(folder, "FedVTC", seed, right=right)
        local = write_measured_run(folder, "Local", seed, right=0.2)
        (run / "privacy").mkdir()
        measures = {"psnr/generated": {"value": 20.0 + 10 * seed, "meaning": "higher is nearer"}}
        (run / "privacy/privacy.json").write_text(json.dumps({"measures": measures}))
        tests = [("test", 0, 0.75), ("test", 1, 0.25), ("noise:0.5", 0, 0.5)]
        save_evaluations(run, [{"client": k, "on": name, "accuracy": right * part} for name, k, part in tests])
    (run / "features").mkdir()
    about = {"client": 2, "backbone": "cnn", "models": "after", "class": "class 1"}
    save_points(
        run / "features", [about | {"images": kind} | dict.fromkeys(POSITIONS, 0.5) for kind in ("real", "fake")]
    )
    for name in ("features/points.csv", "privacy/privacy.json", "evaluations.csv"):
        (local / name).parent.mkdir(exist_ok=True)
        (local / name).write_text("client,on,accuracy\nx,damaged,y\n")
    return {figure.name: figure for figure in figures_of(read_results([folder])[0], [0.65])}


def rows_of(figure, **values):
    found = [row for row in figure.rows if all(row[key] == value for key, value in values.items())]
    return [
        {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()} for row in found
    ]


def test_curves_are_means_over_seeds_at_the_traffic_and_seconds_so_far(figures):
    first, *_, final = rows_of(figures["curves"], group="FedVTC")
    accuracy = "test/accuracy/mean"
    # Seeds 0.6 and 0.8: deviations of 0.1, squares of 0.02 in all.
    about = {key: first[key] for key in ("round", "phase", "MB", "seconds", "seeds", accuracy)}
    assert about == {"round": 1, "phase": "round", "MB": 0.75, "seconds": 1.5, "seeds": 2, accuracy: 0.7}
    assert first[f"{accuracy} high"] == round(0.7 + 0.02**0.5, 6)
    assert (final["phase"], final["MB"], final["seconds"]) == ("final", 3.0, 6.0)


def test_rounds_are_labelled_by_whole_numbers_and_seconds_are_not():
    assert curves._axis("round", [5, 10]).to_dict() == {"format": "d", "labelFlush": True, "values": [5, 10]}
    assert curves._axis("round", list(range(100)))["format"] == "d"
    assert "format" not in curves._axis("seconds", [5, 10]).to_dict()


def test_metrics_of_your_own_and_losses_are_curves_over_every_axis(fake_run):
    run = fake_run("Mine", 0)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("".join(line[:-1] + ', "mine/score": 0.25}\n' for line in lines))
    found = {figure.name: figure for figure in figures_of(read_results([run])[0])}
    over = ("rounds", "MB", "seconds")
    assert {("mine/score", axis) for axis in over} <= found["curves"].charts.keys()
    assert rows_of(found["curves"])[0]["mine/score"] == 0.25
    assert not any(metric.startswith(("cpu/", "bytes/", "incidents/")) for metric, _ in found["curves"].charts)
    assert found["losses"].charts.keys() == {("train", axis) for axis in over}


def test_differences_are_paired_by_seed(figures):
    (row,) = rows_of(figures["differences"], group="FedVTC", **{"from": "Local", "metric": "accuracy"})
    # At the end 0.9 and 1.0 against 0.6 and 0.6.
    assert (row["difference"], row["pairs"]) == (0.35, 2)
    assert next(iter(figures["differences"].choices[0].options)) == "Local"


def test_the_cost_to_a_target_counts_the_runs_that_reach_the_target(figures):
    vtc, local = figures["cost-to-target"].rows
    # 0.7 in round 2 of seed 0, 0.8 in round 1 of seed 1; Local ends with 0.6.
    assert vtc == {
        "group": "FedVTC",
        "target": "0.65",
        "reached": "2 of 2",
        "rounds": 1.5,
        "MB": 1.125,
        "seconds": 2.25,
    }
    assert (local["reached"], local["rounds"]) == ("0 of 2", None)


def test_recall_and_confusion_are_those_of_the_newest_evaluation(figures):
    row = rows_of(figures["recall"], run="Local, seed 0", client=1)[2]
    assert row == {"run": "Local, seed 0", "client": 1, "class": "class 2", "recall": 0.6, "held": "yes"}
    assert rows_of(figures["recall"], run="Local, seed 0", client=1)[1]["held"] == ""
    everyone, *_ = rows_of(figures["confusion"], run="Local, seed 0", client="all clients", true="class 0")
    assert everyone["predicted"] == "class 0"
    assert (everyone["images"], everyone["share"]) == (24, 0.6)


def test_runs_of_other_classes_and_damaged_partitions_share_a_report(fake_run, tmp_path):
    fake_run("Three", 0)
    fake_run("Five", 0, num_classes=5, num_clients=2)
    (fake_run("Damaged", 0) / "partition.npz").write_bytes(b"")
    figures = {figure.name: figure for figure in figures_of(read_results([tmp_path / "runs"])[0])}
    x = spec_of(figures["confusion"], ())["encoding"]["x"]
    assert (x["sort"], x["scale"]) == ([f"class {number}" for number in range(5)], {})
    assert {row["partition"] for row in figures["partition"].rows} == {"Three, seed 0", "Five, seed 0"}
    alone = {figure.name: figure for figure in figures_of(read_results([tmp_path / "runs/Three-0-0"])[0])}
    # A class that no client names has a column too.
    assert spec_of(alone["confusion"], ())["encoding"]["x"]["scale"]["domain"] == ["class 0", "class 1", "class 2"]


def test_every_client_of_one_run_per_group_comes_before_further_runs(fake_run, tmp_path, monkeypatch):
    for label in ("A", "B"):
        for seed in (0, 1):
            run = fake_run(label, seed)
            if (label, seed) == ("B", 0):
                (run / "confusion.npz").unlink()
    runs, _ = read_results([tmp_path / "runs"])

    def options():
        figure = next(figure for figure in figures_of(runs) if figure.name == "confusion")
        return [list(choice.options) for choice in figure.choices], figure.exported_rows

    (names, clients), exported = options()
    assert (names, len(clients)) == (["A, seed 0", "B, seed 1", "A, seed 1"], 5)
    # Two matrices of three classes for each of four clients, and one of all clients together.
    monkeypatch.setattr(charts_of_classes, "MAX_CELLS", 2 * 5 * 9)
    assert options() == ([names[:2], clients], exported)
    assert [row["run"] for row in exported] == names[:2]


def test_clients_are_shown_before_and_after_the_last_step(figures):
    row = rows_of(figures["last-step"], run="FedVTC, seed 0", client=1)[0]
    assert (row["accuracy before"], row["accuracy after"], row["backbone"]) == (0.8, 0.9, "vit")


def test_a_sample_in_the_last_round_is_no_last_step():
    row = {"accuracy": 0.5, "backbone": "vit"}
    everybody = [{"client": 0, **row}, {"client": 1, **row}]
    assert not list(last_step([RunResult(None, {}, everybody, everybody[:1])], None))


def test_measures_of_other_commands_are_shown_and_damaged_files_left_out(figures):
    measured = rows_of(figures["privacy"])[0]
    assert (measured["group"], measured["value"], measured["high"]) == ("FedVTC", 25.0, round(25 + 50**0.5, 6))
    assert figures["privacy"].meanings == {("psnr/generated",): "psnr/generated: higher is nearer."}
    # Accuracies of 0.75 x 0.5, 0.25 x 0.5, 0.75 x 0.7 and 0.25 x 0.7 on the run's own test set.
    assert rows_of(figures["test-sets"]) == [
        {"group": "FedVTC", "test set": "test", "models": 4, "accuracy": 0.3},
        {"group": "FedVTC", "test set": "noise:0.5", "models": 2, "accuracy": 0.3},
    ]
    one = {"run": "FedVTC, seed 1", "group": "FedVTC", "client": 0, "test set": "noise:0.5", "accuracy": 0.35}
    assert rows_of(figures["test-sets-clients"], run="FedVTC, seed 1")[2] == one
    real, fake = rows_of(figures["features"])
    assert (real["images"], fake["images"], real["client"], real["t-SNE x"]) == ("real", "fake", 2, 0.5)
    assert figures["features"].charts.keys() == {
        (projection, "after", colour)
        for projection in ("t-SNE", "PCA")
        for colour in ("class", "images", "client", "backbone")
    }


def test_costs_are_sums_over_the_run(figures):
    assert rows_of(figures["time"], group="Local") == [{"group": "Local", "part": "train", "value": 8.0}]
    assert rows_of(figures["cpu"], group="Local") == [{"group": "Local", "part": "train", "value": 6.0}]
    flops = {row["part"]: row["value"] for row in rows_of(figures["flops"], group="Local")}
    assert flops == {"train": 12.0, "server/mix": 4.0}
    peaks = [(row["memory"], row["phase"], row["GB"]) for row in rows_of(figures["memory-phases"], group="Local")]
    # The train phase of the final record, the fourth.
    assert set(peaks) == {("process", "train", 1.4), ("process", "evaluate", 1.5), ("GPU", "train", 0.5)}
    assert rows_of(figures["memory"], group="Local") == [{"group": "Local", "part": "clients", "value": 2.0}]
    assert rows_of(figures["bytes-up"], group="Local") == [{"group": "Local", "part": "prototypes", "value": 2.0}]


def encodings(node):
    for channel in ("color", "shape", "strokeDash"):
        encoding = node.get("encoding", {}).get(channel, {})
        if encoding.get("type") == "nominal" and encoding.get("legend", True) is not None:
            yield encoding
    for layer in node.get("layer", []):
        yield from encodings(layer)


def test_every_legend_of_names_lists_its_names(figures):
    """The page makes buttons of the names, and a hidden name must not change the colours of the others."""
    found = {
        (figure.name, encoding["field"])
        for figure in figures.values()
        for key in figure.charts
        for encoding in encodings(spec_of(figure, key))
        if encoding["scale"]["domain"]
    }
    without = {
        (figure.name, encoding["field"])
        for figure in figures.values()
        for key in figure.charts
        for encoding in encodings(spec_of(figure, key))
        if not encoding.get("scale", {}).get("domain")
    }
    assert without == set()
    assert {("curves", "group"), ("summary", "metric"), ("sorted-clients", "backbone"), ("flops", "part")} <= found


def test_a_line_for_orientation_is_drawn_once(figures):
    """A dashed line for each of 3,000 clients took minutes to draw."""
    for name in ("last-step", "differences"):
        spec = spec_of(figures[name], ("accuracy",)) | {"datasets": {TABLE: figures[name].csv()}}
        svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)
        assert svg.count('stroke-dasharray="3,3"') == 1


def test_a_phase_has_one_colour_in_all_figures(figures):
    looks = {}
    for name in ("time", "cpu", "flops"):
        for encoding in encodings(spec_of(figures[name], ())):
            looks[name] = dict(zip(encoding["scale"]["domain"], encoding["scale"]["range"], strict=True))
    # A figure of one phase needs no legend.
    assert looks.keys() == {"flops"}
    chart = spec_of(figures["time"], ())["encoding"]["color"]["scale"]
    assert (chart["domain"], chart["range"]) == (["train"], [looks["flops"]["train"]])
    assert len(set(looks["flops"].values())) == 2


@pytest.mark.slow
def test_vega_lite_compiles_every_kind_of_chart(figures):
    kinds = {"curves", "losses", "summary", "differences", "clients", "sorted-clients", "architectures", "recall"}
    kinds |= {"confusion", "partition", "cost-to-target", "time", "cpu", "flops", "bytes-up", "bytes-down", "memory"}
    kinds |= {"memory-phases"}
    kinds |= {"last-step", "privacy", "test-sets", "test-sets-clients", "features"}
    assert figures.keys() == kinds
    for figure in figures.values():
        spec = spec_of(figure, next(iter(figure.charts)))
        spec |= {"datasets": {TABLE: figure.csv()}, "config": chart_config()}
        assert vl_convert.vegalite_to_vega(spec, vl_version=VEGA_LITE)["marks"]


def test_a_method_has_one_look_in_every_report():
    alone, together = places_of({"Local": "Local"}), places_of({"A": "Mine", "FD": "FD", "Local": "Local", "B": "Mine"})
    assert together["Local"] == alone["Local"]
    looks = {(colour_of(place), tuple(dash_of(place))) for place in together.values()}
    assert len(looks) == 4
    assert list(together) == ["A", "FD", "Local", "B"]
    many = places_of({f"group {number}": "Mine" for number in range(40)})
    assert set(many.values()) == set(range(NUM_STYLES))


def test_csv_has_the_columns_of_all_rows_and_six_digits():
    assert as_csv([{"a": 1 / 3, "b": "x,y"}, {"a": None, "c": 2}]) == 'a,b,c\n0.333333,"x,y",\n,,2\n'


def test_altair_is_imported_by_reports_only():
    """The import takes a second; a run must not pay for the page."""
    for file in SOURCE.rglob("*.py"):
        inside = file.relative_to(SOURCE).as_posix()
        if inside.startswith(("reporting/charts/", "reporting/page/")):
            continue
        for node in ast.parse(file.read_text()).body:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not name.startswith(
                    ("altair", "vl_convert", "fedvtc.reporting.charts", "fedvtc.reporting.page")
                ), file

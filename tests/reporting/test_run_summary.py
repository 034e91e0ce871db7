"""`fedvtc show`: the lines about one run."""

from fedvtc.commands.main import main
from fedvtc.reporting.run_facts import read_run
from fedvtc.reporting.run_summary import ASCII, BLOCKS, MAX_LETTERS, sparkline, summary_lines

ACCURACY = "test/accuracy/mean"


def test_a_sparkline_spans_lowest_to_highest_and_stays_short():
    assert sparkline([0.0, 0.5, 1.0], BLOCKS) == "\u2581\u2585\u2588"
    assert sparkline([0.5, 0.5], ASCII) == "__"
    assert sparkline([], ASCII) == ""
    long = sparkline(range(1000), ASCII)
    assert (len(long), long[0], long[-1]) == (MAX_LETTERS, ASCII[0], ASCII[-1])


def test_a_run_that_failed_is_shown_with_curve_costs_incidents_and_next_commands(write_run, tmp_path, golden):
    attempts = [{"incidents": {"processes_lost": 1}}, {"incidents": {"steps_retried": 1}}]
    rounds = [
        {"round": 1, "phase": "round", ACCURACY: 0.25, "bytes/up/prototypes": 2000, "bytes/down/prototypes": 500}
        | {"time/train": 3.0, "time/client": 4.0, "time/round": 2.0, "time/evaluate": 0.5},
        {
            "round": 2,
            "phase": "round",
            ACCURACY: 0.75,
            "test/accuracy/min": 0.5,
            "time/train": 1.0,
            "time/client": 1.5,
            "memory/train": 1.5e9,
        }
        | {"time/round": 1.0, "incidents/processes_lost": 1, "incidents": ["actor 0 died; its clients were rebuilt"]},
        {"round": 3, "phase": "round", ACCURACY: 0.5, "test/accuracy/min": 0.25, "time/round": 1.0},
    ]
    run = write_run(
        tmp_path / "mine",
        ["run.rounds=5", "method.label=Mine"],
        rounds,
        status="failed",
        reason="client 2, round 4, train: the loss is nan",
        ended="2026-01-02",
        attempts=attempts,
        versions={"fedvtc": "0.1.0", "torch": "2.15.0"},
    )

    golden("\n".join(summary_lines(read_run(run), "ascii")))

    (curve,) = (line for line in summary_lines(read_run(run)) if "accuracy  " in line)
    assert curve.split()[1] == "\u2581\u2588\u2585"


def test_the_curve_of_samples_leaves_out_the_final_evaluation_of_all_clients(write_run, tmp_path):
    records = [
        {"round": 1, "phase": "round", ACCURACY: 0.5, "test/clients": 2},
        {"round": 2, "phase": "round", ACCURACY: 0.625, "test/clients": 2},
        {"round": 2, "phase": "final", ACCURACY: 0.75, "test/clients": 4},
    ]
    lines = "\n".join(summary_lines(read_run(write_run(tmp_path / "mine", ["run.rounds=2"], records))))
    assert "0.500 to 0.625\n" in lines
    assert "best 0.625 in round 2, 2 evaluations of 2 clients\n" in lines
    assert "accuracy 0.750" in lines


def test_a_run_before_its_first_round_is_shown(write_run, tmp_path, capsys):
    folder = write_run(tmp_path / "mine", [], [], status="interrupted", attempts=[{}], id="0123abcd")
    assert main(["show", str(folder)]) == 0
    assert f"fedvtc resume {folder}" in capsys.readouterr().out


def test_a_damaged_run_is_one_line(write_run, tmp_path, capsys, keys_of, golden):
    folder = write_run(tmp_path / "mine", [], [], attempts=[{}], id="0123abcd")
    (folder / "config.yaml").write_text("run: [")
    assert main(["show", str(folder)]) == 2
    error = capsys.readouterr().err
    assert keys_of(error) == [str(folder)]
    golden(error)
    assert main(["show", str(tmp_path)]) == 2
    golden(capsys.readouterr().err)

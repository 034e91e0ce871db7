import pytest

from fedvtc.sweep.naming import MAX_LENGTH, trial_names


@pytest.mark.parametrize(
    ("trials", "names"),
    [
        ([{"run.seed": 0, "a.b": 1}, {"run.seed": 1, "a.b": 1}], ["seed0", "seed1"]),
        ([{"run.seed": 0}], ["trial"]),
        (
            [{"run.seed": 0, "files": "a/local.yaml"}, {"run.seed": 1, "files": ["b/x.yaml", "c/y.yaml"]}],
            ["local-seed0", "x+y-seed1"],
        ),
        ([{"method.name": "local"}, {"method.name": "fedvtc"}], ["local", "fedvtc"]),
        ([{"a.when": "end"}, {"a.when": "round"}], ["when-end", "when-round"]),
        ([{"a.on": True}, {"a.on": None}], ["on-true", "on-null"]),
        ([{"a.lr": 1e-05}, {"a.lr": 0.0001234}], ["lr1e-05", "lr0.0001234"]),
        ([{"a.mix": [{"x": 1}]}, {"a.mix": [{"x": 2}]}], ["mix1", "mix2"]),
        ([{"a.path": "x/y z"}, {"a.path": "w"}], ["path-x-y-z", "path-w"]),
        ([{"a": 1}, {"b": 2}], ["a1", "b2"]),
        # 1 and true are equal in Python, and two values here.
        ([{"a": 1}, {"a": True}], ["a1", "a-true"]),
    ],
)
def test_a_name_says_what_differs(trials, names):
    assert trial_names(trials) == names


def test_keys_that_end_alike_are_told_apart():
    trials = [
        {"training.optimizer.lr": 1, "method.generator.optimizer.lr": 2, "run.seed": 3},
        {"training.optimizer.lr": 4, "method.generator.optimizer.lr": 5, "run.seed": 6},
    ]

    assert trial_names(trials)[0] == "training.lr1-generator.lr2-seed3"


def test_a_long_name_is_cut_and_stays_its_own():
    names = trial_names([{"a": "x" * 300 + str(number)} for number in range(3)])

    assert len(set(names)) == 3
    assert all(len(name) == MAX_LENGTH for name in names)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvtc.commands.sweep.trial_names import MAX_BYTES, trial_names


@pytest.mark.parametrize(
    ("trials", "names"),
    [
        ([{"run.seed": 0, "a.b": 1}, {"run.seed": 1, "a.b": 1}], ["seed0-b1", "seed1-b1"]),
        ([{"run.seed": 0}], ["seed0"]),
        ([{}], ["trial"]),
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
def test_a_name_contains_the_values_of_its_trial(trials, names):
    assert trial_names(trials) == names


GIVEN = st.fixed_dictionaries(
    {"run.seed": st.integers(0, 3), "files": st.sampled_from(["a.yaml", ["b.yaml", "c.yaml"]])},
    optional={"a.lr": st.sampled_from([0.1, 1e-4]), "b.lr": st.just(1), "a.mix": st.sampled_from([[1], [2]])},
)


@given(st.lists(GIVEN, min_size=1, max_size=6), st.lists(GIVEN, max_size=6))
def test_added_trials_with_the_same_keys_change_no_name(first, more):
    keys = {key for trial in first for key in trial}
    joining = [{key: value for key, value in trial.items() if key in keys} for trial in more]

    assert trial_names([*first, *joining])[: len(first)] == trial_names(first)


def test_keys_with_the_same_last_part_get_a_prefix():
    trials = [
        {"training.optimizer.lr": 1, "method.generator.optimizer.lr": 2, "run.seed": 3},
        {"training.optimizer.lr": 4, "method.generator.optimizer.lr": 5, "run.seed": 6},
    ]

    assert trial_names(trials)[0] == "training.lr1-generator.lr2-seed3"


def test_a_long_name_is_cut_and_stays_unique():
    names = trial_names([{"a": "x" * 300 + str(number)} for number in range(3)])

    assert len(set(names)) == 3
    assert all(len(name) == MAX_BYTES for name in names)

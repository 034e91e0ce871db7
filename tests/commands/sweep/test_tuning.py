"""Restarts of lost trials; a list of outcomes replaces the experiments of Ray Tune."""

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from fedvtc.commands.sweep import load_sweep, tuning
from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.trial_process import TrialError
from fedvtc.errors import ClusterError

LOST = ActorDiedError()
ITS_OWN = RayTaskError(
    "federation", "Traceback:\nfedvtc.commands.sweep.trial_process.TrialError: loss is nan", TrialError("loss is nan")
)
TOO_SMALL = ClusterError("placement: it does not fit.")


@pytest.fixture
def failures(write, monkeypatch):
    """A function: failures and restarted trials, where each experiment returns, or raises, the next outcome."""
    folder = SweepFolder(load_sweep(write("mine.yaml", "grid: {run.seed: [0, 1, 2]}")))

    def run(*outcomes):
        left, starts = list(outcomes), []

        class Start:
            def __init__(self, folder, pending, notify):
                starts.append([trial.name for trial in pending])

            def run(self):
                outcome = left.pop(0)
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome

        monkeypatch.setattr(tuning, "Experiment", Start)
        found = tuning._run_and_restart(folder, folder.sweep.trials, print)
        assert not left
        return found, starts[1:]

    return run


def test_a_lost_trial_is_restarted_and_a_failed_trial_is_not(failures):
    found = failures({"seed0": LOST, "seed1": ITS_OWN.as_instanceof_cause()}, {})

    assert found == ({"seed1": "loss is nan"}, [["seed0"]])


def test_a_failure_whose_error_could_not_be_saved_has_a_reason(failures, golden):
    ((name, reason),) = failures({"seed0": ""})[0].items()

    assert name == "seed0"
    golden(reason)


def test_a_trial_that_is_lost_each_time_has_failed(failures, golden):
    found, starts = failures(*[{"seed0": LOST, "seed1": LOST}] * 2, *[{"seed0": LOST}] * 2)

    assert starts == [["seed0", "seed1"], ["seed0", "seed1"], ["seed0"]]
    assert list(found) == ["seed0"]
    golden(found["seed0"])


def test_a_lost_trial_that_no_longer_fits_does_not_hide_other_failures(failures):
    found = failures({"seed0": LOST, "seed1": ITS_OWN}, TOO_SMALL)

    assert found == ({"seed1": "loss is nan", "seed0": "placement: it does not fit."}, [["seed0"]])


def test_a_cluster_that_is_too_small_at_the_start_is_an_error(failures):
    with pytest.raises(ClusterError) as refused:
        failures(TOO_SMALL)
    assert refused.value is TOO_SMALL

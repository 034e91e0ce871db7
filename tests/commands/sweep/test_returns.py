"""Which trials are started again; in place of Ray Tune stands what comes of each start."""

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from fedvtc.commands.sweep import load_sweep, tuning
from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.trial_process import TrialError
from fedvtc.errors import ClusterError

LOST = ActorDiedError()
ITS_OWN = RayTaskError(
    "federation", "Traceback:\nfedvtc.sweep.trial.TrialError: loss is nan", TrialError("loss is nan")
)
TOO_SMALL = ClusterError("placement: it does not fit.")


@pytest.fixture
def failures(write, monkeypatch):
    """A function: the failures, and the trials of each start, where each start has the errors given, or raises one."""
    folder = SweepFolder(load_sweep(write("mine.yaml", "grid: {run.seed: [0, 1, 2]}")))

    def run(*outcomes):
        left, starts = list(outcomes), []

        class Start:
            def __init__(self, folder, pending, tell):
                starts.append([trial.name for trial in pending])

            def run(self):
                outcome = left.pop(0)
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome

        monkeypatch.setattr(tuning, "_Tuning", Start)
        found = tuning._failures(folder, folder.sweep.trials, print)
        assert not left
        return found, starts[1:]

    return run


def test_who_is_lost_is_started_again_and_who_fails_is_not(failures):
    found = failures({"seed0": LOST, "seed1": ITS_OWN.as_instanceof_cause()}, {})

    assert found == ({"seed1": "loss is nan"}, [["seed0"]])


def test_who_is_lost_each_time_has_failed(failures):
    found, starts = failures(*[{"seed0": LOST, "seed1": LOST}] * 2, *[{"seed0": LOST}] * 2)

    assert starts == [["seed0", "seed1"], ["seed0", "seed1"], ["seed0"]]
    assert found == {"seed0": "its process was lost 4 times, with its node or for want of memory"}


def test_who_has_no_room_any_more_does_not_hide_what_came_of_the_others(failures):
    found = failures({"seed0": LOST, "seed1": ITS_OWN}, TOO_SMALL)

    assert found == ({"seed1": "loss is nan", "seed0": "placement: it does not fit."}, [["seed0"]])


def test_a_cluster_that_is_too_small_from_the_start_is_the_users_to_mend(failures):
    with pytest.raises(ClusterError, match="does not fit"):
        failures(TOO_SMALL)

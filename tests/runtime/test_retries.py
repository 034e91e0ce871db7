import pytest

from fedvtc.config.operation import RuntimeConfig
from fedvtc.errors import ClientError, ClientMemoryError
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.retries import Verdicts

ERROR = ClientError(2, 7, "train", "loss is nan")


@pytest.fixture
def told():
    return []


@pytest.fixture
def verdicts(told):
    """Makes the judge of one task; `incidents` of it is beside."""

    def make(on_client_error, task="run_round", retries=2):
        config = RuntimeConfig(on_client_error=on_client_error, retries=retries)
        made = Verdicts(config, incidents, task)
        return made, incidents

    incidents = Incidents(told.append)
    return make


@pytest.mark.parametrize("task", ["run_round", "finish", "evaluate", "samples"])
def test_fail_raises_the_error_itself(verdicts, told, task):
    judge, incidents = verdicts("fail", task)
    with pytest.raises(ClientError) as raised:
        judge.try_again(ERROR)
    assert raised.value is ERROR
    assert (told, incidents.totals) == ([], {})


@pytest.mark.parametrize("task", ["run_round", "finish"])
def test_skip_leaves_the_client_out_at_once(verdicts, told, task):
    judge, incidents = verdicts("skip", task)
    assert judge.try_again(ERROR) is False
    assert told == ["client 2, round 7, train: loss is nan; left out of this round"]
    assert incidents.totals == {"clients_skipped": 1}


@pytest.mark.parametrize("task", ["evaluate", "samples"])
def test_a_client_that_only_shows_itself_cannot_be_left_out(verdicts, told, task):
    judge, _ = verdicts("skip", task)
    with pytest.raises(ClientError) as raised:
        judge.try_again(ERROR)
    assert (raised.value is ERROR, told) == (True, [])


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retry_tries_again_so_many_times_and_then_ends_the_run(verdicts, told, retries):
    judge, incidents = verdicts("retry", retries=retries)
    for _ in range(retries):
        assert judge.try_again(ERROR) is True
    with pytest.raises(ClientError) as raised:
        judge.try_again(ERROR)
    assert raised.value is ERROR
    assert told == ["client 2, round 7, train: loss is nan; trying again"] * retries
    assert incidents.totals == ({"steps_retried": retries} if retries else {})


def test_every_client_has_tries_of_its_own(verdicts):
    judge, incidents = verdicts("retry", retries=1)
    assert [judge.try_again(ClientError(client, 7, "train", "x")) for client in (0, 1, 2)] == [True] * 3
    with pytest.raises(ClientError, match=r"^client 1, round 7, train: x$"):
        judge.try_again(ClientError(1, 7, "train", "x"))
    assert incidents.totals == {"steps_retried": 3}


def test_a_client_without_memory_is_one_that_failed(verdicts, told):
    judge, _ = verdicts("skip")
    assert judge.try_again(ClientMemoryError(2, 7, "train", "MemoryError")) is False
    assert told == ["client 2, round 7, train: MemoryError; left out of this round"]


@pytest.mark.parametrize("on_client_error", ["fail", "skip", "retry"])
def test_a_lost_process_is_no_fault_of_the_client_until_it_is_lost_again_and_again(verdicts, told, on_client_error):
    judge, incidents = verdicts(on_client_error, retries=2)
    assert [judge.try_elsewhere(2, 7, "it was killed") for _ in range(2)] == [True, True]
    assert told == []
    what = r"client 2, round 7, run_round: lost its process 3 times, at last because it was killed"
    if on_client_error == "skip":
        assert judge.try_elsewhere(2, 7, "it was killed") is False
        assert told == [f"{what}; left out of this round"]
        assert incidents.totals == {"clients_skipped": 1}
    else:
        with pytest.raises(ClientError, match=f"^{what}$"):
            judge.try_elsewhere(2, 7, "it was killed")


def test_errors_and_lost_processes_share_the_tries(verdicts):
    judge, _ = verdicts("retry", retries=2)
    assert judge.try_elsewhere(2, 7, "it was killed")
    assert judge.try_again(ERROR)
    with pytest.raises(ClientError, match="lost its process 3 times"):
        judge.try_elsewhere(2, 7, "it was killed")


@pytest.mark.parametrize("on_client_error", ["fail", "skip", "retry"])
def test_a_client_that_cannot_be_built_again_ends_the_run(verdicts, told, on_client_error):
    judge, _ = verdicts(on_client_error, retries=1)
    judge.rebuild_elsewhere(2, 7, "it died")
    with pytest.raises(ClientError, match=r"^client 2, round 7, run_round: lost its process 2 times, at last bec"):
        judge.rebuild_elsewhere(2, 7, "it died")
    assert told == []

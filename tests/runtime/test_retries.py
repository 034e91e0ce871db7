import pytest

from fedvtc.config.operation import RuntimeConfig
from fedvtc.errors import ClientError, ClientMemoryError
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.retries import Retries

ERROR = ClientError(2, 7, "train", "loss is nan")
CHANGING = [ClientHost.run_round, ClientHost.finish]
UNCHANGING = [ClientHost.evaluate, ClientHost.samples]


def name_of(task):
    return task.__name__


@pytest.fixture
def printed():
    return []


@pytest.fixture
def retries_of(printed):
    """A function: the retries of one task, and the incidents that they report to."""

    def make(on_client_error, task=ClientHost.run_round, retries=2):
        config = RuntimeConfig(on_client_error=on_client_error, retries=retries)
        return Retries(config, incidents, task), incidents

    incidents = Incidents(printed.append)
    return make


@pytest.mark.parametrize("task", [*CHANGING, *UNCHANGING], ids=name_of)
def test_fail_raises_the_given_error(retries_of, printed, task):
    retries, incidents = retries_of("fail", task)
    with pytest.raises(ClientError) as raised:
        retries.after_error(ERROR)
    assert raised.value is ERROR
    assert (printed, incidents.totals) == ([], {})


@pytest.mark.parametrize("task", CHANGING, ids=name_of)
def test_skip_skips_the_client_at_its_first_error(retries_of, printed, golden, task):
    retries, incidents = retries_of("skip", task)
    assert retries.after_error(ERROR) is False
    (line,) = printed
    golden(line)
    assert incidents.totals == {"clients_skipped": 1}


@pytest.mark.parametrize("task", UNCHANGING, ids=name_of)
def test_a_client_cannot_be_skipped_in_an_evaluation(retries_of, printed, task):
    retries, _ = retries_of("skip", task)
    with pytest.raises(ClientError) as raised:
        retries.after_error(ERROR)
    assert (raised.value is ERROR, printed) == (True, [])


@pytest.mark.parametrize("num_retries", [0, 1, 3])
def test_retry_ends_the_run_after_the_last_retry(retries_of, printed, num_retries):
    retries, incidents = retries_of("retry", retries=num_retries)
    for _ in range(num_retries):
        assert retries.after_error(ERROR) is True
    with pytest.raises(ClientError) as raised:
        retries.after_error(ERROR)
    assert raised.value is ERROR
    assert printed == [f"{ERROR}; trying again"] * num_retries
    assert incidents.totals == ({"steps_retried": num_retries} if num_retries else {})


def test_every_client_has_retries_of_its_own(retries_of):
    retries, incidents = retries_of("retry", retries=1)
    assert [retries.after_error(ClientError(client, 7, "train", "x")) for client in (0, 1, 2)] == [True] * 3
    again = ClientError(1, 7, "train", "x")
    with pytest.raises(ClientError) as raised:
        retries.after_error(again)
    assert raised.value is again
    assert incidents.totals == {"steps_retried": 3}


def test_a_client_without_memory_counts_as_failed(retries_of, printed, golden):
    retries, incidents = retries_of("skip")
    assert retries.after_error(ClientMemoryError(2, 7, "train", "MemoryError")) is False
    assert incidents.totals == {"clients_skipped": 1}
    golden(printed[0])


@pytest.mark.parametrize("on_client_error", ["fail", "skip", "retry"])
def test_a_lost_process_is_retried_under_every_policy(retries_of, printed, golden, on_client_error):
    retries, incidents = retries_of(on_client_error, retries=2)
    assert [retries.after_lost_process(2, 7, "it died") for _ in range(2)] == [True, True]
    assert printed == []
    if on_client_error == "skip":
        assert retries.after_lost_process(2, 7, "it died") is False
        assert incidents.totals == {"clients_skipped": 1}
        golden(printed[0])
    else:
        with pytest.raises(ClientError) as raised:
            retries.after_lost_process(2, 7, "it died")
        assert (raised.value.client, raised.value.round, raised.value.phase) == (2, 7, "run_round")
        golden(raised.value)


def test_errors_and_lost_processes_share_the_retries(retries_of):
    retries, _ = retries_of("retry", retries=2)
    assert retries.after_lost_process(2, 7, "it died")
    assert retries.after_error(ERROR)
    with pytest.raises(ClientError):
        retries.after_lost_process(2, 7, "it died")


@pytest.mark.parametrize("on_client_error", ["fail", "skip", "retry"])
def test_a_client_that_cannot_be_rebuilt_ends_the_run(retries_of, printed, golden, on_client_error):
    retries, _ = retries_of(on_client_error, retries=1)
    retries.after_lost_rebuild(2, 7, "it died")
    with pytest.raises(ClientError) as raised:
        retries.after_lost_rebuild(2, 7, "it died")
    assert (raised.value.client, raised.value.round, raised.value.phase) == (2, 7, "run_round")
    golden(raised.value)
    assert printed == []

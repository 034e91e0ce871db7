"""Submissions without a cluster: attempts, names, retries, and the commands that the user sees."""

import json

import pytest

from fedvtc.commands.main import main
from fedvtc.commands.submit import RetryWindow, advice, submit
from fedvtc.commands.submit.submitting import _for_job, _next_attempt
from fedvtc.config.operation import ClusterConfig
from fedvtc.config.schema import RunConfig
from fedvtc.errors import ClusterError, UserError


@pytest.fixture
def mine(tiny_config):
    """The config of a run with a name and an absolute folder."""
    return tiny_config(run=RunConfig(name="mine", output_dir="/mnt/outputs"))


@pytest.mark.parametrize(("words", "key"), [(["run.sede=1"], "run.sede"), ([], "run.output_dir")])
def test_mistakes_of_the_config_are_found_before_the_cluster_is_asked(capsys, keys_of, words, key):
    assert main(["submit", *words, "--address", "http://127.0.0.1:1"]) == 2
    assert keys_of(capsys.readouterr().err) == [key]


def test_a_run_of_the_same_name_and_folder_gets_the_next_attempt(tiny_config, job, keys_of, golden):
    config = _for_job(
        tiny_config(run=RunConfig(name="mine", output_dir="/mnt/outputs"), cluster=ClusterConfig(address="HEAD:6379"))
    )
    assert (config.run.resume, config.cluster.address) == ("auto", None)

    run_id, attempt = _next_attempt([job("other"), job("mine", "ffffffff")], config, "http://head")
    assert (run_id, attempt) == ("ffffffff", 2)
    earlier = [job(attempt=1, started_s=1, status="FAILED"), job(attempt=2, started_s=5, status="STOPPED")]
    assert _next_attempt(earlier, config, "http://head") == ("0a1b2c3d", 3)
    new, attempt = _next_attempt([job("other")], config, "http://head")
    assert (len(new), attempt) == (8, 1)
    with pytest.raises(UserError) as refused:
        _next_attempt([job(), job(attempt=2, status="PENDING")], config, "http://head")
    assert keys_of(refused.value) == ["run.name=mine"]
    assert "0a1b2c3d-2" in str(refused.value)
    golden(refused.value)


def test_known_jobs_are_not_requested_again(serve, mine, job, keys_of):
    import ray

    # The server gives this answer to a request for jobs too, and it is no list of jobs.
    url = serve(200, json.dumps({"ray_version": ray.__version__}).encode())
    with pytest.raises(UserError) as refused:
        submit(mine, address=url, jobs=[job(status="RUNNING")])
    assert keys_of(refused.value) == ["run.name=mine"]
    with pytest.raises(ClusterError):
        submit(mine, address=url)


def test_a_silent_cluster_is_retried_for_a_while(golden, monkeypatch):
    lines = []
    retries = RetryWindow("http://head:8265", lines.append)

    assert retries.is_open()
    assert retries.is_open()
    (line,) = lines
    golden(line)
    monkeypatch.setattr("fedvtc.commands.submit.following.RETRY_S", 0.0)
    assert not retries.is_open()
    retries.close()
    assert retries.is_open()
    assert len(lines) == 2


def test_a_run_without_a_name_gets_one(tiny_config):
    assert _for_job(tiny_config()).run.name.startswith("digits-dirichlet0.1-local-s3-")


def test_the_user_sees_the_commands_for_a_job(job, golden):
    lines = advice(job(attempt=2), "http://head:8265/", ["a b.yaml", "run.name=mine"])
    assert [line.split(":")[0] for line in lines[1:]] == ["  follow", "  stop", "  resume", "  fetch"]
    assert lines[3].endswith("fedvtc submit 'a b.yaml' run.name=mine")
    golden("\n".join(lines))
    elsewhere = advice(job(run="my run"), "http://head:8265", [], "s3://bucket/fedvtc/")
    assert "rsync -a 'head:/mnt/outputs/my run' . " in elsewhere[-2]
    assert "rsync -a '[fd00::1]:/mnt/outputs/mine' . " in advice(job(), "http://[fd00::1]:8265", [])[-1]
    for here in ("http://127.0.0.1:8265", "http://localhost:8265"):
        assert advice(job(), here, [])[-1] == "  fetch:  /mnt/outputs/mine lies on the storage of the cluster"
    assert elsewhere[-1].split() == ["models:", "s3://bucket/fedvtc/my", "run-*"]


@pytest.mark.parametrize("variable", ["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"])
def test_a_printed_command_acts_on_the_cluster_of_the_job(mine, job, monkeypatch, variable):
    from ray.dashboard.utils import get_address_for_submission_client

    config = _for_job(mine)
    monkeypatch.setenv(variable, "http://other:8265")
    # For Ray the environment overrides --address, so --address would not work here.
    assert get_address_for_submission_client("http://head:8265") == "http://other:8265"
    _, follow, stop, *_ = advice(job(), "http://head:8265", [])
    assert follow.endswith(": RAY_API_SERVER_ADDRESS=http://head:8265 ray job logs 0a1b2c3d-1 --follow")
    assert stop.endswith(":   RAY_API_SERVER_ADDRESS=http://head:8265 ray job stop 0a1b2c3d-1")
    with pytest.raises(UserError) as refused:
        _next_attempt([job(status="RUNNING")], config, "http://head:8265")
    assert str(refused.value).endswith(": RAY_API_SERVER_ADDRESS=http://head:8265 ray job stop 0a1b2c3d-1")

    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265/")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert advice(job(), None, [])[2].endswith(":   ray job stop 0a1b2c3d-1 --address http://head:8265")

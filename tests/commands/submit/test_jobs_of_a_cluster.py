import http.server
import json
import os
import socket
import threading

import pytest
from ray.job_submission import JobDetails

from fedvtc.commands.main import main
from fedvtc.commands.submit import Job, Patience, advice, jobs_table, submit
from fedvtc.commands.submit.cluster_client import cluster_url, connect, told
from fedvtc.commands.submit.jobs import _federations
from fedvtc.commands.submit.submitting import _next_attempt, _settled
from fedvtc.errors import ClusterError, UserError


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


def job(run="mine", run_id="0a1b2c3d", attempt=1, status="SUCCEEDED", **more):
    return Job(f"{run_id}-{attempt}", run, run_id, attempt, "/mnt/outputs", status, **more)


def test_the_address_that_is_given_wins_over_the_environment(monkeypatch):
    assert cluster_url(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "http://one:8265")
    assert cluster_url(None) == "http://one:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://two:443/")
    assert cluster_url(None) == "https://two:443"
    assert cluster_url("http://three:8265") == "http://three:8265"


@pytest.mark.parametrize(
    "address",
    ["auto", "HEAD:6379", "ray://HEAD:10001", "http://", "http://[HEAD:8265", "http://HEAD:port", "http://HEAD:99999"],
)
def test_what_is_no_dashboard_is_told_with_its_source(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterError) as refused:
        cluster_url(None)
    fix = "Give --address http://HEAD:8265."
    assert str(refused.value) == f"RAY_ADDRESS={address}: not the URL of a cluster's dashboard. {fix}"


def test_an_address_that_cannot_be_read_exits_two(capsys):
    assert main(["list", "--cluster", "--address", "http://[HEAD:8265"]) == 2
    line = "--address=http://[HEAD:8265: not the URL of a cluster's dashboard. Give --address http://HEAD:8265."
    assert capsys.readouterr().err == f"fedvtc: {line}\n"


@pytest.mark.parametrize(
    "url", ["https://me:abc123@head", "http://abc123@head:8265", "me:abc123@head", "http://abc123@["]
)
def test_a_secret_in_the_url_is_not_shown(url):
    with pytest.raises(ClusterError) as refused:
        cluster_url(url)
    fix = "Put the token into the file of RAY_AUTH_TOKEN_PATH instead."
    assert str(refused.value) == f"--address: the URL carries a password or token. {fix}"


def test_no_cluster_is_one_line_and_exits_two(capsys):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    line = (
        f"fedvtc: {url}: no cluster answers ([Errno 111] Connection refused). "
        "Give the dashboard's URL by --address, or start a cluster with `ray start --head`.\n"
    )
    for words in (["submit", "run.output_dir=/mnt/outputs"], ["list", "--cluster"]):
        assert main([*words, "--address", url]) == 2
        assert capsys.readouterr().err == line


def test_mistakes_of_the_config_come_before_the_cluster(capsys):
    assert main(["submit", "run.sede=1", "--address", "http://127.0.0.1:1"]) == 2
    assert capsys.readouterr().err.startswith("fedvtc: run.sede: unknown key")
    assert main(["submit", "--address", "http://127.0.0.1:1"]) == 2
    assert capsys.readouterr().err == (
        "fedvtc: run.output_dir: must be an absolute path in a job, which runs in a temporary folder, not 'outputs'. "
        "Name a folder on storage that all nodes share, such as /mnt/shared/outputs.\n"
    )


def serve(status, body):
    """The URL of a server that answers everything alike, and the server."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Nothing is printed."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}", server


@pytest.mark.parametrize(
    ("status", "body", "what"),
    [
        (404, b"nothing here", "Version check returned 404"),
        (200, b"<html>", "Expecting value"),
        (200, b'{"ray_version": "1.2.0"}', "Ray version 1.2.0 is running on the cluster"),
        (401, b"Unauthorized", "the cluster wants a token"),
        (403, b"Forbidden", "the cluster does not take this token"),
    ],
)
def test_a_server_that_is_no_cluster_for_us_is_one_line(status, body, what, monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://elsewhere:8265")
    url, server = serve(status, body)
    try:
        with pytest.raises(ClusterError) as refused:
            connect(url)
    finally:
        server.shutdown()
        server.server_close()
    assert str(refused.value).startswith(f"{url}: {what}")
    assert len(str(refused.value).splitlines()) == 1
    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://elsewhere:8265"


def test_what_the_control_store_says_of_a_large_folder_is_understood():
    from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE, upload_package_to_gcs

    with pytest.raises(ClusterError, match=r"^--working-dir: too large to be sent"), told("http://head:8265"):
        # Zeros that are never touched take no memory.
        upload_package_to_gcs("gcs://_ray_pkg_0.zip", bytes(GCS_STORAGE_MAX_SIZE))


@pytest.mark.parametrize(
    ("status", "driver_exit_code", "code"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 2, 2),
        ("FAILED", -9, 137),
        ("FAILED", None, 1),
        ("STOPPED", None, 143),
    ],
)
def test_the_exit_code_is_that_of_the_job(status, driver_exit_code, code):
    ended = job(status=status, driver_exit_code=driver_exit_code)
    assert ended.is_over
    assert ended.exit_code == code
    assert not job(status="RUNNING").is_over


def test_jobs_of_others_are_left_out():
    ours = {"fedvtc_run": "mine", "fedvtc_run_id": "0a1b2c3d", "fedvtc_attempt": "2", "fedvtc_output_dir": "/mnt"}
    longer = {**ours, "fedvtc_attempt": "3", "fedvtc_rounds": "20"}
    common = {"type": "SUBMISSION", "entrypoint": "python", "start_time": 1500}
    details = [
        JobDetails(status="RUNNING", submission_id="0a1b2c3d-2", metadata=ours, **common),
        JobDetails(status="PENDING", submission_id="0a1b2c3d-3", metadata=longer, **common),
        JobDetails(status="RUNNING", submission_id="raysubmit_1", metadata={}, **common),
        JobDetails(status="RUNNING", submission_id="raysubmit_2", metadata={**ours, "fedvtc_attempt": "x"}, **common),
        JobDetails(status="RUNNING", submission_id=None, metadata=None, **common),
    ]
    assert _federations(details) == [
        Job("0a1b2c3d-2", "mine", "0a1b2c3d", 2, "/mnt", "RUNNING", started_s=1.5),
        Job("0a1b2c3d-3", "mine", "0a1b2c3d", 3, "/mnt", "PENDING", started_s=1.5, rounds=20),
    ]


def test_a_run_of_the_same_name_and_place_goes_on(tiny_config):
    from fedvtc.config.operation import ClusterConfig
    from fedvtc.config.schema import RunConfig

    config = _settled(
        tiny_config(run=RunConfig(name="mine", output_dir="/mnt/outputs"), cluster=ClusterConfig(address="HEAD:6379"))
    )
    assert (config.run.resume, config.cluster.address) == ("auto", None)

    run_id, attempt = _next_attempt([job("other"), job("mine", "ffffffff")], config, "http://head")
    assert (run_id, attempt) == ("ffffffff", 2)
    earlier = [job(attempt=1, started_s=1, status="FAILED"), job(attempt=2, started_s=5, status="STOPPED")]
    assert _next_attempt(earlier, config, "http://head") == ("0a1b2c3d", 3)
    fresh, attempt = _next_attempt([job("other")], config, "http://head")
    assert (len(fresh), attempt) == (8, 1)
    with pytest.raises(UserError, match=r"job 0a1b2c3d-2 is at it \(PENDING\)\. Wait for it, or stop it: ray job stop"):
        _next_attempt([job(), job(attempt=2, status="PENDING")], config, "http://head")


def test_jobs_that_are_known_are_not_asked_for_again(tiny_config):
    import ray

    from fedvtc.config.schema import RunConfig

    # It gives the same answer to who asks for its jobs, and that is no list of any.
    url, server = serve(200, json.dumps({"ray_version": ray.__version__}).encode())
    config = tiny_config(run=RunConfig(name="mine", output_dir="/mnt/outputs"))
    try:
        with pytest.raises(UserError, match=r"^run\.name=mine: job 0a1b2c3d-1 is at it \(RUNNING\)"):
            submit(config, address=url, jobs=[job(status="RUNNING")])
        with pytest.raises(ClusterError):
            submit(config, address=url)
    finally:
        server.shutdown()
        server.server_close()


def test_a_cluster_that_is_away_is_borne_for_a_while(monkeypatch):
    notes = []
    patience = Patience("http://head:8265", notes.append)
    line = "http://head:8265 does not answer; trying again for 300 s. Its jobs go on meanwhile."

    assert patience.is_left()
    assert patience.is_left()
    assert notes == [line]
    monkeypatch.setattr("fedvtc.commands.submit.following.PATIENCE_S", 0.0)
    assert not patience.is_left()
    patience.renew()
    assert patience.is_left()
    assert len(notes) == 2


def test_a_run_without_a_name_gets_one(tiny_config):
    assert _settled(tiny_config()).run.name.startswith("digits-dirichlet0.1-local-s3-")


def test_the_user_learns_how_to_go_on():
    lines = advice(job(attempt=2), "http://head:8265/", ["a b.yaml", "run.name=mine"])
    assert lines == [
        "job 0a1b2c3d-2 on http://head:8265: run mine, attempt 2",
        "  follow: ray job logs 0a1b2c3d-2 --follow --address http://head:8265",
        "  stop:   ray job stop 0a1b2c3d-2 --address http://head:8265",
        "  resume: fedvtc submit 'a b.yaml' run.name=mine",
        "  fetch:  rsync -a HEAD:/mnt/outputs/mine .    (HEAD: a machine that has the storage of the cluster)",
    ]
    elsewhere = advice(job(run="my run"), "http://head:8265", [], "s3://bucket/fedvtc/")
    assert elsewhere[-2].startswith("  fetch:  rsync -a 'HEAD:/mnt/outputs/my run' . ")
    assert elsewhere[-1] == "  models: s3://bucket/fedvtc/my run-*"


@pytest.mark.parametrize("variable", ["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"])
def test_a_command_that_is_told_acts_on_the_cluster_of_the_job(tiny_config, monkeypatch, variable):
    from ray.dashboard.utils import get_address_for_submission_client

    from fedvtc.config.schema import RunConfig

    config = _settled(tiny_config(run=RunConfig(name="mine", output_dir="/mnt/outputs")))
    monkeypatch.setenv(variable, "http://other:8265")
    # Why the option would not do.
    assert get_address_for_submission_client("http://head:8265") == "http://other:8265"
    _, follow, stop, *_ = advice(job(), "http://head:8265", [])
    assert follow == "  follow: RAY_API_SERVER_ADDRESS=http://head:8265 ray job logs 0a1b2c3d-1 --follow"
    assert stop == "  stop:   RAY_API_SERVER_ADDRESS=http://head:8265 ray job stop 0a1b2c3d-1"
    with pytest.raises(UserError, match=r"stop it: RAY_API_SERVER_ADDRESS=http://head:8265 ray job stop 0a1b2c3d-1$"):
        _next_attempt([job(status="RUNNING")], config, "http://head:8265")

    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265/")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert advice(job(), None, [])[2] == "  stop:   ray job stop 0a1b2c3d-1 --address http://head:8265"


def test_the_table_has_a_row_per_job():
    from rich.console import Console

    console = Console(width=160, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(jobs_table([job(started_s=1.0, ended_s=3726.0, message="Job\nfinished"), job(status="PENDING")]))
    _, first, second = console.export_text().splitlines()
    cells = first.split()
    assert (cells[:4], cells[6:]) == (["mine", "0a1b2c3d", "1", "SUCCEEDED"], ["1:02:05", "0a1b2c3d-1", "Job"])
    assert second.split() == ["mine", "0a1b2c3d", "1", "PENDING", "-", "-", "0a1b2c3d-1"]

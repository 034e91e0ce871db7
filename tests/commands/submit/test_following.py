"""Following a job whose log has no reader, without a cluster."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray.job_submission import JobDetails

from fedvtc.commands.submit.following import _Follower

SUBMIT = """
import sys
from types import SimpleNamespace
from fedvtc.commands import submit
from fedvtc.commands.main import main
from fedvtc.commands.submit import Job, following

class Client:
    states = iter(["RUNNING", "FAILED"])

    async def tail_job_logs(self, job_id):
        yield "a line\\n"

    def get_job_logs(self, job_id):
        return "a line\\nanother line\\n"

    def get_job_info(self, job_id):
        status = SimpleNamespace(value=next(self.states))
        metadata = {"fedvtc_run": "mine", "fedvtc_attempt": "1"}
        given = {"submission_id": job_id, "metadata": metadata, "status": status, "driver_exit_code": 3}
        return SimpleNamespace(**given, start_time=None, end_time=None, message="")

following.PAUSE_S = 0.0
following.connect = lambda url: Client()
submit.submit = lambda config, **options: Job("0a1b2c3d-1", "mine", "0a1b2c3d", 1, "/mnt/outputs", "PENDING")
sys.exit(main(["submit", "run.output_dir=/mnt/outputs"]))
"""


def test_submit_returns_the_exit_code_of_a_job_whose_log_has_no_reader(unread_pipe):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    command = [sys.executable, "-c", SUBMIT]
    done = subprocess.run(command, stdout=unread_pipe, stderr=subprocess.PIPE, text=True, env=environment)
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device")], ids=["unread", "full"])
def test_an_error_of_the_output_is_not_a_lost_connection(error):
    class Client:
        async def tail_job_logs(self, job_id):
            yield "a line"

    def write(text):
        raise error

    # A request for the job's status would raise AttributeError.
    follower = _Follower(Client(), "http://head:8265", "0a1b2c3d-1", write)
    with pytest.raises(type(error)) as raised:
        asyncio.run(follower.follow(print))
    assert raised.value is error


@pytest.mark.parametrize("error", [ConnectionResetError(), RuntimeError("closed")])
def test_a_lost_connection_ends_the_log_only(error):
    class Client:
        async def tail_job_logs(self, job_id):
            yield "a line"
            raise error

    written = []
    asyncio.run(_Follower(Client(), "http://head:8265", "0a1b2c3d-1", written.append)._tail())
    assert written == ["a line"]


def test_a_cluster_that_ends_with_the_job_hides_only_the_end_of_the_log():
    class Client:
        async def tail_job_logs(self, job_id):
            yield "a line"

        def get_job_logs(self, job_id):
            raise ConnectionRefusedError("refused")

        def get_job_info(self, job_id):
            metadata = {"fedvtc_run": "mine", "fedvtc_attempt": "1"}
            common = {"type": "SUBMISSION", "entrypoint": "python", "submission_id": job_id, "metadata": metadata}
            return JobDetails(status="FAILED", driver_exit_code=3, **common)

    written, notices = [], []
    follower = _Follower(Client(), "http://head:8265", "0a1b2c3d-1", written.append)

    job = asyncio.run(follower.follow(notices.append))

    assert (job.exit_code, written, len(notices)) == (3, ["a line"], 1)

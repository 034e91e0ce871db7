"""Jobs of a cluster, their exit codes and their table."""

import os

import pytest
from ray.job_submission import JobDetails

from fedvtc.commands.submit import Job, jobs_table
from fedvtc.commands.submit.jobs import _federations


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
def test_the_exit_code_is_that_of_the_job(job, status, driver_exit_code, code):
    ended = job(status=status, driver_exit_code=driver_exit_code)
    assert ended.is_over
    assert ended.exit_code == code
    assert not job(status="RUNNING").is_over


def test_jobs_of_other_programs_are_left_out():
    ours = {"fedvtc_run": "mine", "fedvtc_run_id": "0a1b2c3d", "fedvtc_attempt": "2", "fedvtc_output_dir": "/mnt"}
    longer = {**ours, "fedvtc_attempt": "3", "fedvtc_rounds": "20", "fedvtc_fingerprint": "f00d"}
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
        Job("0a1b2c3d-3", "mine", "0a1b2c3d", 3, "/mnt", "PENDING", started_s=1.5, rounds=20, fingerprint="f00d"),
    ]


def test_the_table_has_a_row_per_job(job):
    from rich.console import Console

    console = Console(width=160, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(jobs_table([job(started_s=1.0, ended_s=3726.0, message="Job\nfinished"), job(status="PENDING")]))
    _, first, second = console.export_text().splitlines()
    cells = first.split()
    assert (cells[:4], cells[6:]) == (["mine", "0a1b2c3d", "1", "SUCCEEDED"], ["1:02:05", "0a1b2c3d-1", "Job"])
    assert second.split() == ["mine", "0a1b2c3d", "1", "PENDING", "-", "-", "0a1b2c3d-1"]

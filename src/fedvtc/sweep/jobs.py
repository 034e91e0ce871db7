"""Trials as jobs of a Ray cluster, each a `fedvtc run` of its own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fedvtc import submission
from fedvtc.config import lost_outputs
from fedvtc.errors import ConfigError
from fedvtc.sweep.definition import Sweep


def submit_trials(
    sweep: Sweep,
    address: str | None,
    runtime_env: Path | None,
    working_dir: Path | None,
    tell: Callable[[str], None],
) -> None:
    """Submits a job for each trial that neither runs on the cluster nor has ended well there; waits for none.

    Args:
        sweep: whose trials.
        address: the URL of the cluster's dashboard; None takes the environment's, or this machine's.
        runtime_env: a file with a runtime environment of Ray.
        working_dir: a folder that each job runs in a copy of.
        tell: gets a line for each trial.

    Raises:
        ConfigError: a trial would lose what it writes, for the path is relative.
        UserError: the cluster does not answer, or does not take a job.
    """
    first = sweep.trials[0].config
    problems = lost_outputs(replace(first, run=replace(first.run, output_dir=sweep.output_dir)))
    if lines := [str(problem) for problem in problems]:
        raise ConfigError(lines)
    environment = submission.read_runtime_env(runtime_env) if runtime_env else None
    latest = {(job.run, job.output_dir): job for job in submission.statuses(address)}
    for trial in sweep.trials:
        job = latest.get((trial.name, trial.config.run.output_dir))
        if job is not None and job.status in ("PENDING", "RUNNING", "SUCCEEDED"):
            tell(f"{trial.name}: job {job.id} ({job.status})")
            continue
        job = submission.submit(
            trial.config,
            address=address,
            runtime_env=environment,
            working_dir=working_dir,
            metadata_extra={"fedvtc_sweep": sweep.name},
        )
        tell(f"{trial.name}: job {job.id}, attempt {job.attempt}")

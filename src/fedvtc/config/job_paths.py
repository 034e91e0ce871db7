"""Checks of paths for a run in a submitted Ray job."""

import os
from collections.abc import Iterator
from pathlib import Path

from fedvtc.config.problems import Problem, show
from fedvtc.config.schema import Config
from fedvtc.errors import ConfigError

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable that Ray sets only for the process of a submitted job."""


def lost_outputs(config: Config) -> Iterator[Problem]:
    """Yields a problem for each relative path, because Ray deletes the working folder of a job."""
    what = "must be an absolute path in a job, because Ray deletes the job's working folder, not"
    if not Path(config.run.output_dir).is_absolute():
        fix = "Set a folder on storage that all nodes share, such as /mnt/shared/outputs."
        yield Problem("run.output_dir", f"{what} {show(config.run.output_dir)}", fix=fix)
    directory = config.checkpoint.dir
    if directory and "://" not in directory and not os.path.isabs(os.path.expanduser(directory)):
        yield Problem(
            "checkpoint.dir", f"{what} {show(directory)}", fix="Set a folder on storage that all nodes share, or a URL."
        )


def check_submitted(config: Config) -> None:
    """Raises an error, in the process of a submitted job only, if the job's outputs would be deleted.

    Raises:
        ConfigError: one line for each problem of `lost_outputs`.
    """
    problems = [str(problem) for problem in lost_outputs(config)] if JOB_VARIABLE in os.environ else []
    if problems:
        raise ConfigError(problems)

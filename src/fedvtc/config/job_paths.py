"""Whether a config can run in a job that was submitted to a Ray cluster."""

import os
from collections.abc import Iterator
from pathlib import Path

from fedvtc.config.problems import Problem, show
from fedvtc.config.schema import Config
from fedvtc.errors import ConfigError

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable that Ray sets for the process of a submitted job, and for no other."""


def lost_outputs(config: Config) -> Iterator[Problem]:
    """Every key that would have a job write where nothing stays: relative to its folder, a temporary one of Ray."""
    what = "must be an absolute path in a job, which runs in a temporary folder, not"
    if not Path(config.run.output_dir).is_absolute():
        fix = "Name a folder on storage that all nodes share, such as /mnt/shared/outputs."
        yield Problem("run.output_dir", f"{what} {show(config.run.output_dir)}", fix=fix)
    directory = config.checkpoint.dir
    if directory and "://" not in directory and not os.path.isabs(os.path.expanduser(directory)):
        yield Problem("checkpoint.dir", f"{what} {show(directory)}", fix="Name one that all nodes share, or a URL.")


def check_submitted(config: Config) -> None:
    """Refuses, in the process of a submitted job, what would be lost at its end.

    Raises:
        ConfigError: one line for every key of `lost_outputs`.
    """
    problems = [str(problem) for problem in lost_outputs(config)] if JOB_VARIABLE in os.environ else []
    if problems:
        raise ConfigError(problems)

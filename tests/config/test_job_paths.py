import pytest

from fedvtc.config import Config, check_submitted, lost_outputs
from fedvtc.config.job_paths import JOB_VARIABLE
from fedvtc.config.operation import CheckpointConfig
from fedvtc.config.schema import RunConfig
from fedvtc.errors import ConfigError


@pytest.mark.parametrize("output_dir", ["outputs", "~/outputs", "s3://bucket/outputs", ""])
def test_a_run_folder_that_a_job_would_lose(output_dir):
    (problem,) = lost_outputs(Config(run=RunConfig(output_dir=output_dir)))
    assert str(problem) == (
        "run.output_dir: must be an absolute path in a job, which runs in a temporary folder, "
        f"not '{output_dir}'. Name a folder on storage that all nodes share, such as /mnt/shared/outputs."
    )


@pytest.mark.parametrize(
    ("directory", "keys"),
    [
        *((None, []), ("/mnt/a", []), ("s3://bucket/a", []), ("~/a", [])),
        *((directory, ["checkpoint.dir"]) for directory in ("checkpoints", "~no_such_user/a")),
    ],
)
def test_checkpoints_may_lie_behind_a_url(directory, keys):
    config = Config(run=RunConfig(output_dir="/mnt"), checkpoint=CheckpointConfig(dir=directory))
    assert [problem.key for problem in lost_outputs(config)] == keys


def test_only_a_submitted_job_is_refused(monkeypatch):
    monkeypatch.delenv(JOB_VARIABLE, raising=False)
    check_submitted(Config())
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    with pytest.raises(ConfigError, match=r"^run\.output_dir: must be an absolute path in a job"):
        check_submitted(Config())


def test_the_variable_is_the_one_that_ray_sets():
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

    assert JOB_VARIABLE == RAY_JOB_CONFIG_JSON_ENV_VAR

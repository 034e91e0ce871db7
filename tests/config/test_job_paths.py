import pytest

from fedvtc.config import Config, check_submitted, lost_outputs
from fedvtc.config.job_paths import JOB_VARIABLE
from fedvtc.config.operation import CheckpointConfig
from fedvtc.config.schema import RunConfig
from fedvtc.errors import ConfigError


@pytest.mark.parametrize("output_dir", ["outputs", "~/outputs", "s3://bucket/outputs", ""])
def test_a_run_folder_that_a_job_would_lose(output_dir, golden):
    (problem,) = lost_outputs(Config(run=RunConfig(output_dir=output_dir)))
    assert problem.key == "run.output_dir"
    golden(problem)


@pytest.mark.parametrize(
    ("directory", "keys"),
    [
        *((None, []), ("/mnt/a", []), ("s3://bucket/a", []), ("~/a", [])),
        *((directory, ["checkpoint.dir"]) for directory in ("checkpoints", "~no_such_user/a")),
    ],
)
def test_checkpoints_that_a_job_would_lose(directory, keys):
    config = Config(run=RunConfig(output_dir="/mnt"), checkpoint=CheckpointConfig(dir=directory))
    assert [problem.key for problem in lost_outputs(config)] == keys


def test_only_a_submitted_job_is_refused(monkeypatch, keys_of):
    monkeypatch.delenv(JOB_VARIABLE, raising=False)
    check_submitted(Config())
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    with pytest.raises(ConfigError) as refused:
        check_submitted(Config())
    assert keys_of(refused.value) == ["run.output_dir"]


def test_the_variable_is_the_one_that_ray_sets():
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

    assert JOB_VARIABLE == RAY_JOB_CONFIG_JSON_ENV_VAR

"""The package of a job: its runtime environment, and the folder that is sent."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedvtc.commands.main import main
from fedvtc.commands.submit.package import (
    check_sendable,
    job_environment,
    read_runtime_env,
)
from fedvtc.config import Config
from fedvtc.config.operation import CheckpointConfig, RuntimeConfig, TrackingConfig, WandbConfig
from fedvtc.config.schema import DataConfig, PartitionConfig, RunConfig
from fedvtc.errors import ConfigError, UserError

OWN_METHOD = """
from fedvtc.config.schema import MethodConfig
from fedvtc.config.section import section
from fedvtc.learning.methods import Method


@section
class Keys(MethodConfig):
    def problems(self, config):
        return ["weight: is {weight}"] * ({weight} - 1)


class Mine(Method):
    config_class = Keys

    def client_round(self, client, broadcast): ...

    def server_round(self, state, uploads, server): ...
"""
ABSOLUTE = Config(run=RunConfig(name="mine", output_dir="/mnt/outputs"))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "env.yaml"


def test_a_runtime_environment_is_read(file):
    file.write_text(
        "env_vars: {NAME: value, WANDB_API_KEY: '${WANDB_API_KEY}', RAY_AUTH_TOKEN_PATH: /a}\npip: [attrs]\n"
    )
    assert read_runtime_env(file)["env_vars"]["NAME"] == "value"
    file.write_text("# nothing yet\n")
    assert read_runtime_env(file) == {}


@pytest.mark.parametrize(
    "name",
    [
        *("WANDB_API_KEY", "HF_TOKEN", "DB_PASSWORD", "aws_secret_access_key", "CLIENT_SECRET", "OPENAI_APIKEY"),
        *("MY_TOKEN_2", "API_KEY1", "DB_PASS2"),
        *("GITHUB_PAT", "PAT", "DB_PASS", "SSH_PASSPHRASE", "BLOB_CONNECTION_STRING", "CONNECTION_STRING"),
        *("AZURE_STORAGE_KEY", "SECRET_KEY", "private_key", "AZURE_ACCOUNT_KEY"),
        *("KAGGLE_KEY", "MYSQL_PWD", "SSH_KEY", "KEY", "REDIS_AUTH", "_auth"),
    ],
)
def test_a_variable_with_a_secret_is_refused_and_not_printed(file, name):
    file.write_text(f"env_vars: {{{name}: abc123}}\n")
    with pytest.raises(UserError) as refused:
        read_runtime_env(file)
    assert str(refused.value).startswith(f"{file}: env_vars.{name}: ")
    assert "abc123" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        *("COMPASS", "MY_PATH", "SPAT", "STORAGE_KEYS", "RAY_AUTH_TOKEN_PATH", "SORT_KEY", "PWD", "OLDPWD"),
        *("MONKEY", "HOTKEY", "KEY_NAME", "SSH_PUBLIC_KEY", "SONAR_PROJECT_KEY", "RECAPTCHA_SITE_KEY"),
        *("TOKEN_2_PATH", "SSH_PUBLIC_KEY_2"),
    ],
)
def test_a_variable_with_a_harmless_name_is_accepted(file, name):
    file.write_text(f"env_vars: {{{name}: abc123}}\n")
    assert read_runtime_env(file)["env_vars"] == {name: "abc123"}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("pip: ['--find-links https://me:abc123@example.com/wheels']", "pip[0]"),
        ("pip: [attrs, 'git+https://abc123@github.com/me/x.git']", "pip[1]"),
        ("pip: {packages: ['--find-links https://abc123:@example.com']}", "pip.packages[0]"),
        ("env_vars: {DATABASE: 'postgres://me:abc123@host/db'}", "env_vars.DATABASE"),
        ("working_dir: https://abc123@example.com/code.zip", "working_dir"),
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_printed(file, text, key):
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        read_runtime_env(file)
    assert str(refused.value).startswith(f"{file}: {key}: ")
    assert "abc123" not in str(refused.value)


@pytest.mark.parametrize("value", ["true", "False", "0", "off"])
def test_a_variable_that_is_a_switch_is_accepted(file, value):
    file.write_text(f"env_vars: {{USE_AUTH: '{value}'}}\n")
    assert read_runtime_env(file)["env_vars"] == {"USE_AUTH": value}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("env_vars: {FOO: abc12345-secret}", "env_vars.FOO"),
        ("env_vars: {FOO: 'Bearer abc12345-secret'}", "env_vars.FOO"),
        ("pip: [attrs, '--config-settings key=abc12345-secret']", "pip[1]"),
    ],
)
def test_the_value_of_a_secret_in_the_environment_is_refused_and_not_printed(file, monkeypatch, text, key):
    monkeypatch.setenv("HUB_KEY", "abc12345-secret")
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        read_runtime_env(file)
    assert str(refused.value).startswith(f"{file}: {key}: ")
    assert "HUB_KEY" in str(refused.value)
    assert "abc12345" not in str(refused.value)


@pytest.mark.parametrize(
    "env_vars",
    ["{HF_TOKEN: abc123}", "{DATABASE: 'postgres://me:abc123@host/db'}", "{FOO: abc12345-secret}"],
    ids=["variable", "URL", "value"],
)
def test_messages_about_secrets(file, golden, monkeypatch, env_vars):
    monkeypatch.setenv("HUB_KEY", "abc12345-secret")
    file.write_text(f"env_vars: {env_vars}\n")
    with pytest.raises(UserError) as refused:
        read_runtime_env(file)
    golden(refused.value)


def test_values_that_equal_harmless_variables_are_accepted(file, monkeypatch):
    plain = {"PWD": "digits-v2", "OLDPWD": "digits-v1", "SORT_KEY": "run.seed", "PROJECT_KEY": "my-fedvtc"}
    plain |= {"SSH_KEY": "/mnt/keys/id", "REDIS_AUTH": "basic", "BUILD_KEY": "1234567", "MYSQL_PWD": "enabled"}
    for name, value in plain.items():
        monkeypatch.setenv(name, value)
    taken = {f"VARIABLE_{number}": value for number, value in enumerate(plain.values())}
    file.write_text(f"env_vars: {taken}\n")
    assert read_runtime_env(file)["env_vars"] == taken


def test_a_url_without_a_secret_is_accepted(file):
    urls = ["git+ssh://git@github.com/me/x.git", "git+https://github.com/me/x.git@v1"]
    urls += ["git+https://${GITHUB_PAT}@github.com/me/x.git", "git+https://me:${GITHUB_PAT}@github.com/me/x.git"]
    file.write_text(f"pip: {urls}\n")
    assert read_runtime_env(file)["pip"] == urls


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("- a list", None),
        ("a: b: c", None),
        ("env_vars: {NUMBER: 1}", None),
        ("pip: [a]\nconda: b", None),
        ("env_vars: [1]", "env_vars"),
    ],
    ids=["list", "no YAML", "number", "pip and conda", "list of variables"],
)
def test_a_malformed_runtime_environment_is_one_line(file, keys_of, golden, text, key):
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        read_runtime_env(file)
    assert keys_of(refused.value) == [str(file)]
    if key:
        assert str(refused.value).startswith(f"{file}: {key}: ")
    golden(refused.value)


def test_an_absent_file_is_one_line(file, keys_of, golden):
    with pytest.raises(UserError) as refused:
        read_runtime_env(file)
    assert keys_of(refused.value) == [str(file)]
    golden(refused.value)


def test_a_job_has_time_to_save():
    environment, folder = job_environment({}, ABSOLUTE)
    assert (environment, folder) == ({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120"}}, None)

    patient = replace(ABSOLUTE, runtime=RuntimeConfig(stop_timeout_s=300.5))
    given = {"env_vars": {"NAME": "value"}, "pip": ["attrs"], "working_dir": "code"}
    environment, folder = job_environment(given, patient)
    # 300.5 s for the round and 60 s for its checkpoint.
    assert environment == {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "361", "NAME": "value"}, "pip": ["attrs"]}
    assert folder == Path("code")
    assert given["env_vars"] == {"NAME": "value"}


def stop_wait(config, **env_vars):
    return job_environment({"env_vars": env_vars}, config)[0]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]


def test_a_job_has_at_least_the_time_that_it_needs_to_save(keys_of, golden):
    patient = replace(ABSOLUTE, runtime=RuntimeConfig(stop_timeout_s=300.5))
    assert stop_wait(patient, RAY_JOB_STOP_WAIT_TIME_S="120") == "361"
    assert stop_wait(patient, RAY_JOB_STOP_WAIT_TIME_S="600") == "600"
    with pytest.raises(UserError) as refused:
        stop_wait(patient, RAY_JOB_STOP_WAIT_TIME_S="2m")
    assert keys_of(refused.value) == ["env_vars.RAY_JOB_STOP_WAIT_TIME_S=2m"]
    golden(refused.value)


def test_a_job_has_time_for_the_last_rows_of_wandb():
    # 60 s for the round, 60 for its checkpoint, timeout_s for the server and 30 for W&B on the node.
    for timeout_s, seconds in ((60.0, "210"), (300.2, "451")):
        tracking = TrackingConfig(trackers=["wandb"], wandb=WandbConfig(timeout_s=timeout_s))
        assert stop_wait(replace(ABSOLUTE, tracking=tracking)) == seconds


@pytest.mark.parametrize("working_dir", ["s3://code.zip", [1]], ids=["URL", "list"])
def test_a_working_dir_that_is_no_local_folder_is_refused(golden, working_dir):
    with pytest.raises(UserError) as refused:
        job_environment({"working_dir": working_dir}, ABSOLUTE)
    assert str(refused.value).startswith(f"working_dir={working_dir}: ")
    golden(refused.value)


def test_the_home_of_an_unknown_user_is_a_path_that_is_not_sent(keys_of, golden):
    config = replace(ABSOLUTE, data=DataConfig(root="~no_such_user/data"))
    with pytest.raises(ConfigError) as refused:
        check_sendable(config, None)
    assert keys_of(refused.value) == ["data.root"]
    golden(refused.value)


def test_all_paths_that_a_job_would_lose_or_not_find_are_refused_at_once(tmp_path):
    config = Config(
        run=RunConfig(output_dir="outputs"),
        checkpoint=CheckpointConfig(dir="checkpoints"),
        data=DataConfig(root="data", path="images.npz"),
        partition=PartitionConfig(file="p.npz"),
    )
    with pytest.raises(ConfigError) as refused:
        check_sendable(config, None)
    keys = [line.split(":")[0] for line in refused.value.problems]
    assert keys == ["run.output_dir", "checkpoint.dir", "data.root", "data.path", "partition.file"]

    (tmp_path / "images.npz").touch()
    (tmp_path / "p.npz").touch()
    good = replace(
        config,
        run=RunConfig(output_dir="/mnt/outputs"),
        checkpoint=CheckpointConfig(dir="s3://bucket/fedvtc"),
        data=DataConfig(root="~/data", path="images.npz"),
    )
    check_sendable(good, tmp_path)


def test_a_working_dir_must_exist_and_have_no_folder_of_configs(tmp_path, keys_of, golden):
    with pytest.raises(UserError) as refused:
        check_sendable(ABSOLUTE, tmp_path / "absent")
    assert keys_of(refused.value) == [f"--working-dir={tmp_path / 'absent'}"]
    golden(refused.value)
    (tmp_path / "fedvtc-configs").mkdir()
    with pytest.raises(UserError) as refused:
        check_sendable(ABSOLUTE, tmp_path)
    assert keys_of(refused.value) == [f"--working-dir={tmp_path}"]
    golden(refused.value)


def test_own_code_is_that_of_the_job_and_not_of_the_working_folder(tmp_path, monkeypatch, capsys, keys_of):
    here, sent = tmp_path / "here", tmp_path / "sent"
    for folder, weight in ((here, 1), (sent, 2)):
        folder.mkdir()
        (folder / "job_methods.py").write_text(OWN_METHOD.format(weight=weight))
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(here))
    words = ["method.name=job_methods:Mine", f"run.output_dir={tmp_path}", "--address", "http://127.0.0.1:1"]

    # The weight of the code that a job imports has problems, the weight of the other has none.
    assert main(["submit", *words, "--working-dir", str(sent)]) == 2
    assert keys_of(capsys.readouterr().err) == ["method.weight"]
    sys.modules.pop("job_methods")
    assert main(["submit", *words]) == 2
    refused = capsys.readouterr().err
    assert keys_of(refused) == ["method.name"]
    assert "give the folder that contains it as --working-dir." in refused
    assert str(here) in sys.path

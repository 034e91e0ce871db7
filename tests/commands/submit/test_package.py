from dataclasses import replace
from pathlib import Path

import pytest

from fedvtc.commands.submit.package import check_sendable, job_environment, packed, read_runtime_env
from fedvtc.config import Config, load
from fedvtc.config.operation import CheckpointConfig, RuntimeConfig, TrackingConfig, WandbConfig
from fedvtc.config.schema import DataConfig, PartitionConfig, RunConfig
from fedvtc.errors import ConfigError, UserError
from fedvtc.learning.methods import config_classes

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
def test_a_variable_with_a_secret_is_refused_and_not_shown(file, name):
    file.write_text(f"env_vars: {{{name}: abc123}}\n")
    with pytest.raises(UserError) as refused:
        read_runtime_env(file)
    assert str(refused.value).startswith(f"{file}: env_vars.{name} is a secret, and Ray shows it to all")
    assert "Kubernetes Secret" in str(refused.value)
    assert "abc123" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        *("COMPASS", "MY_PATH", "SPAT", "STORAGE_KEYS", "RAY_AUTH_TOKEN_PATH", "SORT_KEY", "PWD", "OLDPWD"),
        *("MONKEY", "HOTKEY", "KEY_NAME", "SSH_PUBLIC_KEY", "SONAR_PROJECT_KEY", "RECAPTCHA_SITE_KEY"),
        *("TOKEN_2_PATH", "SSH_PUBLIC_KEY_2"),
    ],
)
def test_a_variable_that_only_sounds_so_is_taken(file, name):
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
def test_a_url_with_a_secret_is_refused_and_not_shown(file, text, key):
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        read_runtime_env(file)
    assert str(refused.value).startswith(f"{file}: {key}: a URL carries a password or token, and Ray shows it to all")
    assert "${NAME} in its place." in str(refused.value)
    assert "abc123" not in str(refused.value)


@pytest.mark.parametrize("value", ["true", "False", "0", "off"])
def test_a_variable_that_only_turns_something_on_or_off_is_taken(file, value):
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
def test_the_value_of_a_secret_of_the_environment_is_refused_and_not_shown(file, monkeypatch, text, key):
    monkeypatch.setenv("HUB_KEY", "abc12345-secret")
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        read_runtime_env(file)
    what = f"{file}: {key}: holds the value of $HUB_KEY, and Ray shows it to all who see the job."
    assert str(refused.value) == f"{what} Set HUB_KEY in the environment of the cluster itself, and leave it out here."


def test_values_that_stand_there_for_other_reasons_are_taken(file, monkeypatch):
    plain = {"PWD": "digits-v2", "OLDPWD": "digits-v1", "SORT_KEY": "run.seed", "PROJECT_KEY": "my-fedvtc"}
    plain |= {"SSH_KEY": "/mnt/keys/id", "REDIS_AUTH": "basic", "BUILD_KEY": "1234567", "MYSQL_PWD": "enabled"}
    for name, value in plain.items():
        monkeypatch.setenv(name, value)
    taken = {f"VARIABLE_{number}": value for number, value in enumerate(plain.values())}
    file.write_text(f"env_vars: {taken}\n")
    assert read_runtime_env(file)["env_vars"] == taken


def test_a_url_without_a_secret_is_taken(file):
    urls = ["git+ssh://git@github.com/me/x.git", "git+https://github.com/me/x.git@v1"]
    urls += ["git+https://${GITHUB_PAT}@github.com/me/x.git", "git+https://me:${GITHUB_PAT}@github.com/me/x.git"]
    file.write_text(f"pip: {urls}\n")
    assert read_runtime_env(file)["pip"] == urls


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("- a list", "expected keys with values."),
        ("a: b: c", "cannot be read (mapping values are not allowed here"),
        ("env_vars: {NUMBER: 1}", "Ray does not take it ("),
        ("pip: [a]\nconda: b", "Ray does not take it ("),
        ("env_vars: [1]", "env_vars: expected names with values."),
    ],
)
def test_what_ray_would_not_take_is_one_line(file, text, start):
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        read_runtime_env(file)
    assert str(refused.value).startswith(f"{file}: {start}")
    assert len(str(refused.value).splitlines()) == 1
    assert "abc123" not in str(refused.value)


def test_a_file_that_is_absent_is_one_line(file):
    with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\)\. Give a YAML file"):
        read_runtime_env(file)


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


def test_a_job_never_has_less_time_to_save_than_it_needs():
    patient = replace(ABSOLUTE, runtime=RuntimeConfig(stop_timeout_s=300.5))
    assert stop_wait(patient, RAY_JOB_STOP_WAIT_TIME_S="120") == "361"
    assert stop_wait(patient, RAY_JOB_STOP_WAIT_TIME_S="600") == "600"
    with pytest.raises(UserError, match=r"^env_vars\.RAY_JOB_STOP_WAIT_TIME_S=2m: must be whole seconds \(runtime env"):
        stop_wait(patient, RAY_JOB_STOP_WAIT_TIME_S="2m")


def test_a_job_has_time_for_the_last_rows_of_wandb():
    # 60 s for the round, 60 for its checkpoint, what the server gets and 10 for the service on the node.
    for timeout_s, seconds in ((60.0, "190"), (300.2, "431")):
        tracking = TrackingConfig(trackers=["wandb"], wandb=WandbConfig(timeout_s=timeout_s))
        assert stop_wait(replace(ABSOLUTE, tracking=tracking)) == seconds


def test_a_folder_elsewhere_cannot_take_the_config():
    with pytest.raises(UserError, match=r"^working_dir=s3://code\.zip: the config could not be put into it"):
        job_environment({"working_dir": "s3://code.zip"}, ABSOLUTE)


def test_a_folder_that_is_no_path_is_one_line():
    with pytest.raises(UserError) as refused:
        job_environment({"working_dir": [1]}, ABSOLUTE)
    assert str(refused.value) == (
        "working_dir=[1]: must be a path (runtime environment). Give a folder of this machine."
    )


def test_a_home_of_nobody_is_a_path_that_is_not_sent():
    config = replace(ABSOLUTE, data=DataConfig(root="~no_such_user/data"))
    with pytest.raises(ConfigError, match=r"^data\.root: '~no_such_user/data' is a path of this machine, and not sent"):
        check_sendable(config, None)


def test_paths_that_a_job_would_lose_or_not_find_are_refused_at_once(tmp_path):
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


def test_a_folder_must_exist_and_leave_the_name_of_the_config_free(tmp_path):
    with pytest.raises(UserError, match=r"absent: no such folder\."):
        check_sendable(ABSOLUTE, tmp_path / "absent")
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match=r"has a config\.yaml, the name of the config that is sent\."):
        check_sendable(ABSOLUTE, tmp_path)


def test_what_is_sent_is_the_config_and_the_folder(tmp_path, monkeypatch):
    from ray._private.runtime_env.packaging import create_package

    code = tmp_path / "code"
    (code / "package").mkdir(parents=True)
    (code / "package/module.py").write_text("x = 1\n")
    (code / "results.bin").touch()
    (code / ".gitignore").write_text("*.bin\n")
    monkeypatch.chdir(tmp_path)

    with packed(ABSOLUTE, Path("code")) as folder:
        assert load([folder / "config.yaml"], [], methods=config_classes()).run == ABSOLUTE.run
        create_package(str(folder), tmp_path / "sent.zip", include_gitignore=True)
    assert not folder.exists()
    assert (code / "package/module.py").exists()
    from zipfile import ZipFile

    with ZipFile("sent.zip") as sent:
        assert sorted(sent.namelist()) == [".gitignore", "config.yaml", "package/module.py"]
        assert sent.read("package/module.py") == b"x = 1\n"

"""What is sent with a job: its runtime environment, and one folder with the resolved config."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from fedvtc.config import lost_outputs, to_yaml
from fedvtc.config.problems import Problem, show
from fedvtc.config.schema import Config
from fedvtc.config.secrets import is_reference, is_secret_name, is_switch, secret_keys, secrets_in, texts
from fedvtc.errors import ConfigError, UserError

CONFIG_FILE = "config.yaml"
ENTRYPOINT = f"python -m fedvtc run {CONFIG_FILE} --plain"
STOP_WAIT_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
STOP_WAIT_S = 120
"""Seconds, at least, that a job that is stopped gets to save; Ray's own default is 3."""
SAVE_S = 60
"""Seconds for the checkpoint, after those in which a round may still end."""


def read_runtime_env(file: Path) -> dict[str, Any]:
    """Reads and checks a runtime environment of Ray.

    Raises:
        UserError: it cannot be read, Ray does not take it, or it holds a secret, which Ray shows to all.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"{file}: cannot be read ({reason}). Give a YAML file such as jobs/runtime_env.yaml.") from None
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UserError(f"{file}: expected keys with values. Write lines such as `env_vars: {{NAME: value}}`.")
    env_vars = content.get("env_vars") or {}
    if not isinstance(env_vars, dict):
        raise UserError(f"{file}: env_vars: expected names with values. Write lines such as `NAME: value`.")
    for name, value in env_vars.items():
        if is_secret_name(str(name)) and value and not (is_reference(str(value)) or is_switch(str(value))):
            fix = "Set it in the environment of the cluster itself, such as by a Kubernetes Secret."
            raise UserError(f"{file}: env_vars.{name} is a secret, and Ray shows it to all who see the job. {fix}")
    for key, text in texts(content):
        for secret in secrets_in(text):
            what = f"holds the value of ${secret}, and Ray shows it to all who see the job"
            fix = f"Set {secret} in the environment of the cluster itself, and leave it out here."
            raise UserError(f"{file}: {key}: {what}. {fix}")
    for key in secret_keys(content):
        fix = "Put it into the environment of the cluster itself, and ${NAME} in its place."
        raise UserError(
            f"{file}: {key}: a URL carries a password or token, and Ray shows it to all who see the job. {fix}"
        )
    _check_with_ray(file, content)
    return content


def _check_with_ray(file: Path, content: Mapping[str, Any]) -> None:
    from ray.runtime_env import RuntimeEnv

    try:
        # Ray takes folders of this machine in these two only once they are sent.
        RuntimeEnv(**{key: value for key, value in content.items() if key not in ("working_dir", "py_modules")})
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: Ray does not take it ({' '.join(str(error).split()).rstrip('.')}). Mend it."
        ) from None


def job_environment(runtime_env: Mapping[str, Any], config: Config) -> tuple[dict[str, Any], Path | None]:
    """A runtime environment that has what every job needs.

    Args:
        runtime_env: the user's.
        config: of the run.

    Returns:
        It, and the folder that it asks to be sent, which is taken out of it.

    Raises:
        UserError: it asks for a folder that cannot be sent from here, or its time to stop is no number.
    """
    environment = {key: value for key, value in runtime_env.items() if key != "working_dir"}
    env_vars = dict(environment.get("env_vars") or {})
    asked = str(env_vars.get(STOP_WAIT_VARIABLE, STOP_WAIT_S))
    if not asked.isdecimal():
        what = "must be whole seconds (runtime environment)"
        raise UserError(f"env_vars.{STOP_WAIT_VARIABLE}={asked}: {what}. Leave it out, or give such as {STOP_WAIT_S}.")
    env_vars[STOP_WAIT_VARIABLE] = str(max(int(asked), _stop_s(config)))
    folder = runtime_env.get("working_dir")
    if folder is None:
        return {**environment, "env_vars": env_vars}, None
    if not isinstance(folder, str | Path):
        raise UserError(f"working_dir={folder}: must be a path (runtime environment). Give a folder of this machine.")
    if "://" in str(folder):
        fix = "Give a folder of this machine, or send your code by py_modules."
        raise UserError(f"working_dir={folder}: the config could not be put into it (runtime environment). {fix}")
    return {**environment, "env_vars": env_vars}, Path(folder)


def _stop_s(config: Config) -> int:
    """Seconds that a run may take to end once it is asked to."""
    seconds = config.runtime.stop_timeout_s + SAVE_S
    if "wandb" in config.tracking.trackers:
        # Here, for pictures come along with it.
        from fedvtc.tracking.wandb.tracker import LOCAL_S

        seconds += config.tracking.wandb.timeout_s + LOCAL_S
    return max(STOP_WAIT_S, math.ceil(seconds))


def check_sendable(config: Config, working_dir: Path | None) -> None:
    """Refuses what a job would not find, or would lose.

    Args:
        config: of the run.
        working_dir: the folder that is sent with it.

    Raises:
        UserError: one line for each.
    """
    if working_dir is not None and not working_dir.is_dir():
        raise UserError(f"--working-dir={working_dir}: no such folder. Name the folder that the job is to run in.")
    if working_dir is not None and (working_dir / CONFIG_FILE).exists():
        fix = "Rename it; `fedvtc submit` takes it under any name."
        raise UserError(f"--working-dir={working_dir}: has a {CONFIG_FILE}, the name of the config that is sent. {fix}")
    problems = list(lost_outputs(config))
    inputs = {"data.root": config.data.root, "data.path": config.data.path, "partition.file": config.partition.file}
    for key, path in inputs.items():
        if not path or os.path.isabs(os.path.expanduser(path)):
            continue
        if working_dir is None or not (working_dir / path).exists():
            fix = "Give an absolute path that the head reaches, or --working-dir with the folder that has it."
            problems.append(Problem(key, f"{show(path)} is a path of this machine, and not sent with the job", fix=fix))
    if problems:
        raise ConfigError([str(problem) for problem in problems])


@contextmanager
def packed(config: Config, working_dir: Path | None) -> Iterator[Path]:
    """A temporary folder with the config and, as links, which Ray follows, what the user sends along."""
    with TemporaryDirectory(prefix="fedvtc-") as name:
        folder = Path(name)
        for entry in working_dir.iterdir() if working_dir else ():
            (folder / entry.name).symlink_to(entry.absolute())
        (folder / CONFIG_FILE).write_text(to_yaml(config), encoding="utf-8")
        yield folder

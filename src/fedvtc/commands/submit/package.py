"""The package of a job: its runtime environment, and a folder with the resolved config.

Ray uploads a folder under a hash of its content, and only if the cluster lacks the folder of this hash. A folder that
holds the configs of several runs is therefore uploaded once for all of their jobs.
"""

import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeGuard

import yaml

from fedvtc.config import lost_outputs, to_yaml
from fedvtc.config.naming import file_name
from fedvtc.config.problems import Problem, show
from fedvtc.config.schema import Config
from fedvtc.config.secrets import is_reference, is_secret_name, is_switch, secret_keys, secrets_in, texts
from fedvtc.errors import ConfigError, UserError
from fedvtc.runtime.actors.token import DEFAULT_FILE as DEFAULT_TOKEN_FILE
from fedvtc.runtime.actors.token import TOKEN_FILE

CONFIG_FOLDER = "fedvtc-configs"
"""The folder of the resolved configs in the folder that is sent with a job."""
ALWAYS_SENT = (f"!/{CONFIG_FOLDER}", f"!/{CONFIG_FOLDER}/**")
"""Patterns that send the configs, whatever earlier patterns leave out."""
MAX_NAME_BYTES = 200
"""Maximum length of the name of a config file without its ending."""
IGNORE_FILES = (".gitignore", ".rayignore")
"""Files of a folder that name files which Ray does not send."""
STOP_WAIT_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
STOP_WAIT_S = 120
"""Minimum seconds that a stopped job has to save its run; Ray's own default is 3."""
SAVE_S = 60
"""Seconds to write a checkpoint, after `runtime.stop_timeout_s` for the end of the round."""

SECRET_FILES = "*.env"
"""Pattern of files with secrets, such as secrets.env for a Kubernetes Secret; jobs do not get them."""
SHOWN = "show to everyone who can see the job"
"""The end of messages about secrets."""


def read_runtime_env(file: Path) -> dict[str, Any]:
    """Reads and checks a runtime environment of Ray.

    Raises:
        UserError: the file is unreadable, Ray rejects it, or it contains a secret, which Ray would show to everyone.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        fix = "Give a YAML file, for example with `env_vars: {NAME: value}`."
        raise UserError(f"{file}: cannot be read ({reason}). {fix}") from None
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UserError(f"{file}: expected keys with values. Write for example `env_vars: {{NAME: value}}`.")
    env_vars = content.get("env_vars") or {}
    if not isinstance(env_vars, dict):
        raise UserError(f"{file}: env_vars: expected names with values. Write for example `NAME: value`.")
    for name, value in env_vars.items():
        if is_secret_name(str(name)) and value and not (is_reference(str(value)) or is_switch(str(value))):
            fix = "Set the variable in the environment of the cluster, for example with a Kubernetes Secret."
            raise UserError(f"{file}: env_vars.{name}: a secret, which Ray would {SHOWN}. {fix}")
    for key, text in texts(content):
        for secret in secrets_in(text):
            what = f"contains the value of ${secret}, which Ray would {SHOWN}"
            fix = f"Set {secret} in the environment of the cluster and remove the value here."
            raise UserError(f"{file}: {key}: {what}. {fix}")
    for key in secret_keys(content):
        what = f"a URL contains a password or token, which Ray would {SHOWN}"
        fix = "Set the secret in the environment of the cluster and write ${NAME} here."
        raise UserError(f"{file}: {key}: {what}. {fix}")
    _check_with_ray(file, content)
    return content


def _check_with_ray(file: Path, content: Mapping[str, Any]) -> None:
    from ray.runtime_env import RuntimeEnv

    try:
        # Ray accepts local folders in these two keys only after their upload.
        RuntimeEnv(**{key: value for key, value in content.items() if key not in ("working_dir", "py_modules")})
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{file}: Ray rejects this runtime environment ({reason}). Correct the file.") from None


def job_environment(runtime_env: Mapping[str, Any], config: Config) -> tuple[dict[str, Any], Path | None]:
    """Adds the time to stop to a runtime environment, and removes the working folder.

    Args:
        runtime_env: the user's runtime environment.
        config: the config of the run.

    Returns:
        The environment without `working_dir`, and the working folder or None.

    Raises:
        UserError: `working_dir` is not a folder of this machine, or the time to stop is not a whole number.
    """
    environment = {key: value for key, value in runtime_env.items() if key != "working_dir"}
    env_vars = dict(environment.get("env_vars") or {})
    asked = str(env_vars.get(STOP_WAIT_VARIABLE, STOP_WAIT_S))
    if not asked.isdecimal():
        fix = f"Remove the variable, or set for example {STOP_WAIT_S}."
        raise UserError(f"env_vars.{STOP_WAIT_VARIABLE}={asked}: must be whole seconds (runtime environment). {fix}")
    env_vars[STOP_WAIT_VARIABLE] = str(max(int(asked), _stop_s(config)))
    folder = runtime_env.get("working_dir")
    if folder is None:
        return {**environment, "env_vars": env_vars}, None
    if not isinstance(folder, str | Path):
        raise UserError(f"working_dir={folder}: must be a path (runtime environment). Give a folder of this machine.")
    if "://" in str(folder):
        what = "must be a folder of this machine, because the config is added to it (runtime environment)"
        raise UserError(f"working_dir={folder}: {what}. Give a folder, or send your code with py_modules.")
    return {**environment, "env_vars": env_vars}, Path(folder)


def sent_folders(runtime_env: Mapping[str, Any] | None, working_dir: Path | None) -> list[Path]:
    """Returns the folders of this machine whose modules a job can import.

    Args:
        runtime_env: the user's runtime environment.
        working_dir: the folder of `--working-dir`, which replaces that of the environment.
    """
    environment = runtime_env or {}
    folder = working_dir or environment.get("working_dir")
    packages = [package for package in environment.get("py_modules") or () if _is_here(package)]
    # Ray sends a package by its own folder.
    sent = [Path(folder)] if _is_here(folder) else []
    return sent + [Path(package).absolute().parent for package in packages]


def _is_here(path: object) -> TypeGuard[str | Path]:
    return isinstance(path, str | Path) and "://" not in str(path)


def _stop_s(config: Config) -> int:
    """Returns the seconds that a run may need to end after SIGTERM."""
    seconds = config.runtime.stop_timeout_s + SAVE_S
    if "wandb" in config.tracking.trackers:
        # Imported here, because the module imports picture libraries.
        from fedvtc.tracking.wandb.tracker import LOCAL_S

        seconds += config.tracking.wandb.timeout_s + LOCAL_S
    return max(STOP_WAIT_S, math.ceil(seconds))


def check_sendable(config: Config, working_dir: Path | None) -> None:
    """Refuses inputs that a job would not find, and outputs that it would lose.

    Args:
        config: the config of the run.
        working_dir: the folder that is sent with the job.

    Raises:
        UserError: one line for each problem.
    """
    if working_dir is not None and not working_dir.is_dir():
        raise UserError(f"--working-dir={working_dir}: no such folder. Give the folder whose copy the job runs in.")
    if working_dir is not None and (working_dir / CONFIG_FOLDER).exists():
        what = f"contains {CONFIG_FOLDER}, the name of the folder in which the config of the job is sent"
        raise UserError(f"--working-dir={working_dir}: {what}. Rename that folder.")
    problems = list(lost_outputs(config))
    inputs = {"data.root": config.data.root, "data.path": config.data.path, "partition.file": config.partition.file}
    for key, path in inputs.items():
        if not path or os.path.isabs(os.path.expanduser(path)):
            continue
        if working_dir is None or not (working_dir / path).exists():
            fix = "Give an absolute path on the head node, or --working-dir with a folder that contains the path."
            problems.append(
                Problem(key, f"{show(path)} is a path on this machine that is not sent with the job", fix=fix)
            )
    if problems:
        raise ConfigError([str(problem) for problem in problems])


def unsent_files(runtime_env: Mapping[str, Any], working_dir: Path | None) -> list[str]:
    """Returns the patterns of files that are not sent: `SECRET_FILES`, the user's `excludes`, files with a token."""
    # The user's patterns come later, so that `!FILE` sends a file all the same; the configs are always sent.
    patterns = [SECRET_FILES, *(runtime_env.get("excludes") or ()), *ALWAYS_SENT]
    for name in (os.environ.get(TOKEN_FILE), DEFAULT_TOKEN_FILE):
        file = Path(name).expanduser().resolve() if name else None
        if file and working_dir and file.is_relative_to(working_dir.resolve()):
            inside = file.relative_to(working_dir.resolve()).as_posix()
            patterns.append("/" + re.sub(r"([^\w/.-])", r"\\\1", inside))
    return patterns


def entrypoint(config: Config) -> str:
    """Returns the shell command of the job of a run with a name."""
    return f"python -m fedvtc run {shlex.quote(_config_file(config))} --plain"


@contextmanager
def packed(configs: Iterable[Config], working_dir: Path | None) -> Iterator[Path]:
    """Makes a temporary folder with configs and links to the entries of `working_dir`; Ray follows links.

    Args:
        configs: the configs of runs with different names.
        working_dir: the folder whose copy the jobs run in.
    """
    with TemporaryDirectory(prefix="fedvtc-") as name:
        folder = Path(name)
        for entry in working_dir.iterdir() if working_dir else ():
            if entry.name in IGNORE_FILES and entry.is_file():
                # The files of patterns such as *.yaml are not sent, but the configs are.
                (folder / entry.name).write_bytes(entry.read_bytes() + "\n".join(["", *ALWAYS_SENT, ""]).encode())
            else:
                (folder / entry.name).symlink_to(entry.absolute())
        (folder / CONFIG_FOLDER).mkdir()
        for config in configs:
            (folder / _config_file(config)).write_text(to_yaml(config), encoding="utf-8")
        yield folder


def _config_file(config: Config) -> str:
    name = file_name(str(config.run.name)).encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    return f"{CONFIG_FOLDER}/{name}.yaml"

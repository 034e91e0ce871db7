"""Makes the paths of a config absolute, so that a run resumes from any working folder."""

import dataclasses
import os
from typing import Any, TypeVar

from fedvtc.config.hints import hints_of, metadata
from fedvtc.config.job_paths import JOB_VARIABLE
from fedvtc.config.problems import encoding_problem
from fedvtc.config.schema import Config
from fedvtc.config.section import IsPath, MayChange, key_of
from fedvtc.errors import ConfigError

SectionT = TypeVar("SectionT")


def absolute_paths(config: Config) -> Config:
    """Returns the config with absolute paths instead of paths relative to the working folder.

    Changes the keys marked `IsPath` that may also change on resume. A path that must not change on resume is part of
    the fingerprint, so equal configs would differ from folder to folder; a resumed run does not read such a path.

    In the process of a submitted job the paths stay as they are, because Ray deletes the job's working folder.

    Raises:
        ConfigError: a path is not UTF-8 text, because the working folder is not.
    """
    return config if JOB_VARIABLE in os.environ else _absolute(config)


def _absolute(section: SectionT, prefix: str = "") -> SectionT:
    changed: dict[str, Any] = {}
    kind: type = type(section)
    hints = hints_of(kind)
    for field in dataclasses.fields(section):  # type: ignore[arg-type]
        value = getattr(section, field.name)
        key = key_of(field.name)
        markers = {type(item) for item in metadata(hints[key])}
        if dataclasses.is_dataclass(value):
            changed[field.name] = _absolute(value, f"{prefix}{key}.")
        elif isinstance(value, str) and value and {IsPath, MayChange} <= markers and "://" not in value:
            path = changed[field.name] = os.path.abspath(os.path.expanduser(value))
            if problem := encoding_problem(f"{prefix}{key}", path):
                raise ConfigError([str(problem)])
    return dataclasses.replace(section, **changed)  # type: ignore[type-var]

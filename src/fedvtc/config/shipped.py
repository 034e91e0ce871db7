"""The config files that fedvtc ships, which every command finds from any working folder.

A wheel holds the folder `conf` inside the package. A source tree has the folder at its top.
"""

import os
from pathlib import Path

from fedvtc.config.problems import nearest

SUFFIX = ".yaml"
_PACKAGE = Path(__file__).parents[1]
_PREFIX = "conf/"


def shipped_folder() -> Path:
    """Returns the folder of the shipped configs."""
    inside = _PACKAGE / "conf"
    return inside if inside.is_dir() else _PACKAGE.parents[1] / "conf"


def shipped_names() -> list[str]:
    """Returns the names of all shipped configs, such as `experiment/digits`, sorted."""
    folder = shipped_folder()
    return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob(f"*{SUFFIX}"))


def is_shipped(name: str) -> bool:
    """Returns True if a shipped config has the name: `conf/experiment/digits.yaml` or `experiment/digits`."""
    return _shipped(name) is not None


def nearest_shipped(name: str) -> str | None:
    """Returns the name of the shipped config most similar to GROUP/NAME, or None if no name is similar."""
    return nearest(_short(name), shipped_names()) if "/" in name else None


def located(name: str | Path, folder: Path = Path()) -> Path:
    """Returns the path of a config file.

    A file below `folder` wins over a shipped config of the same name. The ending `.yaml` may be left out.

    Args:
        name: the path as the user wrote it, relative to `folder`; or the name of a shipped config.
        folder: the folder of the file that includes the config; for the command line the working folder.

    Returns:
        The path of the file; a path below `folder` if there is no such file.
    """
    asked = Path(os.path.normpath(folder / name))
    # Not Path.is_file, which raises for a name that is too long.
    found = next((path for path in (str(asked), f"{asked}{SUFFIX}") if os.path.isfile(path)), None)
    return Path(found) if found else _shipped(str(name)) or asked


def _shipped(name: str) -> Path | None:
    short = _short(name)
    # Without a check of the parts, `..` would lead out of the folder.
    if os.path.isabs(short) or ".." in Path(short).parts:
        return None
    file = f"{shipped_folder() / short}{SUFFIX}"
    return Path(file) if os.path.isfile(file) else None


def _short(name: str) -> str:
    return os.path.normpath(name).removeprefix(_PREFIX).removesuffix(SUFFIX)

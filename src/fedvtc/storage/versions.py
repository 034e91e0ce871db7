"""Lists the installed versions of the packages that decide about results, and compares them with former versions."""

import importlib.metadata
import platform
from collections.abc import Mapping

PACKAGES = ("fedvtc", "torch", "torchvision", "lightning", "ray", "numpy", "timm")


def installed() -> dict[str, str]:
    """Returns versions by name, with `python`; packages that are not installed are left out."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def changed(before: Mapping[str, str | None]) -> list[str]:
    """Returns the packages whose installed version differs from a former one, such as `torch 2.15.0 (now 2.16.0)`.

    Args:
        before: former versions by name; packages that were not installed then or are not installed now are left out.
    """
    pairs = ((name, before.get(name), now) for name, now in installed().items())
    return [f"{name} {former} (now {now})" for name, former, now in pairs if former not in (None, now)]

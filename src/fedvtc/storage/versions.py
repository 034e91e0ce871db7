"""Lists the installed versions of the packages that decide about results."""

import importlib.metadata
import platform

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

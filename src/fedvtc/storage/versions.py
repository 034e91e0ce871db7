"""Which releases of the packages that decide about results are installed."""

import importlib.metadata
import platform

PACKAGES = ("fedvtc", "torch", "torchvision", "lightning", "ray", "numpy")


def installed() -> dict[str, str]:
    """Versions by name, Python's own among them; fedvtc's is missing in a source tree that was not installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions

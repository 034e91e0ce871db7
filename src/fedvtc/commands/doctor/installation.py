"""Checks of the installation: Python, the packages, and torch with torchvision and the GPUs.

Package versions come from metadata, and torch loads in a separate process: a broken package affects its own row only.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata, version
from pathlib import Path

from fedvtc.commands.doctor.finding import Finding

COMPROMISED = {"lightning": ("2.6.2", "2.6.3")}
"""Releases that steal keys, by package: advisory GHSA-w37p-236h-pfx3."""

TORCH_PROBE = """
import json, torch, torchvision
torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
names, faults = [], []
for index in range(torch.cuda.device_count()):
    try:
        torch.ones(1, device=f"cuda:{index}").add(1).item()
        names.append(torch.cuda.get_device_name(index))
    except RuntimeError as error:
        faults.append(f"cuda:{index}: {str(error).splitlines()[0]}")
versions = f"torch {torch.__version__} and torchvision {torchvision.__version__}"
print(json.dumps({"versions": versions, "cuda": torch.version.cuda, "gpus": names, "faults": faults}))
"""
"""Imports both packages, which fails for a mismatched pair, and uses each GPU, which fails for an old driver."""
TORCH_TIMEOUT_S = 180.0
"""Time limit of the probe; the first import from a network file system takes minutes."""


def python() -> Iterator[Finding]:
    """Checks the version of Python against the bounds of fedvtc's metadata."""
    from packaging.specifiers import SpecifierSet

    found = f"Python {'.'.join(map(str, sys.version_info[:3]))}"
    about = _metadata()
    wanted = about["Requires-Python"] if about else ""
    if SpecifierSet(wanted).contains(found.split()[1], prereleases=True):
        yield Finding("Python", "ok", found)
    else:
        yield Finding("Python", "fault", f"{found}, but fedvtc needs {wanted}", f"Use Python {wanted}.")


def packages() -> Iterator[Finding]:
    """Checks every package that fedvtc needs against the bounds of fedvtc's metadata."""
    from packaging.requirements import Requirement

    about = _metadata()
    if about is None:
        fix = "Install fedvtc in its folder: uv pip install -e ."
        yield Finding("packages", "warning", "fedvtc is not installed, so its requirements are unknown", fix)
        return
    good = []
    for text in about.get_all("Requires-Dist") or []:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        finding = _package(needed.name, str(needed.specifier), needed.specifier.contains)
        if finding.is_good:
            good.append(finding.found)
        else:
            yield finding
    yield Finding("packages", "ok", ", ".join(good))


def _metadata() -> PackageMetadata | None:
    """The metadata of fedvtc; None if fedvtc is not installed."""
    try:
        return metadata("fedvtc")
    except PackageNotFoundError:
        return None


def _package(name: str, bounds: str, fits: Callable[..., bool]) -> Finding:
    install = f"uv pip install '{name}{bounds}'"
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, "fault", "is not installed", f"Run {install}.")
    if found in COMPROMISED.get(name, ()):
        fix = f"Run {install}, then replace every key stored on this machine."
        return Finding(name, "fault", f"{found} is a compromised release that steals keys", fix)
    if not fits(found, prereleases=True):
        return Finding(name, "fault", f"{found} is installed, but fedvtc needs {bounds}", f"Run {install}.")
    return Finding(name, "ok", f"{name} {found}")


def torch_and_devices() -> Iterator[Finding]:
    """Checks that torch and torchvision load together, and that torch can compute on each GPU."""
    what = "torch and torchvision"
    try:
        words = [sys.executable, "-c", TORCH_PROBE]
        probe = subprocess.run(words, capture_output=True, text=True, timeout=TORCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        found = f"did not load within {TORCH_TIMEOUT_S:g} s"
        yield Finding(what, "fault", found, "Move the Python environment to a faster disk.")
        return
    if probe.returncode:
        ended = f"the import ended with exit code {probe.returncode}"
        found = next(reversed(probe.stderr.strip().splitlines()), ended)
        fix = "Reinstall both together: uv pip install --reinstall torch torchvision"
        yield Finding(what, "fault", found, fix)
        return
    loaded = json.loads(probe.stdout.splitlines()[-1])
    yield Finding(what, "ok", f"{loaded['versions']} load together")
    for text in loaded["faults"]:
        yield Finding("GPU", "fault", text, "Install a torch that fits the driver, or set placement.gpus_per_actor=0.")
    if loaded["gpus"]:
        yield Finding("GPU", "ok", ", ".join(loaded["gpus"]))
    elif not loaded["faults"]:
        yield _no_gpu(loaded["cuda"])


def _no_gpu(cuda: str | None) -> Finding:
    """The row of a machine on which torch finds no GPU; a warning if the machine has a driver for GPUs.

    Args:
        cuda: version of CUDA that torch was built for; None for a CPU build.
    """
    if not Path("/proc/driver/nvidia/version").exists():
        return Finding("GPU", "ok", "none found; clients compute on CPUs")
    if cuda is None:
        return Finding("GPU", "warning", "torch is a CPU build, but there is a GPU driver", "Install torch for CUDA.")
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        fix = "Unset CUDA_VISIBLE_DEVICES to use the GPUs."
        return Finding("GPU", "warning", "CUDA_VISIBLE_DEVICES hides all GPUs", fix)
    found = f"torch for CUDA {cuda} finds no GPU, but there is a GPU driver"
    return Finding("GPU", "warning", found, "Update the driver; nvidia-smi shows its version.")

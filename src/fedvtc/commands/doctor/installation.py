"""Checks of what is installed: Python, the packages, and whether torch, torchvision and the GPUs work together.

Packages are looked at from outside or in a process of their own, so that a broken one breaks its own row only.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

from fedvtc.commands.doctor.finding import Finding

COMPROMISED = {"lightning": ("2.6.2", "2.6.3")}
"""Releases that stole keys: GHSA-w37p-236h-pfx3."""

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
versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
print(json.dumps({"versions": versions, "cuda": torch.version.cuda, "gpus": names, "faults": faults}))
"""
"""Importing both is the test of the pair; a sum on each GPU that of its driver and of the kernels torch brings."""
TORCH_TIMEOUT_S = 180.0
"""Seconds for the probe; the first import from a network file system takes minutes."""


def packages() -> Iterator[Finding]:
    """Python and every package against the bounds of fedvtc's own metadata."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        about = metadata("fedvtc")
    except PackageNotFoundError:
        fix = "Install it: uv pip install -e . in its folder."
        yield Finding("packages", "warning", "fedvtc is not installed, so what it needs is not known", fix)
        return
    python = ".".join(map(str, sys.version_info[:3]))
    wanted = about["Requires-Python"]
    fits = SpecifierSet(wanted).contains(python, prereleases=True)
    yield Finding("Python", "ok" if fits else "fault", python, "" if fits else f"Use Python {wanted}.")
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


def _package(name: str, bounds: str, fits: Callable[..., bool]) -> Finding:
    install = f"uv pip install '{name}{bounds}'"
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, "fault", "is not installed", install)
    if found in COMPROMISED.get(name, ()):
        fix = f"{install}, and replace every key that this machine holds."
        return Finding(name, "fault", f"{found} was compromised and steals keys", fix)
    if not fits(found, prereleases=True):
        return Finding(name, "fault", f"{found}, needed is {bounds}", install)
    return Finding(name, "ok", f"{name} {found}")


def torch_and_devices() -> Iterator[Finding]:
    """Whether torch and torchvision load together and which GPUs they can use."""
    what = "torch and torchvision"
    try:
        words = [sys.executable, "-c", TORCH_PROBE]
        probe = subprocess.run(words, capture_output=True, text=True, timeout=TORCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        yield Finding(what, "fault", f"did not load in {TORCH_TIMEOUT_S:g} s", "Put the environment on a faster disk.")
        return
    if probe.returncode:
        ended = f"loading them ended the process with code {probe.returncode}"
        found = next(reversed(probe.stderr.strip().splitlines()), ended)
        fix = "Reinstall the two as a pair: uv pip install --reinstall torch torchvision"
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
    if not Path("/proc/driver/nvidia/version").exists():
        return Finding("GPU", "ok", "none; clients compute on CPUs")
    if cuda is None:
        return Finding("GPU", "warning", "present, but torch is a build for CPUs", "Install a torch for CUDA.")
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        return Finding("GPU", "warning", "CUDA_VISIBLE_DEVICES hides them", "Unset it to use them.")
    return Finding("GPU", "warning", f"CUDA {cuda} of torch finds none", "Update the driver; nvidia-smi shows it.")

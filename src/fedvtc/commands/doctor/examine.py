"""Runs all checks of the machine, and of a run folder if one is given."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fedvtc.commands.doctor import installation, machine
from fedvtc.commands.doctor.finding import Finding, safely

FACTS = {
    "Python": installation.python,
    "CPUs": machine.cpus,
    "memory": machine.memory,
    "open files": machine.open_files,
    "address space": machine.address_space,
    "launcher": machine.launcher,
    "FEDVTC_DATA": machine.data_root,
    "wandb": machine.wandb,
}
"""Checks whose good findings share one row, `environment`. A warning or fault has its own row."""

CHECKS = {
    "packages": installation.packages,
    "torch and torchvision": installation.torch_and_devices,
    "Ray": machine.ray,
    "outputs": machine.outputs,
}
"""Checks whose findings each have a row. The key names the row of a check that raises."""


def examine(folder: Path | None, overrides: Sequence[str] = (), *, trusted: bool = False) -> list[Finding]:
    """Checks this machine and, if given, a run folder. A check that raises becomes a finding, so examine never raises.

    Args:
        folder: a run folder; every byte of its checkpoints is read. None checks the machine only.
        overrides: `key=value` words that win over the run's config.yaml, as in `fedvtc resume`.
        trusted: True checks `checkpoint.dir` even if another user owns the run folder.
    """
    findings = _environment()
    findings += [finding for what, check in CHECKS.items() for finding in safely(what, check)]
    if folder is not None:
        findings += safely(str(folder), lambda: _examine_run(folder, overrides, trusted), "fault")
    return findings


def _environment() -> list[Finding]:
    found = [finding for what, check in FACTS.items() for finding in safely(what, check)]
    facts = [finding.found for finding in found if finding.state == "ok"]
    row = [Finding("environment", "ok", ", ".join(facts))] if facts else []
    return [*row, *(finding for finding in found if finding.state != "ok")]


def _examine_run(folder: Path, overrides: Sequence[str], trusted: bool) -> Iterator[Finding]:
    # Not at the top: the import fails if a package is missing, and the rows above name that package.
    from fedvtc.commands.doctor.run_folder import examine_run

    yield from examine_run(folder, overrides, trusted=trusted)

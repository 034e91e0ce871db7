"""What `fedvtc doctor` finds: whether a run would work on this machine, and whether a run folder is whole.

Nothing is started, changed or mended, and nothing that an environment keeps secret is shown.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fedvtc.commands.doctor import installation, machine
from fedvtc.commands.doctor.finding import Finding, findings_table, safely

__all__ = ["Finding", "examine", "findings_table"]

CHECKS = {
    "packages": installation.packages,
    "torch and torchvision": installation.torch_and_devices,
    "CPUs": machine.cpus,
    "memory": machine.memory,
    "Ray": machine.ray,
    "outputs": machine.outputs,
    "open files": machine.open_files,
    "launcher": machine.launcher,
    "FEDVTC_DATA": machine.data_root,
    "wandb": machine.wandb,
}
"""Every check of the environment, under the name of the row that says so where it breaks."""


def examine(folder: Path | None, overrides: Sequence[str] = (), *, trusted: bool = False) -> list[Finding]:
    """Checks the environment, and a run folder where one is named; a check that breaks is a finding too.

    Where that is one of the run folder it is a fault: nobody knows then whether the run is whole.

    Args:
        folder: of a run, every byte of whose checkpoints is read; None leaves it out.
        overrides: `key=value` that win over its config.yaml, as where it is resumed.
        trusted: True to look at a checkpoint.dir that the folder of another user names.
    """
    findings = [finding for what, check in CHECKS.items() for finding in safely(what, check)]
    if folder is not None:
        findings += safely(str(folder), lambda: _examine_run(folder, overrides, trusted), "fault")
    return findings


def _examine_run(folder: Path, overrides: Sequence[str], trusted: bool) -> Iterator[Finding]:
    # Here and not at the top: it needs packages, and the rows above say which of them are missing.
    from fedvtc.commands.doctor.run_folder import examine_run

    yield from examine_run(folder, overrides, trusted=trusted)

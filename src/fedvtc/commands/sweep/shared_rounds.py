"""Trials with equal rounds: one of them computes the rounds, and the others start from there."""

from collections import defaultdict
from pathlib import Path

from fedvtc.commands.sweep.folder import SweepFolder
from fedvtc.commands.sweep.trials import Trial
from fedvtc.config import rounds_key
from fedvtc.reporting.comparison.trials import ABSENT, FINISHED


def sources(folder: SweepFolder) -> dict[str, Trial]:
    """Returns, for each trial that has not begun and need not compute its rounds, the trial with the same rounds.

    Such trials differ in keys that matter after the last round only, such as those of fine-tuning. A finished trial
    is the source of the others; without one, the first trial is. Sweeps that stop trials early have no sources,
    because a copied round is no new report to the scheduler; nor have trials without checkpoints.
    """
    if folder.sweep.asha is not None:
        return {}
    groups: dict[str, list[Trial]] = defaultdict(list)
    for trial in folder.sweep.trials:
        if trial.config.checkpoint.every is not None:
            groups[rounds_key(trial.config)].append(trial)
    found: dict[str, Trial] = {}
    for members in groups.values():
        states = {trial.name: folder.state(trial) for trial in members}
        source = next((trial for trial in members if states[trial.name] == FINISHED), members[0])
        found |= {trial.name: source for trial in members if trial is not source and states[trial.name] == ABSENT}
    return found


def finished_sources(folder: SweepFolder) -> dict[str, Path]:
    """Returns the run folder that a trial can start from, by the name of the trial."""
    return {name: source.path for name, source in sources(folder).items() if folder.state(source) == FINISHED}

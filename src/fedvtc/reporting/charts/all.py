"""All figures of a report, in the order of the page."""

from collections.abc import Sequence
from dataclasses import replace

from fedvtc.reporting.charts.classes import classes, partitions
from fedvtc.reporting.charts.clients import clients, sorted_clients, summary
from fedvtc.reporting.charts.costs import costs
from fedvtc.reporting.charts.curves import curves
from fedvtc.reporting.charts.differences import differences
from fedvtc.reporting.charts.evaluations import evaluations
from fedvtc.reporting.charts.features import features
from fedvtc.reporting.charts.figure import Figure, Groups
from fedvtc.reporting.charts.last_step import last_step
from fedvtc.reporting.charts.memory import memory
from fedvtc.reporting.charts.phases import phases
from fedvtc.reporting.charts.privacy import privacy
from fedvtc.reporting.charts.style import places_of
from fedvtc.reporting.results import RunResult, compared, unfinished

SECTIONS = ("Accuracy", "Clients", "Classes", "Evaluations", "Images", "Features", "Privacy", "Costs", "Training")
FINISHED_ONLY = " Finished runs only."
SO_FAR = " No run has finished: the numbers are those so far, and the runs of a group may differ in their rounds."


def groups_with_colours(runs: Sequence[RunResult]) -> Groups:
    """Returns the groups of runs with their fixed colours."""
    return Groups(places_of({run.group: run.facts.method for run in runs}))


def figures_of(runs: Sequence[RunResult], targets: Sequence[float] = ()) -> list[Figure]:
    """Returns the figures of runs, section by section; figures without numbers are left out.

    Figures of groups show the runs that are `compared`, and their notes tell of unfinished runs. Figures of one run
    show every run.

    Args:
        runs: the runs.
        targets: mean accuracies for the costs to reach an accuracy; empty takes shares of the best accuracy.
    """
    chosen = compared(runs)
    # Colours of all groups, so that a group has the same colour before and after its first run finishes.
    groups = groups_with_colours(runs).having({run.group for run in chosen})
    found = [
        *curves(chosen, groups),
        *summary(chosen, groups),
        *differences(chosen, groups),
        *clients(chosen, groups),
        *sorted_clients(runs),
        *classes(runs),
        *partitions(runs),
        *last_step(chosen, groups),
        *evaluations(chosen, groups),
        *features(runs),
        *privacy(chosen, groups),
        *costs(chosen, groups, targets),
        *phases(chosen, groups),
        *memory(chosen, groups),
    ]
    note = "" if not unfinished(runs) else SO_FAR if len(chosen) == len(runs) else FINISHED_ONLY
    found = [replace(figure, note=figure.note + note) if figure.has_groups else figure for figure in found]
    return sorted(found, key=lambda figure: SECTIONS.index(figure.section))

"""All figures of a report, in the order of the page."""

from collections.abc import Sequence

from fedvtc.reporting.charts.classes import classes, partitions
from fedvtc.reporting.charts.clients import clients, summary
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
from fedvtc.reporting.results import RunResult

SECTIONS = ("Accuracy", "Clients", "Classes", "Evaluations", "Images", "Features", "Privacy", "Costs", "Training")


def groups_with_colours(runs: Sequence[RunResult]) -> Groups:
    """Returns the groups of runs with their fixed colours."""
    return Groups(places_of({run.group: run.facts.method for run in runs}))


def figures_of(runs: Sequence[RunResult], targets: Sequence[float] = ()) -> list[Figure]:
    """Returns the figures of runs, section by section; figures without numbers are left out.

    Args:
        runs: the runs.
        targets: mean accuracies for the costs to reach an accuracy; empty takes shares of the best accuracy.
    """
    groups = groups_with_colours(runs)
    found = [
        *curves(runs, groups),
        *summary(runs, groups),
        *differences(runs, groups),
        *clients(runs, groups),
        *classes(runs),
        *partitions(runs),
        *last_step(runs, groups),
        *evaluations(runs, groups),
        *features(runs),
        *privacy(runs, groups),
        *costs(runs, groups, targets),
        *phases(runs, groups),
        *memory(runs, groups),
    ]
    return sorted(found, key=lambda figure: SECTIONS.index(figure.section))

"""Saves the panels of workspace.json as a workspace of a W&B project.

    pip install wandb-workspaces
    python load_workspace.py ENTITY PROJECT workspace.json

The keys of a panel are the arguments of the class of its `kind` in `wandb_workspaces.reports.v2`. A metric is the name
of a curve, or an object: `{"config": KEY}` for a key of the config, `{"summary": NAME}` for a number of the summary.
"""

import json
import sys
from pathlib import Path

import wandb_workspaces.reports.v2 as panels
import wandb_workspaces.workspaces as workspaces


def metric(value):
    """Returns a metric of the config or of the summary; other values stay."""
    if not isinstance(value, dict):
        return value
    ((place, name),) = value.items()
    return panels.Config(name) if place == "config" else panels.SummaryMetric(name)


def panel(kind, **values):
    """Builds a panel."""
    values = {name: metric(value) for name, value in values.items()}
    if "columns" in values:
        values["columns"] = [panels.ParallelCoordinatesPlotColumn(metric=metric(one)) for one in values["columns"]]
    return getattr(panels, kind)(**values)


def workspace(entity, project, template):
    """Builds the workspace of a template, with all sections open."""
    sections = [
        workspaces.Section(name=section["name"], panels=[panel(**one) for one in section["panels"]], is_open=True)
        for section in template["sections"]
    ]
    settings = workspaces.WorkspaceSettings(x_axis="round")
    return workspaces.Workspace(
        entity=entity, project=project, name=template["name"], sections=sections, settings=settings
    )


if __name__ == "__main__":
    entity, project, file = sys.argv[1:]
    saved = workspace(entity, project, json.loads(Path(file).read_text(encoding="utf-8"))).save()
    print(saved.url)

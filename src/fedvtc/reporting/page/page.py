"""Renders the page of a report: figures, tables and pictures in one HTML file that loads nothing from elsewhere."""

import base64
import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from statistics import fmean
from typing import Any

import vl_convert
import yaml
from jinja2 import Environment

from fedvtc.learning.metrics import HEADLINE_METRICS
from fedvtc.reporting.charts.all import SECTIONS
from fedvtc.reporting.charts.figure import Figure, Groups
from fedvtc.reporting.charts.style import FAINT, INK, chart_config, colour_of, dash_of, shape_of
from fedvtc.reporting.page.files import VEGA_LITE, spec_of
from fedvtc.reporting.page.pictures import Picture
from fedvtc.reporting.results import RunResult, compared, groups_of, number, unfinished
from fedvtc.reporting.run_facts import repeat_command
from fedvtc.reporting.run_numbers import RECEIVED, SENT, WALL_CLOCK
from fedvtc.reporting.seeds import mean_and_std
from fedvtc.reporting.tables import human_bytes

PICTURE_NOTES = {
    "Images": "Images that the generator draws, one row per class, in the first and the last round with samples and "
    "between. The command fedvtc features RUN adds real test images, and projections of features.",
    "Privacy": "The worst cases of each kind.",
}
"""Explanation of the pictures of each section, by the section's title."""
MAX_INCIDENTS = 50
GENERATOR = '<meta name="generator" content="fedvtc report">'
"""Tells a report from other pages."""


def render(
    title: str,
    runs: Sequence[RunResult],
    figures: Sequence[Figure],
    pictures: Sequence[Picture],
    groups: Groups,
    problems: Sequence[str],
) -> str:
    """Returns the page.

    Args:
        title: the heading.
        runs: the runs of the report.
        figures: the figures.
        pictures: pictures of the run folders.
        groups: the groups with their colours.
        problems: lines about runs that are left out.
    """
    folder = files(__package__)
    present = {figure.section for figure in figures} | {picture.section for picture in pictures}
    template = Environment(autoescape=True, trim_blocks=False).from_string(_read(folder, "page.html.j2"))
    return template.render(
        title=title,
        generator=GENERATOR,
        css=_read(folder, "page.css"),
        script=_read(folder, "page.js"),
        vega=_vega(),
        data=_packed(_data(figures, groups)),
        sections=[section for section in SECTIONS if section in present],
        figures=figures,
        groups=list(groups.places),
        overview=_overview(runs),
        measures=_measures(figures),
        pictures={section: list(_shown(pictures, section)) for section in SECTIONS},
        picture_notes=PICTURE_NOTES,
        runs=[_described(run) for run in runs],
        problems=problems,
        version=version("fedvtc"),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


@cache
def _vega() -> str:
    """Returns Vega, Vega-Lite and Vega-Embed as one script."""
    # The types of vl-convert 1.9 do not know that the snippet may be left out.
    return vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]


def _read(folder: Any, name: str) -> str:
    return str(folder.joinpath(name).read_text(encoding="utf-8"))


def _packed(values: Any) -> str:
    """Returns values as JSON, compressed and in base64, which holds no letter that could end the element around it."""
    text = json.dumps(values, separators=(",", ":"))
    # Without the time, so that equal runs give an equal page.
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _data(figures: Sequence[Figure], groups: Groups) -> dict[str, Any]:
    return {
        "config": chart_config(),
        "ink": INK,
        "faint": FAINT,
        "groups": {
            group: {"colour": colour_of(place), "dash": dash_of(place), "shape": shape_of(place)}
            for group, place in groups.places.items()
        },
        "tables": {figure.name: figure.csv() for figure in figures},
        "figures": [
            {
                "name": figure.name,
                "labels": list(figure.labels),
                "choices": [
                    {"label": choice.label, "field": choice.field, "options": list(choice.options.items())}
                    for choice in figure.choices
                ],
                "has_groups": figure.has_groups,
                "grows": figure.has_groups and figure.name not in ("curves", "losses", "last-step"),
                "num_drawn": _num_drawn(figure),
                "charts": [
                    {"key": list(key), "meaning": figure.meanings.get(key, ""), "spec": _page_spec(figure, key)}
                    for key in figure.charts
                ],
            }
            for figure in figures
        ],
    }


def _num_drawn(figure: Figure) -> int:
    """Returns the rows that a chart draws at most: those of one value of every choice."""
    fields = [choice.field for choice in figure.choices]
    return max(Counter(tuple(row[field] for field in fields) for row in figure.rows).values())


def _page_spec(figure: Figure, key: tuple[str, ...]) -> dict[str, Any]:
    spec = spec_of(figure, key)
    del spec["$schema"]
    return spec


def _overview(runs: Sequence[RunResult]) -> dict[str, Any]:
    """Returns headings and cells of the table of groups."""
    rows = []
    chosen, left_out = compared(runs), unfinished(runs)
    what = "numbers so far, unfinished" if len(chosen) == len(runs) else "left out"
    for group, everyone in groups_of(runs).items():
        members = [run for run in everyone if run in chosen]
        num_runs = str(len(members)) if len(members) == len(everyone) else f"{len(members)} of {len(everyone)}"
        cells = [group, num_runs, _range([run.facts.last_round for run in members])]
        for key in HEADLINE_METRICS.values():
            values = [value for run in members if (value := run.numbers.get(key)) is not None]
            mean, std = mean_and_std(values)
            cells.append(
                "-" if mean is None else f"{mean:.4f}" if std is None else f"{mean:.4f} \N{PLUS-MINUS SIGN} {std:.4f}"
            )
        totals = [
            (run.numbers[SENT] + run.numbers[RECEIVED], run.numbers[WALL_CLOCK]) for run in members if run.numbers
        ]
        num_bytes, seconds = (fmean(values) for values in zip(*totals, strict=True)) if totals else (0.0, 0.0)
        cells += [human_bytes(num_bytes), f"{seconds:,.0f}"] if members else ["-", "-"]
        rows.append(cells)
    return {
        "headings": ["group", "runs", "rounds", *HEADLINE_METRICS, "sent and received", "seconds"],
        "rows": rows,
        "meanings": {group: f"{what}: {text}" for group, text in left_out.items()},
    }


def _range(values: Sequence[int]) -> str:
    """Returns the range of some numbers: `1 to 3`, one number if all are equal, or `-` without numbers."""
    return " to ".join(map(str, sorted({min(values), max(values)}))) if values else "-"


def _measures(figures: Sequence[Figure]) -> dict[str, Any]:
    """Returns headings, cells and meanings of the table of the measures of privacy."""
    rows = [row for figure in figures if figure.name == "privacy" for row in figure.rows]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        std = f" \N{PLUS-MINUS SIGN} {row['value'] - row['low']:.3g}" if "low" in row else ""
        cells.setdefault(row["measure"], {})[row["group"]] = f"{row['value']:.4g}{std}"
    return {
        "headings": ["measure", *groups],
        "rows": [[name, *(own.get(group, "-") for group in groups)] for name, own in cells.items()],
        "meanings": {row["measure"]: row["meaning"] for row in rows},
    }


def _shown(pictures: Sequence[Picture], section: str) -> Iterator[dict[str, str]]:
    """Yields the pictures of a section."""
    for picture in pictures:
        if picture.section == section:
            uri = f"data:image/png;base64,{base64.b64encode(picture.content).decode()}"
            yield {"uri": uri, "run": picture.run, "title": picture.title}


def _described(run: RunResult) -> dict[str, Any]:
    """Returns the facts about a run: status, versions, hardware, commits, incidents, config and command."""
    about, status = run.facts.description, run.facts.status
    attempts = about.get("attempts")
    attempts = attempts if isinstance(attempts, list) else []
    hardware, versions = _mapping(about.get("hardware")), _mapping(about.get("versions"))
    commits = _mapping(_mapping(attempts[-1]).get("commits")) if attempts else {}
    reason = f" ({status.reason})" if status.reason else ""
    facts = {
        "folder": str(run.folder),
        "started": about.get("created"),
        "ended": about.get("ended"),
        "attempts": len(attempts),
        "rounds": f"{run.facts.last_round} of {run.facts.num_rounds}",
        "hardware": _hardware(hardware),
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
        "commits": ", ".join(f"{name} {value}" for name, value in commits.items()),
    }
    incidents = [
        f"round {record['round']}: {text}"
        for record in run.records
        if isinstance(record.get("incidents"), list)
        for text in record["incidents"]
    ]
    left = len(incidents) - MAX_INCIDENTS
    return {
        "name": run.name,
        "status": status.name + reason,
        "facts": {name: value for name, value in facts.items() if value},
        "incidents": incidents[:MAX_INCIDENTS] + ([f"and {left} more, in metrics.jsonl"] if left > 0 else []),
        "config": yaml.safe_dump(dict(run.facts.config), sort_keys=False, allow_unicode=True),
        "command": repeat_command(run.facts),
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _hardware(hardware: Mapping[str, Any]) -> str:
    parts = [f"{hardware['cpus']} CPUs"] if hardware.get("cpus") else []
    memory = number(hardware.get("memory_bytes"))
    parts += [f"{human_bytes(memory)} of memory"] if memory else []
    gpus = hardware.get("gpus")
    parts += [str(gpu) for gpu in gpus] if isinstance(gpus, list) else []
    return ", ".join(parts)

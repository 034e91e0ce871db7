"""Writes figures as SVG, PDF, PNG and CSV."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from fedvtc.reporting.charts.figure import TABLE, Figure
from fedvtc.reporting.charts.heatmaps import LETTER_WIDTH
from fedvtc.reporting.charts.style import chart_config
from fedvtc.reporting.page.pictures import Picture
from fedvtc.storage.atomic import replaced

WIDTH = 620
PNG_SCALE = 2.0
KEY_WIDTH = 45
"""Pixels of a legend's symbol and of the space between two columns."""
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


def spec_of(figure: Figure, key: tuple[str, ...]) -> dict[str, Any]:
    """Returns the Vega-Lite spec of a chart without its rows; the data is named `TABLE`."""
    spec: dict[str, Any] = figure.charts[key].to_dict(context={"pre_transform": False})
    spec.pop("config", None)
    # Data of a layer would escape the transforms of the whole chart.
    for layer in spec.get("layer", []):
        layer.pop("data", None)
    spec["data"] = {"name": TABLE, "format": {"type": "csv", "parse": figure.parse()}}
    return spec


def write_figure(figure: Figure, folder: Path) -> list[Path]:
    """Writes the rows of a figure, and its exported charts in three formats.

    Args:
        figure: the figure.
        folder: an existing folder.

    Returns:
        The files.

    Raises:
        OSError: if a file cannot be written.
    """
    csv = folder / f"{figure.name}.csv"
    with replaced(csv) as beside:
        beside.write_text(figure.csv(), encoding="utf-8")
    files = [csv]
    for name, spec in _exported(figure):
        svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)
        contents = {
            "svg": svg.encode(),
            "pdf": vl_convert.svg_to_pdf(svg),
            "png": vl_convert.svg_to_png(svg, scale=PNG_SCALE),
        }
        for suffix, content in contents.items():
            files.append(folder / f"{name}.{suffix}")
            with replaced(files[-1]) as beside:
                beside.write_bytes(content)
    return files


def write_picture(picture: Picture, folder: Path) -> Path:
    """Writes a picture of a run folder; returns the file.

    Raises:
        OSError: the file cannot be written.
    """
    file = folder / f"{_slug(f'{picture.section} {picture.run} {picture.name}')}.png"
    with replaced(file) as beside:
        beside.write_bytes(picture.content)
    return file


def _exported(figure: Figure) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the file name and the whole spec of each chart that becomes files."""
    firsts = {choice.field: next(iter(choice.options)) for choice in figure.choices}
    chosen: list[Mapping[str, Any]] = [{**firsts, **values} for values in figure.exported_rows] or [firsts]
    for key in figure.exported or list(figure.charts)[:1]:
        for values in chosen:
            spec = spec_of(figure, key)
            filters = [{"filter": {"field": field, "equal": value}} for field, value in values.items()]
            spec["transform"] = [*filters, *spec.get("transform", [])]
            spec["datasets"] = {TABLE: figure.csv()}
            # White, because a transparent picture is black on some viewers.
            config = chart_config() | {"background": "white"}
            letters = max(map(len, _names(spec)), default=0)
            config["legend"] |= {"columns": max(1, WIDTH // (KEY_WIDTH + LETTER_WIDTH * letters))}
            spec |= {"width": WIDTH, "config": config}
            words = [figure.name, *(key if len(figure.charts) > 1 else ())]
            words += [str(value) for value in values.values()] if len(chosen) > 1 else []
            yield _slug(" ".join(words)), spec


def _names(node: Any) -> Iterator[str]:
    """Yields the names in the scales of a spec, which stand in its legends."""
    if isinstance(node, Mapping):
        domain = node.get("domain")
        yield from (str(name) for name in domain) if isinstance(domain, list) else ()
        for value in node.values():
            yield from _names(value)
    elif isinstance(node, list):
        for value in node:
            yield from _names(value)


def _slug(text: str) -> str:
    """Returns a text as a file name."""
    return re.sub(r"[^a-z0-9+.]+", "-", text.lower()).strip("-.")[:120]

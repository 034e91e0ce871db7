"""Colours, dashes and fonts of all charts.

Every method has a colour and a dash of its own, the same in every report. The colours are those of Okabe and Ito, which
people with colour-blindness tell apart, without black and yellow, which vanish on one of the two backgrounds.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c")
DASHES = ((1, 0), (6, 3), (2, 2), (9, 3, 2, 3))
SHAPES = ("circle", "square", "triangle-up", "cross")
HOMES = (
    *("FedVTC+", "FedVTC", "Local", "FedProto", "FedAvg", "FedGen", "LG-FedAvg"),
    *("FD", "FML", "FedKD", "FedTGP", "FedGH", "FedMRL", "FedProx"),
    *("FedType", "FedKWAZ", "FedRE", "FedL2G", "CCVR", "GeFL", "FedCVAE-Ens"),
    *("Gaussian head", "FedCVAE"),
)
"""Methods by their place: the first seven have solid lines, the next seven dashed lines, and so on."""
NUM_STYLES = len(COLOURS) * len(DASHES)
PART_COLOURS = (
    *("#4c78a8", "#9ecae9", "#f58518", "#ffbf79", "#54a24b", "#88d27a", "#b79a20", "#f2cf5b", "#439894", "#83bcb6"),
    *("#e45756", "#ff9d98", "#79706e", "#bab0ac", "#d67195", "#fcbfd2", "#b279a2", "#d6a5c9", "#9e765f", "#d8b5a5"),
)
"""Colours of the parts of a bar: Tableau's twenty, in pairs of a dark and a light one."""
SEQUENTIAL: Final = "viridis"

INK, FAINT = "#22262b", "#d9dde2"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"


def places_of(groups: Mapping[str, str]) -> dict[str, int]:
    """Returns the place of each group in the table of colours and dashes.

    A group takes the place of its method; further groups of the method, and methods without a place, take the next free
    place. With more groups than places, places are shared.

    Args:
        groups: the label of the method by group.
    """
    places: dict[str, int] = {}
    # Methods with a place of their own come first, so that no other group takes their place.
    for group, method in sorted(groups.items(), key=lambda item: (item[1] not in HOMES, item[0])):
        home = HOMES.index(method) if method in HOMES else zlib.crc32(method.encode()) % NUM_STYLES
        tries = [(home + step) % NUM_STYLES for step in range(NUM_STYLES)]
        places[group] = next((place for place in tries if place not in places.values()), home)
    return {group: places[group] for group in groups}


def colour_of(place: int) -> str:
    """Returns the colour of a place."""
    return COLOURS[place % len(COLOURS)]


def dash_of(place: int) -> Sequence[int]:
    """Returns the dash of a place."""
    return DASHES[place // len(COLOURS)]


def shape_of(place: int) -> str:
    """Returns the shape of points of a place."""
    return SHAPES[place // len(COLOURS)]


def chart_config(ink: str = INK, faint: str = FAINT) -> dict[str, Any]:
    """Returns the Vega-Lite config of all charts.

    Args:
        ink: colour of texts.
        faint: colour of lines of a grid.
    """
    text = {"labelColor": ink, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 500}
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "axisX": {"tickCount": {"expr": "ceil(width / 90)"}},
        "axis": {
            **text,
            "gridColor": faint,
            "domainColor": faint,
            "tickColor": faint,
            "labelLimit": 150,
            "labelPadding": 6,
        },
        "legend": {
            **text,
            "orient": "bottom",
            "symbolStrokeWidth": 2,
            "symbolOpacity": 1,
            "labelLimit": 180,
            "title": None,
        },
        "text": {"color": ink, "fontSize": 11},
        "rule": {"color": ink},
        "range": {"category": list(COLOURS)},
    }

"""Writes a report: the page, and the figures as files."""

from collections.abc import Sequence
from pathlib import Path

from fedvtc.errors import UserError, count_of
from fedvtc.reporting.charts.all import figures_of, groups_with_colours
from fedvtc.reporting.page.files import write_figure, write_picture
from fedvtc.reporting.page.page import GENERATOR, render
from fedvtc.reporting.page.pictures import MAX_BYTES, pictures_of
from fedvtc.reporting.results import RunResult, compared, unfinished
from fedvtc.reporting.tables import human_bytes
from fedvtc.storage.atomic import replaced

PAGE = "index.html"
MAX_HEAD_BYTES = 4096


def write_report(
    folder: Path,
    title: str,
    runs: Sequence[RunResult],
    problems: Sequence[str],
    targets: Sequence[float],
    *,
    with_files: bool,
) -> tuple[Path, int]:
    """Writes index.html and figures/ into a folder; replaces an earlier report.

    Args:
        folder: the folder; created if missing.
        title: heading of the page.
        runs: the runs of the report, at least one.
        problems: lines about runs that are left out.
        targets: mean accuracies whose costs are compared.
        with_files: True writes every figure as files too.

    Returns:
        The page, and the number of files in figures/.

    Raises:
        UserError: the folder holds an index.html that is no report.
        OSError: a file cannot be written.
    """
    page = checked_page(folder)
    figures, (pictures, num_left) = figures_of(runs, targets), pictures_of(runs)
    if num_left:
        room = f"the page has room for {human_bytes(MAX_BYTES)} of pictures; the run folders hold all."
        problems = [*problems, f"{count_of(num_left, 'picture')}: {room}"]
    problems = [*_about_unfinished(runs), *problems]
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    if with_files:
        (folder / "figures").mkdir(exist_ok=True)
        files = [file for figure in figures for file in write_figure(figure, folder / "figures")]
        files += [write_picture(picture, folder / "figures") for picture in pictures]
    text = render(title, runs, figures, pictures, groups_with_colours(runs), problems)
    with replaced(page) as beside:
        beside.write_text(text, encoding="utf-8")
    return page, len(files)


def checked_page(folder: Path) -> Path:
    """Returns the page of a report in a folder; raises a UserError if the page would replace another file."""
    page = folder / PAGE
    if page.exists() and not _is_report(page):
        raise UserError(f"{page}: is no report, and would be replaced. Name another folder by -o.")
    return page


def _about_unfinished(runs: Sequence[RunResult]) -> list[str]:
    """Returns the line about unfinished runs; none if all runs have finished."""
    left_out = unfinished(runs)
    if not left_out:
        return []
    if len(compared(runs)) == len(runs):
        return ["No run is left out: none has finished, so curves, means and differences have the numbers so far."]
    named = "; ".join(f"{group}: {text}" for group, text in left_out.items())
    return [f"Curves, means and differences have finished runs only. Unfinished: {named}."]


def _is_report(page: Path) -> bool:
    with page.open("rb") as file:
        return GENERATOR.encode() in file.read(MAX_HEAD_BYTES)

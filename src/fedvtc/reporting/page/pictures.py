"""Pictures of run folders on a page: generated images beside real ones, and the worst cases of privacy."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fedvtc.reporting.results import RunResult, groups_of
from fedvtc.storage.features import FEATURES_FOLDER, REAL_FILE
from fedvtc.storage.privacy import PRIVACY_FOLDER

MAX_BYTES = 1_200_000
"""Bytes of all pictures on a page; pictures that would exceed them are left out."""
MAX_ROUNDS = 4
"""Rounds of a run whose samples are shown: the first, the last, and others evenly spaced."""
WORST = {
    "copies.png": "generated images that are nearest to training images; beside each, its nearest training image and "
    "its nearest unseen image",
    "inversions.png": "best reconstructions from prototypes; beside each, the client's nearest training image",
}
"""Meaning of the pictures of `fedvtc privacy`."""


class Picture(NamedTuple):
    """A PNG picture of a run folder.

    Attributes:
        section: heading of the part of the page.
        run: name of the run.
        name: name of the file in the run folder, without suffix.
        title: text below the picture.
        content: the file.
    """

    section: str
    run: str
    name: str
    title: str
    content: bytes


def pictures_of(runs: Sequence[RunResult]) -> tuple[list[Picture], int]:
    """Returns the pictures of one run per group, as far as `MAX_BYTES` allows, and the number of the others.

    Every group has its first pictures before any group has more.
    """
    kept: dict[tuple[int, int], Picture] = {}
    num_bytes = 0
    members = [list(_of_group(own)) for own in groups_of(runs).values()]
    for place in range(max(map(len, members), default=0)):
        for group, own in enumerate(members):
            if place < len(own) and num_bytes + len(own[place].content) <= MAX_BYTES:
                kept[group, place] = own[place]
                num_bytes += len(own[place].content)
    return [kept[key] for key in sorted(kept)], sum(map(len, members)) - len(kept)


def _of_group(members: Sequence[RunResult]) -> Iterator[Picture]:
    """Yields the pictures of the first run with samples, and of the first run with measures of privacy."""
    for run in members:
        samples = sorted((run.folder / "samples").glob("round_*.png"))
        if samples:
            real = run.folder / FEATURES_FOLDER / REAL_FILE
            last = len(samples) - 1
            places = {round(last * step / (MAX_ROUNDS - 1)) for step in range(MAX_ROUNDS)}
            titled = {samples[place]: f"generated, round {int(samples[place].stem[6:])}" for place in sorted(places)}
            yield from _read("Images", run, {real: "real test images", **titled})
            break
    for run in members:
        worst = {run.folder / PRIVACY_FOLDER / name: text for name, text in WORST.items()}
        if any(file.is_file() for file in worst):
            yield from _read("Privacy", run, worst)
            break


def _read(section: str, run: RunResult, files: dict[Path, str]) -> Iterator[Picture]:
    for file, title in files.items():
        # Not a link, which could lead to any file.
        with suppress(OSError):
            if not file.is_symlink():
                yield Picture(section, run.name, file.stem, title, file.read_bytes())

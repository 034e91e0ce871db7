"""Writes and reads confusion.npz: the confusion matrices of every client, by evaluation and predictor.

The file is an archive of one array per evaluation and predictor. A new evaluation is compressed once; the earlier ones
are copied as they are.

Shape suffixes: K clients, C classes.
"""

import io
import itertools
import re
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedvtc.errors import first_line
from fedvtc.storage.atomic import replaced

CONFUSION_FILE = "confusion.npz"
MAX_COUNTS = 2**26
"""Counts of all kept evaluations together, for one predictor; 268 MB in memory, and a tenth of these bytes on disk."""

_SUFFIX = ".npy"
_NAME = re.compile(r"(?:round_(?P<round>[0-9]{6,})|final)(?:/(?P<predictor>[^/]+))?")


class Evaluated(NamedTuple):
    """Names one array of confusion.npz.

    Attributes:
        round: round of the evaluation; None for the final evaluation.
        predictor: name of the predictor; empty for the predictor that a run is ranked by.
    """

    round: int | None
    predictor: str = ""

    @property
    def name(self) -> str:
        """Name of the array: `round_000010`, `final`, `final/trained`."""
        start = "final" if self.round is None else f"round_{self.round:06d}"
        return f"{start}/{self.predictor}" if self.predictor else start

    @classmethod
    def parse(cls, name: str) -> "Evaluated | None":
        """Returns the evaluation and predictor of a name; None for another name."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        return cls(int(match["round"]) if match["round"] else None, match["predictor"] or "")


def kept_every(num_evaluations: int, num_counts: int) -> int | None:
    """Returns n if every n-th evaluation of a run is kept, so that `MAX_COUNTS` is not exceeded.

    Args:
        num_evaluations: evaluations of the whole run.
        num_counts: counts of one evaluation, clients x classes x classes.

    Returns:
        The number n; None if a single evaluation exceeds `MAX_COUNTS`.
    """
    capacity = MAX_COUNTS // num_counts
    return -(-max(num_evaluations, 1) // capacity) if capacity else None


def add_confusions(folder: Path, confusions: Mapping[Evaluated, NDArray[np.uint32]]) -> None:
    """Adds arrays to confusion.npz of a run folder; creates the file if missing.

    Args:
        folder: the run folder.
        confusions: matrices (K, C, C) by evaluation and predictor.

    Raises:
        OSError: if the file cannot be written; the file is then unchanged.
    """
    file = folder / CONFUSION_FILE
    with replaced(file) as beside:
        if file.is_file():
            shutil.copyfile(file, beside)
        with zipfile.ZipFile(beside, "a", zipfile.ZIP_DEFLATED) as archive:
            for evaluated, counts_KCC in confusions.items():
                content = io.BytesIO()
                np.lib.format.write_array(content, counts_KCC, allow_pickle=False)
                _write(archive, evaluated.name, content.getbuffer())


def _write(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    # Not `writestr`, which writes the time.
    with archive.open(name + _SUFFIX, "w") as member:
        member.write(content)


def cut_confusions(folder: Path, last_round: int) -> None:
    """Removes the final evaluation and those after `last_round`.

    Raises:
        OSError: if the file cannot be read or written.
        ValueError: if the file is no archive; `set_aside_damaged` renames such a file.
    """
    file = folder / CONFUSION_FILE
    names = evaluations(folder)
    kept = [evaluated.name for evaluated in names if evaluated.round is not None and evaluated.round <= last_round]
    if len(kept) < len(names):
        with (
            replaced(file) as beside,
            zipfile.ZipFile(file) as old,
            zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as new,
        ):
            for name in kept:
                _write(new, name, old.read(name + _SUFFIX))


def set_aside_damaged(folder: Path) -> str | None:
    """Renames a damaged confusion.npz, so that a resumed run starts a new file and the user can repair the former one.

    Returns:
        The new name, such as `confusion.damaged-1.npz`; None if the file is whole or missing.

    Raises:
        OSError: if the file cannot be renamed.
    """
    file = folder / CONFUSION_FILE
    if not file.is_file() or _is_whole(file):
        return None
    names = (f"{file.stem}.damaged-{number}{file.suffix}" for number in itertools.count(1))
    free = next(name for name in names if not (folder / name).exists())
    file.rename(folder / free)
    return free


def _is_whole(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    # A disk reports damage as an OSError; a damaged header can name an unknown compression, or an encryption.
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError):
        return False


def evaluations(folder: Path) -> list[Evaluated]:
    """Returns the evaluations and predictors in confusion.npz of a run folder; none if the file is missing.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file is no archive.
    """
    file = folder / CONFUSION_FILE
    if not file.is_file():
        return []
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{CONFUSION_FILE}: not an archive of arrays ({error})") from None
    return [found for name in names if (found := Evaluated.parse(name.removesuffix(_SUFFIX)))]


def read_confusions(folder: Path, evaluated: Evaluated) -> NDArray[np.uint32]:
    """Returns the matrices (K, C, C) of one evaluation and predictor: rows are true classes, columns predicted ones.

    Raises:
        OSError: if the file is missing or cannot be read.
        ValueError: if the file or the array is damaged.
    """
    where = f"{CONFUSION_FILE}: {evaluated.name}"
    try:
        with zipfile.ZipFile(folder / CONFUSION_FILE) as archive, archive.open(evaluated.name + _SUFFIX) as member:
            counts_KCC: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    except KeyError:
        raise ValueError(f"{where}: not in the file") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise ValueError(f"{where}: damaged ({first_line(error)})") from None
    if counts_KCC.ndim != 3 or counts_KCC.shape[1] != counts_KCC.shape[2] or counts_KCC.dtype != np.uint32:
        raise ValueError(f"{where}: an array of {counts_KCC.dtype} and shape {counts_KCC.shape} holds no matrices")
    return counts_KCC

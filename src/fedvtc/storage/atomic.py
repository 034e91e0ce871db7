"""Replaces files and creates folders atomically: a reader or a crash sees the old state or the new one."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yields a path beside `path`; the file that the block writes there replaces `path` at the end of the block.

    After an error, such as a full disk, `path` is unchanged and the new file is gone.

    Raises:
        OSError: if the file cannot be written; the error's `filename` is `path`.
    """
    # The suffix stays last, because some writers choose the format by the suffix.
    beside = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        # A run folder of another user may hold a link there, to any file.
        beside.unlink(missing_ok=True)
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Yields a new folder beside `path`; at the end of the block, this folder becomes `path` with all its files.

    Of two processes that create the same path, one succeeds. A crash leaves at most a folder whose name starts with a
    dot.

    Raises:
        FileExistsError: if `path` exists and is not an empty folder.
        OSError: if the folder cannot be written.
    """
    beside = path.with_name(f".new-{uuid.uuid4().hex[:8]}")
    beside.mkdir()
    try:
        yield beside
        try:
            os.rename(beside, path)
        except OSError as error:
            # Systems report an existing path by different error numbers.
            raise FileExistsError(error.errno, error.strerror, str(path)) if os.path.lexists(path) else error from None
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise

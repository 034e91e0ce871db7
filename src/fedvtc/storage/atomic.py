"""Files that are replaced whole, and folders that appear whole, or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Gives a path beside `path`; what the block writes there takes the place of `path` at the end.

    An error, such as a full disk, leaves `path` as it was and nothing beside it.

    Raises:
        OSError: if it cannot be written; its `filename` is `path`.
    """
    # The suffix stays the last, for it tells some writers the format.
    beside = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        # What lies there may be a link to anywhere, in a folder that came from a stranger.
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
    """Gives a new folder beside `path`; at the end, with all that the block wrote there, it becomes `path`.

    Of two processes that want the same path, one gets it. A crash leaves at most a folder whose name begins with a dot.

    Raises:
        FileExistsError: there is something at `path` that is not an empty folder.
        OSError: it cannot be written.
    """
    beside = path.with_name(f".new-{uuid.uuid4().hex[:8]}")
    beside.mkdir()
    try:
        yield beside
        try:
            os.rename(beside, path)
        except OSError as error:
            # Each system has its own name for it.
            raise FileExistsError(error.errno, error.strerror, str(path)) if os.path.lexists(path) else error from None
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise

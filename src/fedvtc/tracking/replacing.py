"""Files that are replaced whole or not at all."""

import os
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

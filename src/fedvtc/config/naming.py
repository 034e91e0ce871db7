"""Names that a run gets from its config."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Not at run time: checks of the config may ask here too.
    from fedvtc.config.schema import Config


def default_name(config: "Config") -> str:
    """Data, partition, method, seed and the time to the second."""
    method = config.method.label or config.method.name
    name = f"{partition_name(config)}-{method}-s{config.run.seed}-{datetime.now():%Y%m%d-%H%M%S}"
    # A command would take it for an option.
    return file_name(name).lstrip("-")


def partition_name(config: "Config") -> str:
    """Data and partition, in a word that is fit for a file name."""
    partition = config.partition
    divided = f"{partition.kind}{partition.alpha:g}" if partition.kind in ("dirichlet", "quantity") else partition.kind
    return file_name(f"{Path(config.data.path).stem if config.data.path else config.data.name}-{divided}")


def file_name(text: str) -> str:
    """A text with a dash for every letter that may not stand in the name of a file."""
    return "".join(letter if letter.isalnum() or letter in "-._+" else "-" for letter in text)


def is_folder_name(text: str) -> bool:
    """Whether a text is the name of one folder, and no path that leads elsewhere."""
    return text not in ("", ".", "..") and "/" not in text and "\0" not in text

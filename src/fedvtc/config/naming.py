"""Names of runs and files, made from the config."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # `values.py` imports this module, and `schema.py` comes before both.
    from fedvtc.config.schema import Config


def default_name(config: "Config") -> str:
    """Returns a name for a run: data, partition, method, seed and the time to the second, joined with dashes."""
    method = config.method.label or config.method.name
    name = f"{partition_name(config)}-{method}-s{config.run.seed}-{datetime.now():%Y%m%d-%H%M%S}"
    # A command would read a name with a dash in front as an option.
    return file_name(name).lstrip("-")


def partition_name(config: "Config") -> str:
    """Returns data and partition as one word for file names."""
    partition = config.partition
    has_alpha = partition.kind in ("dirichlet", "client_dirichlet", "quantity")
    divided = f"{partition.kind}{partition.alpha:g}" if has_alpha else partition.kind
    return file_name(f"{Path(config.data.path).stem if config.data.path else config.data.name}-{divided}")


def file_name(text: str) -> str:
    """Returns a text with a dash for every letter that is not safe in a file name."""
    return "".join(letter if letter.isalnum() or letter in "-._+" else "-" for letter in text)


def is_folder_name(text: str) -> bool:
    """Returns True if a text can name a folder and is not a path."""
    return text not in ("", ".", "..") and "/" not in text and "\0" not in text

"""Names that a run gets from its config."""

from datetime import datetime
from pathlib import Path

from fedvtc.config.schema import Config


def default_name(config: Config) -> str:
    """Data, partition, method, seed and the time to the second."""
    method = config.method.label or config.method.name
    return file_name(f"{partition_name(config)}-{method}-s{config.run.seed}-{datetime.now():%Y%m%d-%H%M%S}")


def partition_name(config: Config) -> str:
    """Data and partition, in a word that is fit for a file name."""
    partition = config.partition
    divided = f"{partition.kind}{partition.alpha:g}" if partition.kind in ("dirichlet", "quantity") else partition.kind
    return file_name(f"{Path(config.data.path).stem if config.data.path else config.data.name}-{divided}")


def file_name(text: str) -> str:
    """A text with a dash for every letter that may not stand in the name of a file."""
    return "".join(letter if letter.isalnum() or letter in "-._+" else "-" for letter in text)

"""Checks who named the code and the servers that a resumed run uses."""

import os

from fedvtc.config.names import TRACKERS
from fedvtc.config.schema import Config
from fedvtc.errors import ConfigError
from fedvtc.storage.run_folder import RunFolder

LOCAL_SCHEMES = ("file", "local", "memory")
"""Of URLs that lead to no server."""


NOTHING_FOREIGN = ("tracking.trackers=[]", "cluster.address=null", "checkpoint.dir=null")
"""Overrides after which a config names nothing that its folder alone has named."""


def check_trusted(config: Config, given: Config, folder: RunFolder) -> None:
    """A folder may come from a stranger: on its word no code is run, a tracker's or a cluster's, and no server asked.

    Args:
        config: of the run that goes on.
        given: the same with `NOTHING_FOREIGN` before what its user gave.
        folder: of the run.

    Raises:
        ConfigError: the config names what its user did not.
    """
    file = folder.path / "config.yaml"
    names = [name for name in foreign_trackers(config) if name not in given.tracking.trackers]
    if names:
        what = f"{names[0]} is named by {file} only, and no code is imported on its word"
        raise ConfigError([f"tracking.trackers: {what}. Give tracking.trackers=[...] with it, or without it."])
    address = foreign_address(config)
    if address and address != given.cluster.address:
        what = f"{address} is named by {file} only, and a cluster can have this process run code"
        raise ConfigError([f"cluster.address: {what}. Give cluster.address={address}, or cluster.address=null."])
    if directory := foreign_dir(config, given):
        what = f"{directory} is named by {file} only, and its server would hear what this machine logs in with"
        raise ConfigError([f"checkpoint.dir: {what}. Give checkpoint.dir={directory}, or checkpoint.dir=null."])


def foreign_dir(config: Config, given: Config) -> str | None:
    """The `remote_dir` that a folder alone has named; arguments as of `check_trusted`."""
    directory = remote_dir(config)
    return None if directory == given.checkpoint.dir else directory


def remote_dir(config: Config) -> str | None:
    """The URL of the server that keeps the checkpoints; None where they stay on this machine."""
    scheme, separator, _ = (config.checkpoint.dir or "").partition("://")
    return config.checkpoint.dir if separator and scheme.lower() not in LOCAL_SCHEMES else None


def foreign_address(config: Config) -> str | None:
    """The cluster that a run attaches to, where neither this machine nor its user named it."""
    address = config.cluster.address
    if config.placement.pool == "inline" or address in (None, "auto", "local", os.environ.get("RAY_ADDRESS")):
        return None
    return address


def foreign_trackers(config: Config) -> list[str]:
    """Those that the package does not bring: `package.module:Class`."""
    return [name for name in config.tracking.trackers if name not in TRACKERS]

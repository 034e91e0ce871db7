"""Whether the values of a config can work, beyond their types."""

import math
import os
from collections.abc import Iterator

from fedvtc.config.export import to_dict
from fedvtc.config.naming import is_folder_name
from fedvtc.config.operation import TRACKER_NAMES
from fedvtc.config.participation import round_half_up
from fedvtc.config.problems import Problem, did_you_mean, show
from fedvtc.config.ranges import out_of_range
from fedvtc.config.schema import BACKBONE_NAMES, DATASET_NAMES, Config
from fedvtc.config.secrets import carries_secret, secrets_in, texts

SHARES_TOLERANCE = 1e-6
"""How far the shares of a population may be from adding up to 1."""
SMALLEST_SHARE = 1e-6
"""The share of one client in a million; less could not be dealt out."""

MAX_PROJECT_LETTERS = 128
NOT_IN_PROJECTS = "/\\#?%:"
"""Letters that W&B does not take in the name of a project."""


def validate(config: Config) -> list[Problem]:
    """Every value that cannot work, one problem each; none of them has its place filled in."""
    problems = list(out_of_range(config))
    problems += _names(config)
    problems += _shares(config)
    problems += _sizes_and_files(config)
    problems += _paths(config)
    problems += _failures(config)
    problems += _placement(config)
    problems += _trackers(config)
    problems += _wandb(config)
    problems += _method(config)
    problems += _secrets(config)
    return problems


def _names(config: Config) -> Iterator[Problem]:
    name = config.run.name
    if name is not None and not is_folder_name(name):
        fix = "Set run.output_dir for the folder around it."
        yield Problem("run.name", f"must be the name of one folder, not {show(name)}", fix=fix)
    elif name is not None and name.startswith("-"):
        fix = "A command would take it for an option."
        yield Problem("run.name", f"must begin with another letter than -, not {show(name)}", fix=fix)
    if config.data.name not in DATASET_NAMES:
        fix = did_you_mean(config.data.name, DATASET_NAMES)
        yield Problem("data.name", f"unknown data set {show(config.data.name)}", fix=fix)
    for index, backbone in enumerate(config.population.backbones):
        if backbone.name not in BACKBONE_NAMES:
            key = f"population.backbones[{index}].name"
            fix = did_you_mean(backbone.name, BACKBONE_NAMES)
            yield Problem(key, f"unknown backbone {show(backbone.name)}", fix=fix)


def _shares(config: Config) -> Iterator[Problem]:
    backbones = config.population.backbones
    key = "population.backbones"
    if not backbones:
        yield Problem(key, "no backbone", fix="Give at least one, such as [{name: cnn_2x16, share: 1}].")
        return
    for index, backbone in enumerate(backbones):
        if not backbone.share >= SMALLEST_SHARE:
            what = f"must be at least {SMALLEST_SHARE:g}" if backbone.share > 0 else "must be above 0"
            yield Problem(f"{key}[{index}].share", f"{what}, not {show(backbone.share)}")
    total = math.fsum(backbone.share for backbone in backbones)
    if not abs(total - 1) <= SHARES_TOLERANCE:
        fix = f"Equal shares for {len(backbones)} are {1 / len(backbones):.6g}."
        yield Problem(key, f"the shares must add up to 1, not {total:.6g}", fix=fix)


def _sizes_and_files(config: Config) -> Iterator[Problem]:
    partition, data = config.partition, config.data
    if partition.images_per_client is not None and 1 <= partition.images_per_client < partition.min_images:
        what = f"must be at least partition.min_images = {partition.min_images}, not {partition.images_per_client}"
        yield Problem("partition.images_per_client", what)
    if partition.kind == "file" and not partition.file:
        fix = "Set partition.file=RUN_FOLDER/partition.npz."
        yield Problem("partition.file", "missing, and partition.kind is file", fix=fix)
    if data.name in ("npz", "folder") and not data.path:
        example = "FILE.npz" if data.name == "npz" else "FOLDER"
        yield Problem("data.path", f"missing, and data.name is {data.name}", fix=f"Set data.path={example}.")


def _paths(config: Config) -> Iterator[Problem]:
    # None of these shows a whole path, which may be a URL with a password.
    partition, data = config.partition, config.data
    written = {"run.output_dir": config.run.output_dir, "checkpoint.dir": config.checkpoint.dir}
    read = {"data.root": data.root, "data.path": data.path, "partition.file": partition.file}
    for key, path in (written | read).items():
        if path and "\0" in path:
            yield Problem(key, "holds a NUL, the one letter that is in no path")
        # Else a folder of that name would be made.
        elif key in written and path and path.startswith("~") and os.path.expanduser(path) == path:
            home = path.partition("/")[0]
            yield Problem(key, f"{show(home)} is the home of no user here", fix="Write the folder out.")
    directory = config.checkpoint.dir
    if directory == "":
        yield Problem("checkpoint.dir", "must not be empty", fix="Set null for a folder in that of the run.")
    elif directory and "://" in directory and "::" in directory:
        fix = "Name one file system, such as s3://bucket/fedvtc."
        yield Problem("checkpoint.dir", "is a URL that chains several with ::", fix=fix)


def _failures(config: Config) -> Iterator[Problem]:
    run, clients = config.run, config.population.num_clients
    if run.resume == "auto" and not run.name:
        yield Problem("run.resume", "auto finds a run by its name, and run.name is missing", fix="Set run.name=NAME.")
    participants = max(1, round_half_up(run.participation * clients)) if 0 < run.participation <= 1 else clients
    if config.runtime.min_clients > participants:
        what = f"must be at most {participants}, the clients of a round, not {config.runtime.min_clients}"
        yield Problem("runtime.min_clients", what)
    directory = config.checkpoint.dir or ""
    if directory.startswith("memory://") and config.placement.pool != "inline":
        fix = "Set placement.pool=inline, or a folder that every process reaches."
        yield Problem("checkpoint.dir", "memory:// is the memory of one process, and clients live in others", fix=fix)


def _placement(config: Config) -> Iterator[Problem]:
    address = (config.cluster.address or "").lower()
    fix = "Set HOST:6379 on a node of the cluster, or send a job from elsewhere with fedvtc submit."
    if address.startswith("ray://"):
        yield Problem("cluster.address", "ray:// is Ray Client, through which no run can place its actors", fix=fix)
    elif address.startswith(("http://", "https://")) and not carries_secret(address):
        yield Problem("cluster.address", "is the URL of a dashboard, which takes jobs only", fix=fix)
    clients = config.placement.clients_per_actor
    if (clients != "auto") if isinstance(clients, str) else (clients < 1):
        yield Problem("placement.clients_per_actor", f"must be auto or a number of at least 1, not {show(clients)}")
    gpus, accelerator = config.placement.gpus_per_actor, config.placement.accelerator
    if gpus is None:
        return
    if (accelerator == "cpu" and gpus > 0) or (accelerator == "cuda" and gpus == 0):
        fix = "Leave it out, or set placement.accelerator=auto."
        yield Problem(
            "placement.gpus_per_actor", f"{gpus:g} does not go with placement.accelerator={accelerator}", fix=fix
        )
    if math.isfinite(gpus) and gpus > 0 and not _is_gpu_share(gpus):
        if gpus > 1:
            fix = f"Set {math.floor(gpus)} or {math.ceil(gpus)}."
        else:
            fewer, more = math.floor(1 / gpus), math.ceil(1 / gpus)
            fix = f"Set {1 / fewer:.4g} ({fewer} to a GPU) or {1 / more:.4g} ({more} to a GPU)."
        what = f"must be 0, a whole number, or 1/k for k actors on one GPU, not {show(gpus)}"
        yield Problem("placement.gpus_per_actor", what, fix=fix)


def _is_gpu_share(gpus: float) -> bool:
    if gpus >= 1:
        return gpus == int(gpus)
    # 0.33 is written for 1/3: near enough, as three of it fit on a GPU.
    return abs(1 / gpus - round(1 / gpus)) < 0.05


def _trackers(config: Config) -> Iterator[Problem]:
    for index, name in enumerate(config.tracking.trackers):
        module, colon, cls = name.partition(":")
        if name not in TRACKER_NAMES and not (colon and cls.isidentifier() and _is_module(module)):
            fix = f"Take {' or '.join(TRACKER_NAMES)}, or name a class as package.module:Class."
            yield Problem(f"tracking.trackers[{index}]", f"unknown tracker {show(name)}", fix=fix)


def _wandb(config: Config) -> Iterator[Problem]:
    project = config.tracking.wandb.project
    if not 0 < len(project) <= MAX_PROJECT_LETTERS or set(project) & set(NOT_IN_PROJECTS):
        rule = f"must be 1 to {MAX_PROJECT_LETTERS} letters without any of {' '.join(NOT_IN_PROJECTS)}"
        fix = "The team has a key of its own, tracking.wandb.entity."
        yield Problem("tracking.wandb.project", f"{rule}, not {show(project)}", fix=fix)

    for index, tag in enumerate(config.tracking.wandb.tags):
        if not tag:
            yield Problem(f"tracking.wandb.tags[{index}]", "must be at least 1 letter")


def _is_module(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _method(config: Config) -> Iterator[Problem]:
    for text in config.method.problems():
        key, _, what = text.partition(" ")
        yield Problem(f"method.{key.rstrip(':')}", what.rstrip("."))


def _secrets(config: Config) -> Iterator[Problem]:
    for key, text in texts(to_dict(config)):
        for name in secrets_in(text):
            yield Problem(key, f"holds the value of ${name}, which would get into files and logs", fix="Leave it out.")
        if not carries_secret(text):
            continue
        fix = "Leave it out of the URL"
        if key == "checkpoint.dir":
            fix += ", and set FSSPEC_PROTOCOL_PASSWORD, such as FSSPEC_FTP_PASSWORD, on every node"
        yield Problem(key, "the URL carries a password or token, which would get into files and logs", fix=f"{fix}.")

"""Checks of config values that a type and a range cannot express: rules between keys, names, paths and URLs."""

import math
import os
from collections.abc import Collection, Iterator

from fedvtc.config.export import to_dict
from fedvtc.config.names import BACKBONES, DATASETS, TIMM, TRACKERS, has_own_files
from fedvtc.config.naming import is_folder_name
from fedvtc.config.own_code import OwnCodeError, is_import_path, own_calls
from fedvtc.config.participation import round_half_up
from fedvtc.config.problems import Problem, show
from fedvtc.config.registered import NOUNS, Kind, import_path, similar_name
from fedvtc.config.schema import Config
from fedvtc.config.secrets import carries_secret, secrets_in, texts

SHARES_TOLERANCE = 1e-6
"""Largest difference of the sum of shares from 1."""

MAX_PROJECT_LETTERS = 128
NOT_IN_PROJECTS = "/\\#?%:"
"""Letters that W&B refuses in the name of a project."""


def validate(config: Config) -> list[Problem]:
    """Returns a problem, with `where` empty, for each value that cannot work."""
    problems = list(_names(config))
    problems += _shares(config)
    problems += _sizes_and_files(config)
    problems += _length_of_round(config)
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
        fix = "Set run.output_dir for the folder around the run folder."
        yield Problem("run.name", f"must be the name of a folder, without a path, not {show(name)}", fix=fix)
    elif name is not None and name.startswith("-"):
        # A command would read the name as an option.
        yield Problem("run.name", "cannot start with '-'")
    yield from _name_of_code("data.name", "data", config.data.name, DATASETS)
    for index, backbone in enumerate(config.population.backbones):
        if not backbone.name.startswith(TIMM):
            yield from _name_of_code(f"population.backbones[{index}].name", "backbones", backbone.name, BACKBONES)


def _name_of_code(key: str, kind: Kind, name: str, builtin: Collection[str]) -> Iterator[Problem]:
    """Yields a problem if a name is neither built-in nor registered by a package nor an import path."""
    try:
        path = import_path(kind, name, builtin)
    except OwnCodeError as error:
        yield Problem(key, error.what, fix=error.fix)
        return
    if path is None and name not in builtin:
        yield Problem(key, f"unknown {NOUNS[kind]} {show(name)}", fix=similar_name(kind, name, builtin))


def _shares(config: Config) -> Iterator[Problem]:
    backbones = config.population.backbones
    key = "population.backbones"
    if not backbones:
        yield Problem(key, "cannot be empty", fix="Set at least one, such as [{name: cnn_2x16, share: 1}].")
        return
    total = math.fsum(backbone.share for backbone in backbones)
    if not abs(total - 1) <= SHARES_TOLERANCE:
        fix = f"Equal shares of {len(backbones)} backbones are {1 / len(backbones):.6g}."
        yield Problem(key, f"shares must add up to 1, not {total:.6g}", fix=fix)


def _sizes_and_files(config: Config) -> Iterator[Problem]:
    partition, data = config.partition, config.data
    if partition.images_per_client is not None and partition.images_per_client < partition.min_images:
        what = f"must be at least partition.min_images = {partition.min_images}, not {partition.images_per_client}"
        yield Problem("partition.images_per_client", what)
    if partition.kind == "file" and not partition.file:
        fix = "Set partition.file=RUN_FOLDER/partition.npz."
        yield Problem("partition.file", "is required with partition.kind=file", fix=fix)
    if data.name in ("npz", "folder") and not data.path:
        example = "FILE.npz" if data.name == "npz" else "FOLDER"
        yield Problem("data.path", f"is required with data.name={data.name}", fix=f"Set data.path={example}.")
    if not has_own_files(data.name) and data.pixel_max is not None:
        what = f"has no effect with data.name={data.name}, whose pixels are known"
        yield Problem("data.pixel_max", what, fix="Leave the key out.")


def _length_of_round(config: Config) -> Iterator[Problem]:
    training = config.training
    if training.steps is not None and training.epochs != 1:
        what = f"{training.steps} steps and training.epochs={training.epochs} both set the length of a round"
        yield Problem("training.steps", what, fix="Set training.epochs=1 or training.steps=null.")


def _paths(config: Config) -> Iterator[Problem]:
    # No message shows a whole path, which may be a URL with a password.
    for key, path in (("run.output_dir", config.run.output_dir), ("checkpoint.dir", config.checkpoint.dir)):
        # The run would create a folder with the name `~USER`.
        if path and path.startswith("~") and os.path.expanduser(path) == path:
            user = path.partition("/")[0].removeprefix("~")
            yield Problem(key, f"no user {show(user)} on this machine", fix="Set the path without '~'.")
    if "://" in config.run.output_dir:
        fix = "Set a folder; for checkpoints behind a URL, set checkpoint.dir."
        yield Problem("run.output_dir", "cannot be a URL, because run folders need a file system", fix=fix)
    directory = config.checkpoint.dir
    if directory == "":
        yield Problem("checkpoint.dir", "cannot be empty", fix="Set null for a folder in the run folder.")
    elif directory and "://" in directory and "::" in directory:
        fix = "Set the URL of one file system, such as s3://bucket/fedvtc."
        yield Problem("checkpoint.dir", "cannot be a chain of URLs with '::'", fix=fix)


def _failures(config: Config) -> Iterator[Problem]:
    run, clients = config.run, config.population.num_clients
    if run.resume == "auto" and not run.name:
        yield Problem("run.resume", "auto needs run.name to find the run", fix="Set run.name=NAME.")
    participants = max(1, round_half_up(run.participation * clients))
    if config.runtime.min_clients > participants:
        what = f"must be at most {participants}, the clients of a round, not {config.runtime.min_clients}"
        yield Problem("runtime.min_clients", what)
    directory = config.checkpoint.dir or ""
    if directory.startswith("memory://") and config.placement.pool != "inline":
        fix = "Set placement.pool=inline, or a folder that every process can reach."
        yield Problem("checkpoint.dir", "memory:// exists in one process only, and actors are processes", fix=fix)


def _placement(config: Config) -> Iterator[Problem]:
    address = (config.cluster.address or "").lower()
    fix = "Set HOST:6379 on a node of the cluster, or submit a job with fedvtc submit."
    if address.startswith("ray://"):
        yield Problem("cluster.address", "ray:// is an address of Ray Client, which runs cannot use", fix=fix)
    elif address.startswith(("http://", "https://")) and not carries_secret(address):
        yield Problem("cluster.address", "is the URL of a dashboard, which only accepts jobs", fix=fix)
    gpus, accelerator = config.placement.gpus_per_actor, config.placement.accelerator
    if gpus is None:
        return
    # With placement.accelerator=cpu the key has no effect, so that a command can move a run with GPUs to CPUs.
    if accelerator == "cuda" and gpus == 0:
        fix = "Leave the key out, or set placement.accelerator=auto."
        yield Problem("placement.gpus_per_actor", "0 conflicts with placement.accelerator=cuda", fix=fix)
    if gpus > 0 and not _is_gpu_share(gpus):
        if gpus > 1:
            fix = f"Set {math.floor(gpus)} or {math.ceil(gpus)}."
        else:
            fewer, more = math.floor(1 / gpus), math.ceil(1 / gpus)
            fix = f"Set {1 / fewer:.4g} ({fewer} actors per GPU) or {1 / more:.4g} ({more} actors per GPU)."
        what = f"must be 0, a whole number, or 1/k for k actors on one GPU, not {show(gpus)}"
        yield Problem("placement.gpus_per_actor", what, fix=fix)


def _is_gpu_share(gpus: float) -> bool:
    if gpus >= 1:
        return gpus == int(gpus)
    # 0.33 stands for 1/3: three actors of 0.33 fit on a GPU.
    return abs(1 / gpus - round(1 / gpus)) < 0.05


def _trackers(config: Config) -> Iterator[Problem]:
    for index, name in enumerate(config.tracking.trackers):
        if name not in TRACKERS and not is_import_path(name):
            fix = f"Set {', '.join(TRACKERS)} or package.module:Class."
            yield Problem(f"tracking.trackers[{index}]", f"unknown tracker {show(name)}", fix=fix)


def _wandb(config: Config) -> Iterator[Problem]:
    project = config.tracking.wandb.project
    if not 0 < len(project) <= MAX_PROJECT_LETTERS or set(project) & set(NOT_IN_PROJECTS):
        rule = f"must be 1 to {MAX_PROJECT_LETTERS} letters without any of {' '.join(NOT_IN_PROJECTS)}"
        fix = "Set tracking.wandb.entity for the team."
        yield Problem("tracking.wandb.project", f"{rule}, not {show(project)}", fix=fix)


def _method(config: Config) -> Iterator[Problem]:
    name = config.method.name
    try:
        with own_calls():
            found = config.method.problems(config)
    except OwnCodeError as error:
        yield Problem("method.name", error.what, fix=error.fix)
        return
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        what = f"problems of {name} returns {show(found)}, not a list of texts"
        yield Problem("method.name", what, fix="Return `KEY: PROBLEM. FIX.` for each conflict, or [].")
        return
    for text in found:
        key, colon, rest = text.partition(": ")
        if not colon:
            key, rest = "name", text
        what, _, fix = rest.partition(". ")
        yield Problem(f"method.{key}", what.rstrip("."), fix=fix)


def _secrets(config: Config) -> Iterator[Problem]:
    for key, text in texts(to_dict(config)):
        for name in secrets_in(text):
            what = f"contains the value of ${name}, which files and logs would show"
            yield Problem(key, what, fix="Remove the value.")
        if not carries_secret(text):
            continue
        fix = "Remove the password"
        if key == "checkpoint.dir":
            fix += " and set FSSPEC_PROTOCOL_PASSWORD, such as FSSPEC_FTP_PASSWORD, on every node"
        yield Problem(key, "the URL contains a password or token, which files and logs would show", fix=f"{fix}.")

"""Artifacts of a run: data and partition as inputs, the clients' and the server's final states as outputs."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedvtc.storage.records import read_metrics
from fedvtc.tracking.base import RunInfo
from fedvtc.tracking.series import numbers

if TYPE_CHECKING:
    import wandb

PARTITION = "partition.npz"
CLIENT_FILES = "client_*.pt"
HASH_LETTERS = 12
OTHER_LETTERS = re.compile(r"[^a-zA-Z0-9_.-]")
"""Letters that W&B refuses in the name of an artifact."""


def log_artifacts(run: "wandb.Run", info: RunInfo, description: Mapping[str, Any]) -> None:
    """Logs the artifacts of a finished run, so that W&B's lineage leads from the data to the models.

    Args:
        run: the W&B run.
        info: facts about the run; its checkpoints are known.
        description: the content of run.json; empty if there is none.
    """
    if run.disabled:
        # W&B would copy the files all the same.
        return
    for artifact in _inputs(info, description):
        # Not `use_artifact`, which W&B refuses offline; `wandb sync` then makes the artifact an input.
        run._log_artifact(artifact, use_after_commit=True)
    for artifact in _outputs(info, _metadata(info, description)):
        run.log_artifact(artifact)


def _inputs(info: RunInfo, description: Mapping[str, Any]) -> Iterator["wandb.Artifact"]:
    import wandb

    data = description.get("data")
    if isinstance(data, Mapping) and "hash" in data:
        # The hash stands for the images, which are not uploaded.
        name = f"{info.config.data.name}-{str(data['hash'])[:HASH_LETTERS]}"
        # The data set of a plug-in is `module:function`.
        yield wandb.Artifact(OTHER_LETTERS.sub("-", name), type="dataset", metadata=dict(data))
    file = info.folder / PARTITION
    if file.is_file():
        counts = info.class_counts_KC.tolist()
        keys = dict(info.config_dict.get("partition", {})) | {"seed": info.config.run.seed, "class_counts": counts}
        artifact = wandb.Artifact(f"partition-{info.id}", type="partition", metadata=keys)
        _add(artifact, file)
        yield artifact


def _outputs(info: RunInfo, metadata: dict[str, Any]) -> Iterator["wandb.Artifact"]:
    import wandb

    final = f"{info.checkpoints}/final"
    clients = wandb.Artifact(f"clients-{info.id}", type="model", metadata=metadata)
    if "://" in final:
        clients.add_reference(final, checksum=False)
        yield clients
        return
    files = sorted(path for path in Path(final).iterdir() if path.is_file())
    of_clients = [path for path in files if path.match(CLIENT_FILES) or path.name == "manifest.json"]
    for path in of_clients:
        _add(clients, path)
    yield clients
    # The generator and the statistics of a method are in the state of its server.
    server = wandb.Artifact(f"server-{info.id}", type="server-state", metadata=metadata)
    for path in files:
        if path not in of_clients:
            _add(server, path)
    yield server


def _add(artifact: "wandb.Artifact", file: Path) -> None:
    # W&B uploads a copy, see `session.COPIES`. It must not upload the file itself (`policy="immutable"`): if the run
    # gets more rounds, `fedvtc resume` replaces the final checkpoint, also before `wandb sync`. Without `skip_cache`,
    # the upload leaves another copy in the home folder.
    artifact.add_file(str(file), skip_cache=True)


def _metadata(info: RunInfo, description: Mapping[str, Any]) -> dict[str, Any]:
    records = read_metrics(info.folder).records
    data = description.get("data")
    return {
        "run": info.id,
        "method": info.config.method.label or info.config.method.name,
        "backbones": list(info.backbones),
        "rounds": info.config.run.rounds,
        "seed": info.config.run.seed,
        "data_hash": data.get("hash") if isinstance(data, Mapping) else None,
        "versions": description.get("versions", {}),
        "metrics": {name: value for name, value in numbers(records[-1]).items() if name != "round"} if records else {},
    }

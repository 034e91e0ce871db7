"""Writes and reads the server's shard, and checks that a checkpoint fits a run."""

from functools import partial
from typing import Any

from fedvtc.config import fingerprint
from fedvtc.config.schema import Config
from fedvtc.errors import CheckpointError
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.methods import ServerState
from fedvtc.storage.checkpoints.manifest import Manifest, Shard, shard_name
from fedvtc.storage.checkpoints.store import CheckpointStore
from fedvtc.storage.checkpoints.trees import arrays_to_tensors, read_tree, tensors_to_arrays, write_tree

SERVER_SHARD = "server.pt"


def write_server(store: CheckpointStore, draft: str, server: tuple[ServerState, Broadcast]) -> Shard:
    """Writes the server's shard into a draft.

    Args:
        store: the store of the draft.
        draft: name of the draft.
        server: the server's state and the broadcast that the next round starts with; in the final checkpoint, the last
            broadcast.

    Raises:
        OSError: if the shard cannot be written.
    """
    state, broadcast = server
    tree = {"state": state, "broadcast": broadcast.payload, "round": broadcast.round}
    if broadcast.groups:
        tree["groups"] = broadcast.groups
    return store.write(draft, SERVER_SHARD, partial(write_tree, arrays_to_tensors(tree)))


def read_server(store: CheckpointStore, manifest: Manifest) -> tuple[ServerState, Broadcast]:
    """Reads the server's state and broadcast from a checkpoint.

    Raises:
        CheckpointError: if the shard is damaged or has other content; fedvtc 0.1.0 left the shard of the final
            checkpoint empty.
    """
    where = f"{store.location}/{manifest.folder}: {SERVER_SHARD}"
    tree: Any = read_tree(store.read(manifest, SERVER_SHARD), where)
    if tree == {} and manifest.phase == "final":
        what = f"{where}: holds no state of a server, which fedvtc 0.1.0 did not keep after the last round"
        raise CheckpointError(f"{what}. Run the config again.")
    # A right hash only proves that the file is as written, not that a server wrote the file.
    try:
        parts = [tensors_to_arrays(part) for part in (tree["state"], tree["broadcast"], tree.get("groups", {}))]
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise _no_server(where) from error
    # A closing exchange counts as one round more.
    round = tree.get("round", manifest.round) if manifest.phase == "final" else manifest.round
    if not all(isinstance(part, dict) for part in parts) or type(round) is not int:
        raise _no_server(where)
    state, payload, groups = parts
    return state, Broadcast(round, payload, groups)


def _no_server(where: str) -> CheckpointError:
    return CheckpointError(f"{where}: holds no state of a server. An older checkpoint may be whole.")


def misfit(manifest: Manifest, run_id: str, config: Config) -> tuple[str, str] | None:
    """Returns the reason why a run cannot resume from a checkpoint, and the fix; None if the run can.

    The shards themselves are not read.

    Args:
        manifest: the checkpoint's manifest.
        run_id: the run's id.
        config: the run's config before the resume.
    """
    if manifest.run_id != run_id:
        return f"belongs to run {manifest.run_id}, not to {run_id}", "Remove the checkpoint."
    if manifest.fingerprint != fingerprint(config):
        return "was written with another config than config.yaml", "Undo the changes of config.yaml."
    names = {shard.name for shard in manifest.shards}
    clients = set(map(shard_name, range(config.population.num_clients)))
    # In format 2, a client without a file has never worked.
    missing = ({SERVER_SHARD} | (clients if manifest.format == 1 else set())) - names
    if missing or names - clients - {SERVER_SHARD}:
        listed = ", ".join(sorted(missing)) or "nothing"
        return f"its manifest does not list the files of this run (missing: {listed})", "Remove the checkpoint."
    return None

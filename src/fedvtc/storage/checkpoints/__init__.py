"""What a run leaves behind to be resumed from: trees of tensors in files, a manifest, and folders that hold both.

`fedvtc.storage.checkpoints.trees` writes the trees; it imports PyTorch and is therefore not imported here.
"""

from fedvtc.storage.checkpoints.manifest import Manifest, Phase, Shard, shard_name
from fedvtc.storage.checkpoints.store import CheckpointStore

__all__ = ["CheckpointStore", "Manifest", "Phase", "Shard", "shard_name"]

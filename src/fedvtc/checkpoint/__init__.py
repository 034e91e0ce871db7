"""What a run leaves behind to be resumed from: trees of tensors in files, a manifest, and folders that hold both.

`fedvtc.checkpoint.trees` writes the trees; it imports PyTorch and is therefore not imported here.
"""

from fedvtc.checkpoint.manifest import Manifest, Phase, Shard, shard_name
from fedvtc.checkpoint.store import CheckpointStore

__all__ = ["CheckpointStore", "Manifest", "Phase", "Shard", "shard_name"]

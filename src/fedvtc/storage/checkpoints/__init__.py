"""Checkpoints to resume a run from: folders of shards, which hold trees of tensors, and a manifest.

`fedvtc.storage.checkpoints.trees` imports PyTorch and is therefore not imported here.
"""

from fedvtc.storage.checkpoints.manifest import Manifest, Phase, Shard, shard_name
from fedvtc.storage.checkpoints.store import CheckpointStore

__all__ = ["CheckpointStore", "Manifest", "Phase", "Shard", "shard_name"]

from functools import partial

import pytest
import torch

from fedvtc.errors import CheckpointError
from fedvtc.storage.checkpoints.contents import SERVER_SHARD, read_server
from fedvtc.storage.checkpoints.trees import write_tree


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"state": {}},
        {"state": {}, "broadcast": torch.ones(2)},
        {"state": {"x": torch.ones(2, dtype=torch.bfloat16)}, "broadcast": {}},
        [1, 2],
        torch.ones(2),
    ],
)
def test_a_whole_file_without_a_server_s_state_is_refused(local, manifest_of, tree, golden, keys_of):
    draft = local.draft("round_000003", attempt=1)
    manifest = manifest_of(3, [local.write(draft, SERVER_SHARD, partial(write_tree, tree))])
    local.publish(draft, manifest)

    with pytest.raises(CheckpointError) as caught:
        read_server(local, manifest)

    assert local.problems(manifest) == []
    assert keys_of(caught.value) == [f"{local.location}/round_000003"]
    golden(caught.value)

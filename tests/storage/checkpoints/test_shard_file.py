import errno
import hashlib
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvtc.storage.checkpoints import Shard, shard_file
from fedvtc.storage.checkpoints.shard_file import ShardFile

PIECE_BYTES = 8


@given(contents=st.lists(st.binary(max_size=3 * PIECE_BYTES)))
def test_all_bytes_arrive_and_are_counted_and_hashed(contents):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_file, "PIECE_BYTES", PIECE_BYTES)
        file = ShardFile("server.pt", arrived := io.BytesIO())
        for content in contents:
            assert file.write(content) == len(content)
    whole = b"".join(contents)
    assert arrived.getvalue() == whole
    assert file.shard == Shard("server.pt", len(whole), hashlib.sha256(whole).hexdigest())


def test_a_buffer_of_integers_is_counted_in_bytes():
    file = ShardFile("server.pt", arrived := io.BytesIO())
    assert file.write(memoryview(b"12345678").cast("I")) == 8
    assert (arrived.getvalue(), file.shard.num_bytes) == (b"12345678", 8)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_file_raises_its_own_error():
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space left") as raised:
        ShardFile("server.pt", full).write(b"x")
    assert raised.value.errno == errno.ENOSPC

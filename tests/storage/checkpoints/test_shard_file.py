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
        shard = file.end()
    whole = b"".join(contents)
    assert arrived.getvalue() == whole
    assert shard == Shard("server.pt", len(whole), hashlib.sha256(whole).hexdigest())


def test_a_buffer_of_integers_is_counted_in_bytes():
    file = ShardFile("server.pt", arrived := io.BytesIO())
    assert file.write(memoryview(b"12345678").cast("I")) == 8
    assert (file.end().num_bytes, arrived.getvalue()) == (8, b"12345678")


def test_small_pieces_reach_the_file_together():
    class Counted(io.BytesIO):
        num_writes = 0

        def write(self, content):
            self.num_writes += 1
            return super().write(content)

    file = ShardFile("server.pt", arrived := Counted())
    for _ in range(1000):
        file.write(b"x" * 100)
    file.end()
    assert (arrived.getvalue(), arrived.num_writes) == (b"x" * 100_000, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_file_raises_its_own_error():
    with open("/dev/full", "wb", buffering=0) as full:
        file = ShardFile("server.pt", full)
        file.write(b"x")
        with pytest.raises(OSError, match="No space left") as raised:
            file.end()
    assert raised.value.errno == errno.ENOSPC

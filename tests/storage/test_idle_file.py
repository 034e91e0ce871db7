"""The file of idle clients: parts come back as they were, written or not, and a full disk loses none of them."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvtc.errors import DiskError
from fedvtc.storage import idle_file
from fedvtc.storage.idle_file import IdleFile

TIMEOUT_S = 20
contents = st.lists(st.binary(max_size=40), min_size=1, max_size=6).filter(any)


def views(parts):
    return [memoryview(bytearray(part)) for part in parts]


def read(file, extent, parts):
    buffers = views(bytes(len(part)) for part in parts)
    file.read(extent, buffers)
    return [bytes(buffer) for buffer in buffers]


@pytest.fixture
def file(tmp_path):
    file = IdleFile(tmp_path, pending_bytes=10**6)
    yield file
    file.close()


@pytest.fixture
def gate(monkeypatch):
    """Stops the thread of every file before it writes, until the gate is set."""
    gate, transfer = threading.Event(), idle_file._transfer

    def gated(call, *arguments):
        if call is idle_file.os.pwritev:
            assert gate.wait(TIMEOUT_S)
        transfer(call, *arguments)

    monkeypatch.setattr(idle_file, "_transfer", gated)
    yield gate
    gate.set()


@settings(max_examples=60)
@given(steps=st.lists(st.tuples(st.booleans(), contents), max_size=12), pending_bytes=st.sampled_from([0, 50, 10**6]))
def test_parts_come_back_as_they_were_written(steps, pending_bytes):
    file, held = IdleFile(None, pending_bytes), []
    try:
        for releases, parts in steps:
            if releases and held:
                file.release(held.pop(0)[0])
            held.append((file.write(views(parts)), parts))
            assert [read(file, *part) for part in held] == [parts for _, parts in held]
        file._thread.submit(int).result(TIMEOUT_S)
        assert not file._pending
        assert [read(file, *part) for part in held] == [parts for _, parts in held]
    finally:
        file.close()


@given(parts=contents, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_a_call_that_transfers_less_than_asked_for_is_repeated(parts, sizes):
    written = bytearray(sum(map(len, parts)))
    numbers = iter(sizes * (len(written) + 1))

    def call(descriptor, buffers, offset):
        taken = b"".join(buffers)[: next(numbers)]
        written[offset : offset + len(taken)] = taken
        return len(taken)

    idle_file._transfer(call, 0, 0, views(parts))
    assert bytes(written) == b"".join(parts)


def test_write_returns_before_the_disk_has_the_part_and_the_part_can_be_read(file, gate):
    extent = file.write(views([b"state"]))
    assert read(file, extent, [b"state"]) == [b"state"]
    gate.set()
    file._thread.submit(int).result(TIMEOUT_S)
    assert not file._pending
    assert read(file, extent, [b"state"]) == [b"state"]


def test_a_part_that_is_released_while_it_waits_leaves_its_place_to_the_next(file, gate):
    file.release(file.write(views([b"first"])))
    extent = file.write(views([b"later"]))
    assert extent.offset == 0
    assert read(file, extent, [b"later"]) == [b"later"]
    gate.set()
    file._thread.submit(int).result(TIMEOUT_S)
    assert read(file, extent, [b"later"]) == [b"later"]


def test_write_waits_for_the_disk_if_too_many_bytes_are_pending(tmp_path, gate):
    file = IdleFile(tmp_path, pending_bytes=5)
    file.write(views([b"state"]))
    thread = threading.Thread(target=file.write, args=(views([b"other"]),))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    gate.set()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()
    file.close()


def test_a_full_disk_is_an_error_of_a_later_write_and_all_parts_can_still_be_read(file, gate, no_room):
    states = [bytes([number]) * 200 for number in range(2)]
    extents = [file.write(views([state])) for state in states]
    with no_room():
        gate.set()
        file._thread.submit(int).result(TIMEOUT_S)
        with pytest.raises(DiskError):
            file.write(views([bytes(200)]))
    assert [read(file, extent, [state]) for extent, state in zip(extents, states, strict=True)] == [[s] for s in states]

"""Snapshots between threads: in every order of events, the written state is the held state."""

import io
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvtc.errors import CheckpointError
from fedvtc.runtime import snapshots
from fedvtc.runtime.snapshots import Snapshots

TIMEOUT_S = 20
SOON_S = 0.05


class Client:
    """A state that is invalid during a change, and the number of times that the state was read."""

    def __init__(self, number=0, state=b"0"):
        self.number, self.state, self.num_saved = number, state, 0

    def save(self, file):
        self.num_saved += 1
        file.write(self.state)

    def change(self, held, state):
        held.before_change(self.number, self.save)
        self.state = b"half of " + state
        time.sleep(0)
        self.state = state


def take(held, client, save=None):
    """The written state of a client."""
    file = io.BytesIO()
    held.save(client.number, save or client.save, file)
    return file.getvalue()


@pytest.fixture
def held():
    return Snapshots()


@pytest.fixture
def writer():
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool


@pytest.fixture
def worker():
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool


def test_the_state_of_an_idle_client_is_read_without_a_copy(held):
    client = Client()
    held.hold(0)
    assert client.num_saved == 0
    assert take(held, client) == b"0"
    client.change(held, b"1")
    assert (client.state, client.num_saved) == (b"1", 1)


def test_the_state_of_a_client_that_works_first_is_set_aside(held):
    client = Client()
    held.hold(0)
    client.change(held, b"1")
    client.change(held, b"2")
    assert take(held, client) == b"0"
    assert client.num_saved == 1


def test_a_client_that_is_not_held_is_never_read(held):
    client = Client()
    client.change(held, b"1")
    held.hold(1)
    client.change(held, b"2")
    assert client.num_saved == 0


def test_a_client_that_was_not_held_is_not_written(held, golden):
    client = Client()
    held.hold(0)
    assert take(held, client) == b"0"
    client.change(held, b"1")
    with pytest.raises(CheckpointError) as raised:
        take(held, client)
    golden(raised.value)
    with pytest.raises(CheckpointError):
        take(held, Client(1))


def test_a_second_hold_replaces_the_held_state(held):
    client = Client()
    held.hold(0)
    client.change(held, b"1")
    # The first state was never written, because its checkpoint failed.
    held.hold(0)
    client.change(held, b"2")
    assert take(held, client) == b"1"
    held.hold(0)
    client.change(held, b"3")
    held.hold(0)
    assert take(held, client) == b"3"


def test_a_client_waits_while_its_state_is_read(held, writer, worker):
    client, begun, may_end = Client(), threading.Event(), threading.Event()

    def save_slowly(file):
        begun.set()
        assert may_end.wait(TIMEOUT_S)
        client.save(file)

    held.hold(0)
    taking = writer.submit(take, held, client, save_slowly)
    assert begun.wait(TIMEOUT_S)
    changing = worker.submit(client.change, held, b"1")
    # Other clients work in the meantime.
    Client(1).change(held, b"1")
    with pytest.raises(TimeoutError):
        changing.result(SOON_S)
    assert client.state == b"0"
    may_end.set()
    assert taking.result(TIMEOUT_S) == b"0"
    changing.result(TIMEOUT_S)
    assert client.state == b"1"


def test_a_failed_read_ends_the_wait_of_the_client(held, worker):
    def fail(file):
        raise MemoryError

    client = Client()
    held.hold(0)
    with pytest.raises(MemoryError):
        take(held, client, fail)
    worker.submit(client.change, held, b"1").result(TIMEOUT_S)
    assert (client.state, client.num_saved) == (b"1", 0)


def test_a_state_that_could_not_be_set_aside_stays_held(held):
    def fail(file):
        raise MemoryError

    client = Client()
    held.hold(0)
    with pytest.raises(MemoryError):
        held.before_change(0, fail)
    client.change(held, b"1")
    assert take(held, client) == b"0"


def test_work_waits_while_too_many_bytes_are_set_aside(held, worker, monkeypatch):
    monkeypatch.setattr(snapshots, "MAX_ASIDE_BYTES", 10)
    clients = [Client(number, bytes(6)) for number in range(4)]
    for number in range(4):
        held.hold(number)
    # The limit is 10 bytes: with 6 bytes set aside another state fits, with 12 none does.
    clients[0].change(held, b"1")
    clients[1].change(held, b"1")
    changing = worker.submit(clients[2].change, held, b"1")
    with pytest.raises(TimeoutError):
        changing.result(SOON_S)
    assert clients[2].num_saved == 0
    # Clients that are written or set aside keep working.
    clients[0].change(held, b"2")
    assert take(held, clients[3]) == bytes(6)
    clients[3].change(held, b"1")
    with pytest.raises(TimeoutError):
        changing.result(SOON_S)
    assert take(held, clients[0]) == bytes(6)
    changing.result(TIMEOUT_S)
    assert [take(held, clients[number]) for number in (1, 2)] == [bytes(6)] * 2
    assert [client.num_saved for client in clients] == [1, 1, 1, 1]


def test_a_client_that_waits_for_bytes_may_be_written_first(held, worker, monkeypatch):
    monkeypatch.setattr(snapshots, "MAX_ASIDE_BYTES", 1)
    first, second = Client(0), Client(1)
    held.hold(0)
    held.hold(1)
    first.change(held, b"1")
    changing = worker.submit(second.change, held, b"1")
    with pytest.raises(TimeoutError):
        changing.result(SOON_S)
    assert take(held, second) == b"0"
    changing.result(TIMEOUT_S)
    assert take(held, first) == b"0"


NUM_CLIENTS = 4
ORDERS = st.permutations(range(NUM_CLIENTS))
PAUSES = st.sampled_from([None, 0.0, 0.0005])
WORK = st.lists(st.tuples(st.integers(0, NUM_CLIENTS - 1), PAUSES), max_size=6)
ROUNDS = st.lists(st.tuples(ORDERS, PAUSES, WORK), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(rounds=ROUNDS, max_aside_bytes=st.sampled_from([1, 20, 2**30]))
def test_every_written_state_is_the_held_state(rounds, max_aside_bytes):
    held, clients = Snapshots(), [Client(number, f"{number} as made".encode()) for number in range(NUM_CLIENTS)]
    written, expected, packed = [], [], []

    def write(order, pause):
        for number in order:
            if pause is not None:
                time.sleep(pause)
            written.append((number, take(held, clients[number])))

    def work_and_save(pool):
        writing = None
        for index, (order, pause, work) in enumerate(rounds):
            if writing is not None:
                writing.result(TIMEOUT_S)
                packed.append([client.num_saved for client in clients])
            for client in clients:
                held.hold(client.number)
            expected.extend((number, clients[number].state) for number in order)
            writing = pool.submit(write, order, pause)
            for step, (number, rest) in enumerate(work):
                if rest is not None:
                    time.sleep(rest)
                clients[number].change(held, f"{number} in {index}.{step}".encode())
        writing.result(TIMEOUT_S)
        packed.append([client.num_saved for client in clients])

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as main:
        patch.setattr(snapshots, "MAX_ASIDE_BYTES", max_aside_bytes)
        main.submit(work_and_save, pool).result(TIMEOUT_S)
    assert written == expected
    assert Counter(number for number, _ in written) == dict.fromkeys(range(NUM_CLIENTS), len(rounds))
    # One read for each hold, by the thread that writes or for the copy.
    assert packed == [[num_held] * NUM_CLIENTS for num_held in range(1, len(rounds) + 1)]

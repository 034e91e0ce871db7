"""Clients whose states leave memory: they end with the bits of clients that never left, and failures are one line."""

import os
import threading

import numpy as np
import pytest
import torch

from fedvtc.config.operation import PlacementConfig
from fedvtc.config.schema import MethodConfig, OptimizerConfig, TrainingConfig
from fedvtc.errors import DiskError
from fedvtc.learning.client import emptying
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.methods import Task, build
from fedvtc.learning.methods.fd import FDConfig
from fedvtc.learning.methods.fedkd import FedKDConfig
from fedvtc.learning.server import Server
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.inline_pool import InlinePool
from fedvtc.storage.checkpoints import CheckpointStore
from fedvtc.storage.idle_file import IdleFile

LOCAL, ADAM = MethodConfig(name="local"), OptimizerConfig(lr=0.01)
TIMEOUT_S = 20


@pytest.fixture
def config_of(tiny_config):
    def make(limit=None, method=LOCAL, optimizer=ADAM):
        training = TrainingConfig(epochs=1, batch_size=4, optimizer=optimizer)
        return tiny_config(method, training=training, placement=PlacementConfig(client_bytes_per_actor=limit))

    return make


@pytest.fixture
def host_of(config_of, tiny_dataset, tiny_specs, tmp_path):
    made = []

    def make(limit):
        made.append(ClientHost(config_of(limit), tiny_dataset, tiny_specs, torch.device("cpu"), tmp_path))
        return made[-1]

    yield make
    for host in made:
        host.close()


@pytest.fixture
def transfers(monkeypatch):
    """The numbers of writes and reads of states."""
    counts = {"write": 0, "read": 0}

    def count(name, original):
        def counted(self, *arguments):
            counts[name] += 1
            return original(self, *arguments)

        monkeypatch.setattr(IdleFile, name, counted)

    for name in counts:
        count(name, getattr(IdleFile, name))
    return counts


def train(host, client, *rounds):
    for round in rounds:
        host.run_round(client, Broadcast(round - 1))


@pytest.mark.parametrize(
    ("method", "optimizer", "two_states"),
    [
        (LOCAL, ADAM, 45_000),
        (FDConfig(), OptimizerConfig(name="sgd", lr=0.01, momentum=0.9), 30_000),
        (FedKDConfig(), ADAM, 240_000),
    ],
    ids=["optimizer", "memory", "attached module and receive"],
)
def test_clients_that_leave_memory_have_the_bits_of_clients_that_stay(
    config_of, tiny_dataset, tiny_specs, tmp_path, transfers, method, optimizer, two_states
):
    found, counts = [], {}
    # With the last limit, one state waits in memory for the disk.
    for limit in (None, 1, two_states):
        config, before = config_of(limit, method, optimizer), dict(transfers)
        half = build(method, Task.of(config, tiny_dataset))
        state, broadcast = half.start()
        store = CheckpointStore(tmp_path / f"checkpoints-{limit}")
        with InlinePool(config, tiny_dataset, tiny_specs, idle_folder=tmp_path) as pool:
            for round, clients in enumerate(([0, 1], [1, 2], [0, 1, 2]), start=1):
                uploads = pool.map(ClientHost.run_round, clients, broadcast)
                state, broadcast = half.server_round(state, uploads, Server(3, round))
                if round == 2:
                    evaluations = list(pool.map(ClientHost.evaluate, [0, 1, 2], broadcast))
                    counts[limit] = {name: transfers[name] - before[name] for name in transfers}
                    # The next round begins while the thread writes.
                    shards = pool.save([0, 1, 2], store, store.draft("round_000002", 1))
            digests = list(pool.map(ClientHost.digest, [0, 1, 2]))
            # The hash covers weights, optimizers and memory.
            hashes = [shard.sha256 for future in shards for shard in future.result(TIMEOUT_S)]
        seen = [{name: matrix.tolist() for name, matrix in each.confusions.items()} for each in evaluations]
        found.append((digests, hashes, seen))
    assert found[0] == found[1] == found[2]
    # Counted before two threads use the clients at the same time.
    none, some = {"write": 0, "read": 0}, {"write": 3, "read": 3}
    assert counts == {None: none, 1: some, two_states: some}


def test_a_client_is_whole_although_a_signal_interrupts_its_emptying(host_of, monkeypatch):
    host, stays = host_of(1), host_of(None)
    for each in (host, stays):
        train(each, 0, 1)
        each._clients.use(0).memory["a"] = np.arange(3)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # The weights are gone then, and the memory is not.
        patch.setattr(emptying.np, "empty", interrupt)
        with pytest.raises(KeyboardInterrupt):
            host._clients.release()
    assert host.digest(0) == stays.digest(0)


def test_the_state_of_a_client_leaves_memory_and_its_skeleton_stays(host_of, transfers):
    host = host_of(1)
    train(host, 0, 1)
    client = host._clients.peek(0)
    weights = sum(weight.numel() for weight in client.classifier.parameters())
    assert weights > 1000
    train(host, 1, 1)
    assert sum(weight.numel() for weight in client.classifier.parameters()) == 0
    assert all(weight.grad is None for weight in client.classifier.parameters())
    assert (host._clients.use(0), transfers) == (client, {"write": 2, "read": 1})
    assert sum(weight.numel() for weight in client.classifier.parameters()) == weights


def test_tensors_that_share_memory_and_arrays_of_any_shape_come_back_as_they_were(host_of):
    host = host_of(1)
    client = host._clients.use(0)
    host._clients.keep(0)
    head = client.classifier.head
    head.weight.data = torch.arange(2.0 * head.weight.numel())[::2].view(head.weight.shape)
    head.register_buffer("shared", head.weight.data[1:], persistent=False)
    values = {"columns": np.arange(6.0).reshape(2, 3).T, "none": np.empty((0, 2)), "number": 3}
    client.memory.update(values)
    before = head.weight.detach().clone()
    train(host, 1, 1)
    assert [np.size(value) for value in client.memory.values()] == [0, 0, 1]
    assert host._clients.use(0) is client
    assert torch.equal(head.weight, before)
    assert head.weight.stride() == (2 * before.shape[1], 2)
    with torch.no_grad():
        head.weight[1] = 7.0
    assert head.shared[0].tolist() == [7.0] * before.shape[1]
    assert list(client.memory) == ["columns", "none", "number"]
    np.testing.assert_array_equal(client.memory["columns"], values["columns"])
    assert client.memory["none"].shape == (0, 2)


def test_a_client_is_written_only_after_a_change_and_a_client_that_never_worked_is_built_again(host_of, transfers):
    host = host_of(1)
    train(host, 0, 1)
    digests = [host.digest(client) for client in (0, 1, 2, 0, 1)]
    assert digests[:2] == digests[3:]
    # Clients 1 and 2 follow from their specs.
    assert transfers == {"write": 1, "read": 1}
    host.evaluate(0, Broadcast(1))
    assert [host.digest(client) for client in (1, 0)] == [digests[1], digests[0]]
    assert transfers == {"write": 1, "read": 3}
    train(host, 0, 2)
    assert host.digest(1) == digests[1]
    assert transfers == {"write": 2, "read": 3}


def test_clients_within_the_limit_stay_in_memory(host_of, transfers):
    host = host_of(10**9)
    for round in (1, 2):
        for client in (0, 1, 2):
            train(host, client, round)
    assert transfers == {"write": 0, "read": 0}


def test_the_file_has_no_name_and_ends_with_the_pool(config_of, tiny_dataset, tiny_specs, tmp_path, transfers):
    pool = InlinePool(config_of(1), tiny_dataset, tiny_specs, idle_folder=tmp_path)
    for round in range(4):
        list(pool.map(ClientHost.run_round, [0, 1, 2], Broadcast(round)))
    assert list(tmp_path.iterdir()) == []
    file = pool._host._clients._file
    # States of one size take the places of earlier ones.
    assert transfers["write"] == 11
    assert file._end <= 4 * max(file._free)
    descriptor = file._file.fileno()
    pool.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_full_disk_ends_the_run_with_one_line(host_of, tmp_path, golden, no_room):
    host = host_of(1)
    train(host, 0, 1)
    with no_room(), pytest.raises(DiskError) as raised:
        host.perform(ClientHost.run_round, 1, Broadcast())
    golden(raised.value, {str(tmp_path): "RUN"})
    # The client whose state found no room is whole.
    assert len(host.digest(0)) == 64


def test_another_thread_that_reads_a_client_leaves_the_gradients_of_its_step(host_of):
    clients = host_of(10**9)._clients
    weights = list(clients.use(0).classifier.parameters())
    for weight in weights:
        weight.grad = torch.ones_like(weight)

    def read():
        clients.use(0)
        clients.release()

    thread = threading.Thread(target=read)
    thread.start()
    thread.join(TIMEOUT_S)

    assert all(weight.grad is not None for weight in weights)

"""Clients that fail and clients that are built again, in this process: to the same bits or not at all."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from fedvtc.config.operation import RuntimeConfig
from fedvtc.config.schema import MethodConfig, OptimizerConfig, TrainingConfig
from fedvtc.errors import CheckpointError, ClientError, ClientMemoryError
from fedvtc.learning.client.client import FederatedClient
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.methods import Task, build
from fedvtc.learning.methods.fedproto import FedProtoConfig
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.inline_pool import InlinePool
from fedvtc.runtime.lineage import History, Lineage
from fedvtc.storage.checkpoints import CheckpointStore, Manifest, shard_name
from fedvtc.storage.checkpoints.trees import read_tree, write_tree

LOCAL = MethodConfig(name="local")
EVERYONE = (0, 1, 2)
ADAM = OptimizerConfig(lr=0.01)
SGD = OptimizerConfig(name="sgd", lr=0.01, momentum=0.9)
TIMEOUT_S = 20


@pytest.fixture
def method_of(tiny_fedvtc):
    """A method's config by a word."""
    both = {"when": "both", "real_data": "mixed"}
    mixture = {"when": "both", "latents": "client_mixture"}
    configs = {
        "local": LOCAL,
        "fedproto": FedProtoConfig(),
        "fedvtc": tiny_fedvtc(finetune=both),
        "exchange": tiny_fedvtc(generator={"aggregation": "exchange", "sigma": "learned"}, finetune=mixture),
    }
    return configs.__getitem__


@pytest.fixture
def config_of(tiny_config):
    def make(method=LOCAL, optimizer=ADAM, **runtime):
        training = TrainingConfig(epochs=1, batch_size=4, optimizer=optimizer)
        return tiny_config(method, training=training, runtime=RuntimeConfig(**runtime))

    return make


class Run:
    """A pool with its lineage and incidents, and the server's half of the rounds."""

    def __init__(self, config, dataset, specs, store=None, start=None):
        self.told = []
        self.lineage, self.incidents = Lineage(store, start), Incidents(self.told.append)
        self.pool = InlinePool(config, dataset, specs, self.lineage, self.incidents)
        self.method = build(config.method, Task.of(config, dataset))
        self.state, self.broadcast = self.method.start()

    def map(self, task, *arguments, clients=EVERYONE):
        return list(self.pool.map(task, clients, *arguments))

    def round(self, clients=EVERYONE):
        """The results of a round, those of clients that sat it out too."""
        results = self.map(ClientHost.run_round, self.broadcast, clients=clients)
        uploads = [result for result in results if not isinstance(result, ClientError)]
        self.state, self.broadcast = self.method.server_round(self.state, uploads)
        return results

    def digests(self):
        return self.map(ClientHost.digest)


@pytest.fixture
def run_of(tiny_dataset, tiny_specs):
    made = []

    def make(config, **keys):
        made.append(Run(config, tiny_dataset, tiny_specs, **keys))
        return made[-1]

    yield make
    for run in made:
        run.pool.close()


@pytest.fixture
def fault(monkeypatch):
    """Makes a step of one client in one round fail, so many times, once it has changed the client."""

    def arrange(step, client, round, error=None, times=1):
        original = getattr(FederatedClient, step)
        left = [times]

        def failing(self, *arguments, **keys):
            result = original(self, *arguments, **keys)
            if (self.id, self.round) == (client, round) and left[0] > 0:
                left[0] -= 1
                raise error or ClientError(client, round, "train", "loss is nan")
            return result

        monkeypatch.setattr(FederatedClient, step, failing)
        return left

    return arrange


def payloads_are_equal(first, second):
    assert first.keys() == second.keys()
    for kind, arrays in first.items():
        assert arrays.keys() == second[kind].keys()
        for name, array in arrays.items():
            assert array.dtype == second[kind][name].dtype
            np.testing.assert_array_equal(array, second[kind][name], err_msg=f"{kind}/{name}")
    return True


def test_skip_leaves_the_client_as_it_was_and_the_round_to_the_others(run_of, config_of, fault):
    config = config_of(FedProtoConfig(), on_client_error="skip")
    disturbed, expected = run_of(config), run_of(config)
    for run in (disturbed, expected):
        run.round()
    before = disturbed.digests()
    fault("train", 1, 2)
    results = disturbed.round()
    assert [result.client for result in results] == [0, 1, 2]
    assert str(results[1]) == "client 1, round 2, train: loss is nan"
    assert disturbed.told == ["client 1, round 2, train: loss is nan; left out of this round"]
    expected.round(clients=(0, 2))
    assert disturbed.digests() == expected.digests()
    assert disturbed.digests()[1] == before[1]
    assert payloads_are_equal(disturbed.broadcast.payload, expected.broadcast.payload)
    # And in the next round it takes part as one that sat out.
    for run in (disturbed, expected):
        run.round()
    assert disturbed.digests() == expected.digests()
    assert payloads_are_equal(disturbed.broadcast.payload, expected.broadcast.payload)


@pytest.mark.parametrize("name", ["local", "fedproto", "fedvtc", "exchange"])
@pytest.mark.parametrize("optimizer", [ADAM, SGD], ids=["adam", "sgd"])
def test_retry_gives_the_bits_of_a_run_that_was_not_disturbed(run_of, config_of, method_of, fault, name, optimizer):
    config = config_of(method_of(name), optimizer, on_client_error="retry")
    disturbed, expected = run_of(config), run_of(config)
    for _ in range(2):
        expected.round()
    disturbed.round()
    left = fault("train", 1, 2, times=2)
    disturbed.round()
    assert left == [0]
    assert disturbed.told == ["client 1, round 2, train: loss is nan; trying again"] * 2
    assert disturbed.incidents.totals == {"steps_retried": 2}
    assert disturbed.digests() == expected.digests()
    assert payloads_are_equal(disturbed.broadcast.payload, expected.broadcast.payload)
    # Optimizers are the same too, or the next round would show it.
    for run in (disturbed, expected):
        run.round()
    assert disturbed.digests() == expected.digests()


def test_a_last_step_that_fails_is_tried_again_or_left_out(run_of, config_of, method_of, fault):
    expected = run_of(config_of(method_of("fedvtc")))
    expected.round()
    before = expected.digests()
    expected.map(ClientHost.finish, expected.broadcast)
    fault("finetune", 2, 2)
    retried = run_of(config_of(method_of("fedvtc"), on_client_error="retry"))
    retried.round()
    retried.map(ClientHost.finish, retried.broadcast)
    assert retried.digests() == expected.digests()
    fault("finetune", 2, 2)
    skipped = run_of(config_of(method_of("fedvtc"), on_client_error="skip"))
    skipped.round()
    results = skipped.map(ClientHost.finish, skipped.broadcast)
    assert isinstance(results[2], ClientError)
    assert skipped.digests() == [*expected.digests()[:2], before[2]]


@pytest.mark.parametrize(("policy", "times", "told"), [("fail", 1, 0), ("retry", 3, 2)], ids=["fail", "retry in vain"])
def test_an_error_that_stays_ends_the_run(run_of, config_of, fault, policy, times, told):
    run = run_of(config_of(on_client_error=policy, retries=2))
    fault("train", 1, 1, times=times)
    with pytest.raises(ClientError, match=r"^client 1, round 1, train: loss is nan$"):
        run.round()
    assert len(run.told) == told


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ZeroDivisionError("float division"), ClientError, "ZeroDivisionError: float division"),
        (MemoryError(), ClientMemoryError, "MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory"), ClientMemoryError, "OutOfMemoryError: CUDA out of memory"),
    ],
    ids=["code", "memory", "gpu"],
)
def test_whatever_a_step_raises_is_told_with_client_round_and_phase(run_of, config_of, fault, error, kind, text):
    fault("train", 2, 1, error)
    with pytest.raises(ClientError) as raised:
        run_of(config_of()).round()
    assert type(raised.value) is kind
    # `train` is over when it fails here, so the task is all that is known.
    assert str(raised.value) == f"client 2, round 1, run_round: {text}"
    assert "test_recovery_inline.py" in raised.value.trace


def test_an_evaluation_is_tried_again_but_no_client_is_left_out_of_it(run_of, config_of, fault):
    expected = run_of(config_of())
    expected.round()
    fault("confusion", 1, 1, ZeroDivisionError())
    retried = run_of(config_of(on_client_error="retry"))
    retried.round()
    assert np.array_equal(retried.map(ClientHost.evaluate), expected.map(ClientHost.evaluate))
    assert retried.told == ["client 1, round 1, evaluate: ZeroDivisionError; trying again"]
    fault("confusion", 1, 1, ZeroDivisionError())
    skipping = run_of(config_of(on_client_error="skip"))
    skipping.round()
    with pytest.raises(ClientError, match=r"^client 1, round 1, evaluate: ZeroDivisionError$"):
        skipping.map(ClientHost.evaluate)


def save(pool, store, round):
    """One checkpoint of all clients, whole."""
    draft = store.draft(f"round_{round:06d}", 1)
    shards = [future.result(TIMEOUT_S) for future in pool.save(EVERYONE, store, draft)]
    manifest = Manifest("run", round, "round", "f00d", None, tuple(shards), {}, "now")
    store.publish(draft, manifest)
    return manifest


def damage(tmp_path, manifest, client):
    file = tmp_path / "checkpoints" / manifest.folder / shard_name(client)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints")


def test_a_client_goes_back_to_its_checkpoint_and_on_from_there(run_of, config_of, method_of, store, tmp_path, fault):
    config = config_of(method_of("fedvtc"), on_client_error="retry")
    expected, disturbed = run_of(config), run_of(config, store=store)
    for _ in range(4):
        expected.round()
    manifests = []
    for round in (1, 2):
        disturbed.round()
        manifests.insert(0, save(disturbed.pool, store, round))
        disturbed.lineage.saved(manifests)
    disturbed.round(clients=EVERYONE)
    newest, older = manifests
    damage(tmp_path, newest, 1)
    fault("train", 1, 4)
    disturbed.round()
    hurt = f"checkpoints/{newest.folder}: client_0001.pt does not match its hash"
    assert disturbed.told == ["client 1, round 4, train: loss is nan; trying again", hurt]
    assert disturbed.digests() == expected.digests()
    assert payloads_are_equal(disturbed.broadcast.payload, expected.broadcast.payload)
    damage(tmp_path, older, 2)
    damage(tmp_path, newest, 2)
    with pytest.raises(CheckpointError, match=rf"{newest.folder}: client_0002.*\n.*{older.folder}: client_0002"):
        disturbed.pool.restore([2])


def test_a_resumed_pool_is_what_the_checkpoint_says(run_of, config_of, method_of, store):
    config = config_of(method_of("exchange"), SGD)
    first = run_of(config, store=store)
    first.round()
    start = save(first.pool, store, 1)
    second = run_of(config, store=store, start=start)
    assert set(second.digests()).isdisjoint(first.digests())
    second.pool.restore(EVERYONE)
    assert second.digests() == first.digests()
    second.state, second.broadcast = first.state, first.broadcast
    shown, expected = (run.map(ClientHost.samples, first.broadcast, 2, clients=[1])[0][0] for run in (second, first))
    np.testing.assert_array_equal(shown, expected)
    for run in (first, second):
        run.round()
    assert second.digests() == first.digests()


@pytest.fixture
def host_of(config_of, tiny_dataset, tiny_specs):
    def make(numbers=EVERYONE, method=LOCAL):
        specs = [tiny_specs[number] for number in numbers]
        return ClientHost(config_of(method), tiny_dataset, specs, torch.device("cpu"))

    return make


def steps(*rounds):
    return tuple(("run_round", round, Broadcast(round - 1)) for round in rounds)


def train(host, client, *rounds):
    for round in rounds:
        host.run_round(client, Broadcast(round - 1))
    return host.digest(client)


def test_a_client_is_rebuilt_from_nothing_by_its_own_steps(host_of):
    host = host_of()
    made, expected = host.digest(1), train(host, 1, 1, 3)
    other = host_of()
    assert train(other, 1, 1, 2, 3) != expected
    assert other.rebuild(1, History(None, (), True, steps(1, 3))) == []
    assert other.digest(1) == expected
    assert other.rebuild(1, History(None, (), True, ())) == []
    assert other.digest(1) == made


def test_the_last_step_is_one_of_the_steps(host_of, method_of, tiny_federation):
    method = method_of("fedvtc")
    _, _, broadcast = tiny_federation(method).round()
    host = host_of(method=method)
    host.run_round(0, Broadcast())
    host.finish(0, broadcast)
    other = host_of(method=method)
    other.rebuild(0, History(None, (), True, (*steps(1), ("finish", 2, broadcast))))
    assert other.digest(0) == host.digest(0)


@pytest.mark.parametrize(("damaged", "num_told"), [([], 0), ([2], 1), ([1, 2], 2), ([1], 0)])
@pytest.mark.parametrize("from_nothing", [True, False])
def test_the_newest_whole_checkpoint_is_where_it_starts(host_of, store, tmp_path, damaged, num_told, from_nothing):
    host, manifests = host_of([0]), {}
    for round in (1, 2):
        train(host, 0, round)
        draft = store.draft(f"round_{round:06d}", 1)
        host.hold(0)
        shard = host.save(0, store, draft)
        manifests[round] = Manifest("run", round, "round", "f00d", None, (shard,), {}, "now")
        store.publish(draft, manifests[round])
    expected = train(host, 0, 3)
    for round in damaged:
        damage(tmp_path, manifests[round], 0)
    history = History(store, (manifests[2], manifests[1]), from_nothing, steps(1, 2, 3))
    other = host_of([0])
    if len(damaged) == 2 and not from_nothing:
        with pytest.raises(CheckpointError, match=r"round_000002: client_0000.*\n.*round_000001: client_0000"):
            other.rebuild(0, history)
        # Better no client than one that is not what it should be.
        with pytest.raises(ClientError, match=r"^client 0, round 0, digest: KeyError: 0$"):
            other.perform(ClientHost.digest, 0)
        return
    told = other.rebuild(0, history)
    assert [line.split(":")[0] for line in told] == ["checkpoints/round_000002", "checkpoints/round_000001"][:num_told]
    assert other.digest(0) == expected


def test_a_file_that_is_not_of_this_client_is_an_error_and_no_client(host_of, store):
    host = host_of()
    shard = partial(write_tree, {"classifier": {"module": {}, "optimizer": {}}})
    draft = store.draft("round_000001", 1)
    manifest = Manifest("run", 1, "round", "f00d", None, (store.write(draft, shard_name(0), shard),), {}, "now")
    store.publish(draft, manifest)
    with pytest.raises(ClientError, match=r"^client 0, round 0, rebuild: "):
        host.perform(ClientHost.rebuild, 0, History(store, (manifest,), False, ()))
    with pytest.raises(ClientError, match="KeyError"):
        host.perform(ClientHost.digest, 0)


def test_adopted_clients_are_there_once_they_are_built(host_of, tiny_specs):
    old, new = host_of(), host_of([0])
    expected = train(old, 2, 1)
    new.adopt([tiny_specs[2]])
    with pytest.raises(ClientError, match=r"^client 2, round 0, digest: KeyError: 2$"):
        new.perform(ClientHost.digest, 2)
    new.rebuild(2, History(None, (), True, steps(1)))
    assert new.digest(2) == expected
    # And the one that lived there is as it was.
    assert new.digest(0) == old.digest(0)


def saved_weights(tmp_path, draft, client, host_of):
    """The digest of a client that is built from a shard."""
    state = read_tree((tmp_path / "checkpoints" / draft / shard_name(client)).read_bytes())
    host = host_of([client])
    host._client(client).load_state_dict(state)
    return host.digest(client)


def test_what_is_saved_is_what_was_held(host_of, store, tmp_path):
    host, draft = host_of(), store.draft("round_000001", 1)
    held = {client: train(host, client, 1) for client in EVERYONE}
    for client in EVERYONE:
        host.hold(client)
    assert train(host, 1, 2) != held[1]
    # Looking at a client does not change it.
    host.evaluate(0)
    shards = [host.save(client, store, draft) for client in EVERYONE]
    assert [shard.name for shard in shards] == ["client_0000.pt", "client_0001.pt", "client_0002.pt"]
    assert {client: saved_weights(tmp_path, draft, client, host_of) for client in EVERYONE} == held
    # What was set aside was written; the next time it is what it is then.
    host.hold(1)
    host.save(1, store, draft)
    assert saved_weights(tmp_path, draft, 1, host_of) == host.digest(1)


@pytest.mark.parametrize("rounds", [(), (1,), (1, 2)])
def test_a_client_that_is_rebuilt_before_it_was_written_is_written_as_it_was(host_of, store, tmp_path, rounds):
    host, draft = host_of(), store.draft("round_000001", 1)
    held = train(host, 0, 1, 2)
    host.hold(0)
    host.rebuild(0, History(None, (), True, steps(*rounds)))
    host.save(0, store, draft)
    assert saved_weights(tmp_path, draft, 0, host_of) == held


def test_a_client_that_leaves_before_it_was_written_is_written_as_it_was(host_of, store, tmp_path):
    host, draft = host_of(), store.draft("round_000001", 1)
    held = train(host, 0, 1)
    host.hold(0)
    host.forget(0)
    with pytest.raises(ClientError, match="KeyError: 0"):
        host.perform(ClientHost.digest, 0)
    host.save(0, store, draft)
    assert saved_weights(tmp_path, draft, 0, host_of) == held


def test_a_client_that_was_never_at_work_is_saved_as_it_begins(host_of, store, tmp_path):
    host, draft = host_of(), store.draft("round_000001", 1)
    host.hold(2)
    host.save(2, store, draft)
    assert saved_weights(tmp_path, draft, 2, host_of) == host_of([2]).digest(2)


def test_a_client_is_written_by_another_thread_while_it_is_built_again_and_works(host_of, store, tmp_path):
    host = host_of([0])
    rounds = []
    with ThreadPoolExecutor(1) as writer:
        for round in range(1, 9):
            held = train(host, 0, round)
            rounds.append(round)
            draft = store.draft(f"round_{round:06d}", 1)
            host.hold(0)
            saving = writer.submit(host.save, 0, store, draft)
            if round % 2:
                host.rebuild(0, History(None, (), True, steps(*rounds)))
                assert host.digest(0) == held
            train(host, 0, 20 + round)
            rounds.append(20 + round)
            saving.result(TIMEOUT_S)
            assert saved_weights(tmp_path, draft, 0, host_of) == held


def test_a_place_that_cannot_be_written_fails_that_client_alone(run_of, config_of, store, tmp_path):
    run = run_of(config_of())
    draft = store.draft("round_000001", 1)
    (tmp_path / "checkpoints" / draft / shard_name(1)).mkdir()
    futures = run.pool.save(EVERYONE, store, draft)
    assert isinstance(futures[1].exception(TIMEOUT_S), IsADirectoryError)
    assert [futures[client].result(TIMEOUT_S).name for client in (0, 2)] == [shard_name(0), shard_name(2)]


def test_the_clients_of_a_config_without_retries_are_not_tried_again(run_of, config_of, fault):
    run = run_of(config_of(on_client_error="retry", retries=0))
    fault("train", 0, 1)
    with pytest.raises(ClientError, match=r"^client 0, round 1"):
        run.round()
    assert run.told == []


def test_a_client_that_would_upload_what_is_not_finite_sits_the_round_out(run_of, config_of):
    # One step of an absurd size: the loss before it is finite, the features after it are not.
    training = {"epochs": 1, "batch_size": 99, "optimizer": OptimizerConfig(name="sgd", lr=1e38)}
    config = replace(config_of(FedProtoConfig(), on_client_error="skip"), training=TrainingConfig(**training))
    run = run_of(config)
    before = run.digests()
    results = run.map(ClientHost.run_round, Broadcast())
    assert {str(result) for result in results} == {
        f"client {client}, round 1, upload: prototypes/mean is not finite" for client in EVERYONE
    }
    assert run.digests() == before
    assert run.incidents.totals == {"clients_skipped": 3}

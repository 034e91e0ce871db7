"""Recovery in this process: clients that fail or are rebuilt end with the same bits, or are absent."""

import socket
from concurrent.futures import ThreadPoolExecutor, wait
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
from fedvtc.learning.methods.fedvtc import steps as fedvtc_steps
from fedvtc.learning.server import Server
from fedvtc.runtime import snapshots
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.inline_pool import InlinePool
from fedvtc.runtime.lineage import History, Lineage, Replay
from fedvtc.storage.checkpoints import CheckpointStore, Manifest, shard_name
from fedvtc.storage.checkpoints.trees import read_tree, write_tree

LOCAL = MethodConfig(name="local")
EVERYONE = (0, 1, 2)
ADAM = OptimizerConfig(lr=0.01)
SGD = OptimizerConfig(name="sgd", lr=0.01, momentum=0.9)
TIMEOUT_S = 20


@pytest.fixture
def method_of(tiny_fedvtc):
    """A function: the config of a method, by a short name."""
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
    """A pool with its lineage and incidents, and the server's half of each round."""

    def __init__(self, config, dataset, specs, store=None, start=None):
        self.printed = []
        self.lineage, self.incidents = Lineage(store, start), Incidents(self.printed.append)
        self.pool = InlinePool(config, dataset, specs, self.lineage, self.incidents)
        self.method = build(config.method, Task.of(config, dataset))
        self.state, self.broadcast = self.method.start()

    def map(self, task, *arguments, clients=EVERYONE):
        return list(self.pool.map(task, clients, *arguments))

    def round(self, clients=EVERYONE):
        """The results of a round, with the errors of skipped clients."""
        results = self.map(ClientHost.run_round, self.broadcast, clients=clients)
        uploads = [result for result in results if not isinstance(result, ClientError)]
        self.state, self.broadcast = self.method.server_round(self.state, uploads, Server(0, self.broadcast.round + 1))
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
    """A function: makes a step of one client in one round fail a number of times, after the step changed the client.

    The step is a method of `FederatedClient`, or a function of FedVTC's steps.
    """

    def arrange(step, client, round, error=None, times=1):
        owner = FederatedClient if hasattr(FederatedClient, step) else fedvtc_steps
        original = getattr(owner, step)
        left = [times]

        def failing(self, *arguments, **keys):
            result = original(self, *arguments, **keys)
            if (self.id, self.round) == (client, round) and left[0] > 0:
                left[0] -= 1
                raise error or ClientError(client, round, "train", "loss is nan")
            return result

        monkeypatch.setattr(owner, step, failing)
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


def test_skip_leaves_the_client_unchanged_and_the_others_in_the_round(run_of, config_of, fault, golden):
    config = config_of(FedProtoConfig(), on_client_error="skip")
    disturbed, expected = run_of(config), run_of(config)
    for run in (disturbed, expected):
        run.round()
    before = disturbed.digests()
    fault("train", 1, 2)
    results = disturbed.round()
    assert [result.client for result in results] == [0, 1, 2]
    assert (type(results[1]), results[1].round, results[1].phase) == (ClientError, 2, "train")
    assert disturbed.incidents.totals == {"clients_skipped": 1}
    golden(*disturbed.printed)
    expected.round(clients=(0, 2))
    assert disturbed.digests() == expected.digests()
    assert disturbed.digests()[1] == before[1]
    assert payloads_are_equal(disturbed.broadcast.payload, expected.broadcast.payload)
    # In the next round the skipped client takes part again.
    for run in (disturbed, expected):
        run.round()
    assert disturbed.digests() == expected.digests()
    assert payloads_are_equal(disturbed.broadcast.payload, expected.broadcast.payload)


@pytest.mark.parametrize("name", ["local", "fedproto", "fedvtc", "exchange"])
@pytest.mark.parametrize("optimizer", [ADAM, SGD], ids=["adam", "sgd"])
def test_retry_gives_the_bits_of_an_undisturbed_run(run_of, config_of, method_of, fault, name, optimizer):
    config = config_of(method_of(name), optimizer, on_client_error="retry")
    disturbed, expected = run_of(config), run_of(config)
    for _ in range(2):
        expected.round()
    disturbed.round()
    left = fault("train", 1, 2, times=2)
    disturbed.round()
    assert left == [0]
    assert disturbed.incidents.totals == {"steps_retried": 2}
    assert disturbed.digests() == expected.digests()
    assert payloads_are_equal(disturbed.broadcast.payload, expected.broadcast.payload)
    # The next round shows that the optimizers are equal too.
    for run in (disturbed, expected):
        run.round()
    assert disturbed.digests() == expected.digests()


def test_a_failed_last_step_is_retried_or_skipped(run_of, config_of, method_of, fault):
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


@pytest.mark.parametrize(("policy", "times", "printed"), [("fail", 1, 0), ("retry", 3, 2)], ids=["fail", "retry"])
def test_an_error_that_persists_ends_the_run(run_of, config_of, fault, policy, times, printed):
    run = run_of(config_of(on_client_error=policy, retries=2))
    fault("train", 1, 1, times=times)
    with pytest.raises(ClientError) as raised:
        run.round()
    assert (raised.value.client, raised.value.round, raised.value.phase) == (1, 1, "train")
    assert len(run.printed) == printed


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ZeroDivisionError("float division"), ClientError),
        (MemoryError(), ClientMemoryError),
        (torch.OutOfMemoryError("CUDA out of memory"), ClientMemoryError),
    ],
    ids=["code", "memory", "gpu"],
)
def test_every_error_of_a_step_names_client_round_and_phase(run_of, config_of, fault, golden, error, kind):
    fault("train", 2, 1, error)
    with pytest.raises(ClientError) as raised:
        run_of(config_of()).round()
    assert type(raised.value) is kind
    # The phase `train` is over when the fault strikes, so the error names the task instead.
    assert (raised.value.client, raised.value.round, raised.value.phase) == (2, 1, "run_round")
    golden(raised.value)
    assert "test_recovery_inline.py" in raised.value.trace


def test_an_evaluation_is_retried_but_never_skips_a_client(run_of, config_of, fault):
    expected = run_of(config_of())
    expected.round()
    fault("confusions", 1, 1, ZeroDivisionError())
    retried = run_of(config_of(on_client_error="retry"))
    retried.round()
    found, wanted = (run.map(ClientHost.evaluate, run.broadcast) for run in (retried, expected))
    one, other = ([evaluation.confusions["head"].tolist() for evaluation in each] for each in (found, wanted))
    assert one == other
    assert retried.incidents.totals == {"steps_retried": 1}
    fault("confusions", 1, 1, ZeroDivisionError())
    skipping = run_of(config_of(on_client_error="skip"))
    skipping.round()
    with pytest.raises(ClientError) as raised:
        skipping.map(ClientHost.evaluate, skipping.broadcast)
    assert (raised.value.client, raised.value.round, raised.value.phase) == (1, 1, "evaluate")


def save(pool, store, round):
    """Publishes one checkpoint of all clients; returns its manifest."""
    draft = store.draft(f"round_{round:06d}", 1)
    shards = [shard for future in pool.save(EVERYONE, store, draft) for shard in future.result(TIMEOUT_S)]
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


def test_a_client_is_rebuilt_from_its_newest_whole_checkpoint(
    run_of, config_of, method_of, store, tmp_path, fault, golden
):
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
    assert disturbed.incidents.totals == {"steps_retried": 1, "checkpoints_damaged": 1}
    assert disturbed.printed[1].startswith(f"checkpoints/{newest.folder}: client_0001")
    golden("\n".join(disturbed.printed), {socket.gethostname(): "HOST"})
    assert disturbed.digests() == expected.digests()
    assert payloads_are_equal(disturbed.broadcast.payload, expected.broadcast.payload)
    damage(tmp_path, older, 2)
    damage(tmp_path, newest, 2)
    with pytest.raises(CheckpointError) as raised:
        disturbed.pool.restore([2])
    assert [line.split(":")[0] for line in str(raised.value).splitlines()] == [
        f"checkpoints/{newest.folder}",
        f"checkpoints/{older.folder}",
    ]


def test_a_resumed_pool_has_the_states_of_its_checkpoint(run_of, config_of, method_of, store):
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
    return tuple(Replay("run_round", round, Broadcast(round - 1)) for round in rounds)


def assert_absent(host, client):
    """No task can run on the client, rather than on a client in a wrong state."""
    with pytest.raises(ClientError) as raised:
        host.perform(ClientHost.digest, client)
    assert (raised.value.client, raised.value.round, raised.value.phase) == (client, 0, "digest")
    assert isinstance(raised.value.__cause__, KeyError)


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


def test_a_rebuild_takes_the_last_step_too(host_of, method_of, tiny_federation):
    method = method_of("fedvtc")
    _, _, broadcast = tiny_federation(method).round()
    host = host_of(method=method)
    host.run_round(0, Broadcast())
    host.finish(0, broadcast)
    other = host_of(method=method)
    other.rebuild(0, History(None, (), True, (*steps(1), Replay("finish", 2, broadcast))))
    assert other.digest(0) == host.digest(0)


@pytest.mark.parametrize(("damaged", "num_skipped"), [([], 0), ([2], 1), ([1, 2], 2), ([1], 0)])
@pytest.mark.parametrize("from_nothing", [True, False])
def test_a_rebuild_starts_from_the_newest_whole_checkpoint(
    host_of, store, tmp_path, damaged, num_skipped, from_nothing
):
    host, manifests = host_of([0]), {}
    for round in (1, 2):
        train(host, 0, round)
        draft = store.draft(f"round_{round:06d}", 1)
        host.hold(0)
        (shard,) = host.save([0], store, draft)
        manifests[round] = Manifest("run", round, "round", "f00d", None, (shard,), {}, "now")
        store.publish(draft, manifests[round])
    expected = train(host, 0, 3)
    for round in damaged:
        damage(tmp_path, manifests[round], 0)
    history = History(store, (manifests[2], manifests[1]), from_nothing, steps(1, 2, 3))
    other = host_of([0])
    if len(damaged) == 2 and not from_nothing:
        with pytest.raises(CheckpointError) as raised:
            other.rebuild(0, history)
        assert [line.split(":")[0] for line in str(raised.value).splitlines()] == [
            "checkpoints/round_000002",
            "checkpoints/round_000001",
        ]
        assert_absent(other, 0)
        return
    lines = other.rebuild(0, history)
    assert all(line.endswith(f" (on {socket.gethostname()})") for line in lines)
    assert [line.split(":")[0] for line in lines] == ["checkpoints/round_000002", "checkpoints/round_000001"][
        :num_skipped
    ]
    assert other.digest(0) == expected


def test_a_shard_of_another_client_is_an_error_and_leaves_no_client(host_of, store):
    host = host_of()
    shard = partial(write_tree, {"classifier": {"module": {}, "optimizer": {}}})
    draft = store.draft("round_000001", 1)
    manifest = Manifest("run", 1, "round", "f00d", None, (store.write(draft, shard_name(0), shard),), {}, "now")
    store.publish(draft, manifest)
    with pytest.raises(ClientError) as raised:
        host.perform(ClientHost.rebuild, 0, History(store, (manifest,), False, ()))
    assert (raised.value.client, raised.value.round, raised.value.phase) == (0, 0, "rebuild")
    assert_absent(host, 0)


def test_an_adopted_client_is_absent_until_its_rebuild(host_of, tiny_specs):
    old, new = host_of(), host_of([0])
    expected = train(old, 2, 1)
    new.adopt([tiny_specs[2]])
    assert_absent(new, 2)
    new.rebuild(2, History(None, (), True, steps(1)))
    assert new.digest(2) == expected
    # The client that lived there before is unchanged.
    assert new.digest(0) == old.digest(0)


def saved_weights(tmp_path, draft, client, host_of):
    """The digest of a client that is loaded from a shard."""
    state = read_tree((tmp_path / "checkpoints" / draft / shard_name(client)).read_bytes())
    host = host_of([client])
    host._clients.use(client).load_state_dict(state)
    return host.digest(client)


def test_a_shard_holds_the_held_state(host_of, store, tmp_path):
    host, draft = host_of(), store.draft("round_000001", 1)
    held = {client: train(host, client, 1) for client in EVERYONE}
    for client in EVERYONE:
        host.hold(client)
    assert train(host, 1, 2) != held[1]
    # An evaluation does not change a client.
    host.evaluate(0, Broadcast(2))
    shards = host.save(EVERYONE, store, draft)
    assert [shard.name for shard in shards] == ["client_0000.pt", "client_0001.pt", "client_0002.pt"]
    assert {client: saved_weights(tmp_path, draft, client, host_of) for client in EVERYONE} == held
    # The copy was written once; the next hold takes the present state.
    host.hold(1)
    host.save([1], store, draft)
    assert saved_weights(tmp_path, draft, 1, host_of) == host.digest(1)


@pytest.mark.parametrize("rounds", [(), (1,), (1, 2)])
def test_a_held_state_survives_a_rebuild_of_the_client(host_of, store, tmp_path, rounds):
    host, draft = host_of(), store.draft("round_000001", 1)
    held = train(host, 0, 1, 2)
    host.hold(0)
    host.rebuild(0, History(None, (), True, steps(*rounds)))
    host.save([0], store, draft)
    assert saved_weights(tmp_path, draft, 0, host_of) == held


def test_a_held_state_survives_a_move_of_the_client(host_of, store, tmp_path):
    host, draft = host_of(), store.draft("round_000001", 1)
    held = train(host, 0, 1)
    host.hold(0)
    host.forget(0)
    assert_absent(host, 0)
    host.save([0], store, draft)
    assert saved_weights(tmp_path, draft, 0, host_of) == held


def test_a_client_that_never_worked_is_saved_in_its_initial_state(host_of, store, tmp_path):
    host, draft = host_of(), store.draft("round_000001", 1)
    host.hold(2)
    host.save([2], store, draft)
    assert saved_weights(tmp_path, draft, 2, host_of) == host_of([2]).digest(2)


def test_another_thread_writes_a_client_while_the_client_is_rebuilt_and_works(host_of, store, tmp_path):
    host = host_of([0])
    rounds = []
    with ThreadPoolExecutor(1) as writer:
        for round in range(1, 9):
            held = train(host, 0, round)
            rounds.append(round)
            draft = store.draft(f"round_{round:06d}", 1)
            host.hold(0)
            saving = writer.submit(host.save, [0], store, draft)
            if round % 2:
                host.rebuild(0, History(None, (), True, steps(*rounds)))
                assert host.digest(0) == held
            train(host, 0, 20 + round)
            rounds.append(20 + round)
            saving.result(TIMEOUT_S)
            assert saved_weights(tmp_path, draft, 0, host_of) == held


def test_a_shard_that_cannot_be_written_fails_alone(run_of, config_of, store, tmp_path):
    run = run_of(config_of())
    draft = store.draft("round_000001", 1)
    (tmp_path / "checkpoints" / draft / shard_name(1)).mkdir()
    futures = run.pool.save(EVERYONE, store, draft)
    assert isinstance(futures[1].exception(TIMEOUT_S), IsADirectoryError)
    assert [futures[client].result(TIMEOUT_S)[0].name for client in (0, 2)] == [shard_name(0), shard_name(2)]


def test_clients_do_not_wait_for_a_checkpoint_that_failed(host_of, store, tmp_path, monkeypatch):
    host, draft = host_of(), store.draft("round_000001", 1)
    for client in EVERYONE:
        train(host, client, 1)
        host.hold(client)
    train(host, 2, 2)
    (tmp_path / "checkpoints" / draft / shard_name(0)).mkdir()
    with pytest.raises(IsADirectoryError):
        host.save(EVERYONE, store, draft)
    # Without room for copies, a client whose state is still held waits until the state is written.
    monkeypatch.setattr(snapshots, "MAX_ASIDE_BYTES", 0)
    with ThreadPoolExecutor(1) as worker:
        working = worker.submit(lambda: [train(host, client, 3) for client in EVERYONE])
        done, _ = wait([working], TIMEOUT_S)
        host._snapshots.release(EVERYONE)
    assert done


def test_zero_retries_retry_no_client(run_of, config_of, fault):
    run = run_of(config_of(on_client_error="retry", retries=0))
    fault("train", 0, 1)
    with pytest.raises(ClientError) as raised:
        run.round()
    assert (raised.value.client, raised.value.round) == (0, 1)
    assert run.printed == []


def test_a_client_whose_upload_is_not_finite_is_skipped(run_of, config_of):
    # One huge step: the loss before the step is finite, the features after the step are not.
    training = {"epochs": 1, "batch_size": 99, "optimizer": OptimizerConfig(name="sgd", lr=1e38)}
    config = replace(config_of(FedProtoConfig(), on_client_error="skip"), training=TrainingConfig(**training))
    run = run_of(config)
    before = run.digests()
    results = run.map(ClientHost.run_round, Broadcast())
    assert [(result.client, result.round, result.phase) for result in results] == [
        (client, 1, "upload") for client in EVERYONE
    ]
    assert run.digests() == before
    assert run.incidents.totals == {"clients_skipped": 3}

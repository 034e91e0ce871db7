"""The checkpointer: when it saves, the contents of a checkpoint, and disks that fail."""

import errno
import importlib.metadata
import json
import shutil
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from fsspec.core import url_to_fs
from fsspec.implementations.memory import MemoryFileSystem

from fedvtc.config import fingerprint
from fedvtc.config.operation import CheckpointConfig, RuntimeConfig
from fedvtc.config.schema import MethodConfig
from fedvtc.errors import CheckpointError, DiskError
from fedvtc.federation.checkpointer import Checkpointer
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.incidents import Incidents
from fedvtc.runtime.inline_pool import InlinePool
from fedvtc.runtime.lineage import Lineage
from fedvtc.storage.checkpoints import CheckpointStore, Manifest
from fedvtc.storage.checkpoints.contents import misfit, read_server
from fedvtc.storage.checkpoints.trees import read_tree

TIMEOUT_S = 20
STATE = {"counts": np.arange(3), "clients": {"0": {"mean": np.full((2, 2), 0.5, np.float32)}}, "name": "a"}
BROADCAST = Broadcast(3, {"prototypes": {"mean": np.array([[1.5, 2.5]])}})


class SlowStore(CheckpointStore):
    """A store whose writes wait for its gate."""

    def __init__(self, location):
        super().__init__(location)
        self.gate, self.is_asked = threading.Event(), threading.Event()

    def write(self, draft, name, save):
        self.is_asked.set()
        assert self.gate.wait(TIMEOUT_S)
        return super().write(draft, name, save)


class StubbornStore(CheckpointStore):
    """A store that cannot delete."""

    def prune(self, *_):
        raise PermissionError(errno.EACCES, "Permission denied")


class Saving:
    """A checkpointer with the parts it works on."""

    def __init__(self, config, dataset, specs, store, **keys):
        self.config, self.store, self.notes = config, store, []
        self.lineage, self.incidents = Lineage(store, keys.get("start")), Incidents(self.notes.append)
        self.pool = InlinePool(config, dataset, specs, self.lineage, self.incidents)
        settings = {"run_id": "0123abcd", "attempt": 3} | keys
        self.checkpoints = Checkpointer(config, store, self.pool, self.lineage, self.incidents, **settings)

    def save(self, round, accuracy=None, **keys):
        self.checkpoints.save(round, STATE, BROADCAST, accuracy, **keys)

    def save_and_wait(self, round, accuracy=None):
        self.save(round, accuracy)
        self.checkpoints.wait()

    def train(self, round, clients=(0, 1, 2)):
        list(self.pool.map(ClientHost.run_round, clients, Broadcast(round - 1)))

    def digests(self):
        return list(self.pool.map(ClientHost.digest, [0, 1, 2]))

    def rounds(self):
        return [manifest.round for manifest in self.store.manifests(pytest.fail) if manifest.phase == "round"]

    def clients_of(self, manifest):
        return [read_tree(self.store.read(manifest, f"client_{client:04d}.pt")) for client in range(3)]

    def restored_digests(self, manifest, specs, dataset):
        """Digests of the weights of clients that are built from a checkpoint."""
        lineage = Lineage(self.store, manifest)
        with InlinePool(self.config, dataset, specs, lineage) as pool:
            pool.restore([0, 1, 2])
            return list(pool.map(ClientHost.digest, [0, 1, 2]))


@pytest.fixture
def saving(tiny_config, tiny_dataset, tiny_specs, tmp_path):
    """Makes a `Saving`, and closes its pool after the test."""
    made = []

    def make(checkpoint=(), runtime=(), *, store=None, **keys):
        config = tiny_config(
            MethodConfig(name="local"),
            checkpoint=CheckpointConfig(**dict(checkpoint)),
            runtime=RuntimeConfig(**dict(runtime)),
        )
        store = store or CheckpointStore(tmp_path / "checkpoints")
        made.append(Saving(config, tiny_dataset, tiny_specs, store, **keys))
        return made[-1]

    yield make
    for saving in made:
        saving.pool.close()


@pytest.mark.parametrize(("every", "due"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6, 7]), (9, [7]), (None, [])])
def test_the_last_round_is_always_saved(saving, every, due):
    checkpoints = saving({"every": every}).checkpoints
    assert [round for round in range(1, 8) if checkpoints.is_due(round, is_last=round == 7)] == due


@pytest.mark.parametrize("every", [None, 100])
def test_the_steps_in_memory_are_bounded_without_checkpoints_of_every_round(saving, monkeypatch, every):
    payload = {"generator": {"weight": np.zeros(1000, np.float32)}}
    groups = {"cnn_2x8": {"head": {"weight": np.zeros(250, np.float32)}}}
    monkeypatch.setattr("fedvtc.federation.checkpointer.MAX_LINEAGE_BYTES", 15_500)
    run, saved, num_steps = saving({"every": every}), [], []
    for round in range(1, 16):
        list(run.pool.map(ClientHost.run_round, [0, 1, 2], Broadcast(round - 1, payload, groups)))
        if run.checkpoints.is_due(round, is_last=False):
            run.save_and_wait(round)
            saved.append(round)
        num_steps.append(run.lineage.num_steps)
    # A step takes 5,210 bytes, and the steps since the second newest checkpoint stay.
    assert saved == [3, 6, 9, 12, 15]
    assert num_steps == [1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5, 3, 4, 5, 3]


def test_a_checkpoint_holds_its_run_and_the_server(saving):
    run = saving()
    run.train(3)
    run.save_and_wait(3, accuracy=0.25)
    (manifest,) = run.store.manifests(pytest.fail)
    assert (manifest.run_id, manifest.round, manifest.phase) == ("0123abcd", 3, "round")
    assert (manifest.accuracy, manifest.fingerprint) == (0.25, fingerprint(run.config))
    assert set(manifest.versions) >= {"python", "fedvtc", "torch", "lightning", "ray", "numpy"}
    assert manifest.versions["torch"] == importlib.metadata.version("torch")
    names = ["client_0000.pt", "client_0001.pt", "client_0002.pt", "server.pt"]
    assert sorted(shard.name for shard in manifest.shards) == names
    assert run.store.problems(manifest) == []
    state, broadcast = read_server(run.store, manifest)
    assert state["name"] == "a"
    np.testing.assert_array_equal(state["counts"], np.arange(3))
    mean = state["clients"]["0"]["mean"]
    assert (mean.dtype, mean.tolist()) == (np.float32, [[0.5, 0.5], [0.5, 0.5]])
    assert broadcast.round == 3
    np.testing.assert_array_equal(broadcast.payload["prototypes"]["mean"], [[1.5, 2.5]])


def test_a_client_that_never_worked_has_no_file_and_resumes_from_the_seed(saving, tiny_specs, tiny_dataset):
    run = saving({"keep": 3})
    fresh = run.digests()
    for round in (1, 2, 3):
        run.train(round, clients=[1])
        run.save_and_wait(round)
    manifests = run.store.manifests(pytest.fail)
    assert [manifest.clients for manifest in manifests] == [{1}, {1}, {1}]
    assert [misfit(manifest, "0123abcd", run.config) for manifest in manifests] == [None] * 3
    # A process that takes over a client gets the files of this client alone.
    assert [len(known.shards) for known in run.lineage.history(1).checkpoints] == [1, 1]
    assert not run.lineage.history(0).has_state
    expected = run.digests()
    assert expected[::2] == fresh[::2]
    assert run.restored_digests(manifests[0], tiny_specs, tiny_dataset) == expected
    # A client that first works after the resume is in the next checkpoint.
    later = saving(start=manifests[0])
    later.pool.restore(sorted(later.lineage.worked()))
    assert later.digests() == expected
    later.train(4, clients=[2])
    later.save_and_wait(4)
    assert later.store.manifests(pytest.fail)[0].clients == {1, 2}
    assert later.restored_digests(later.store.manifests()[0], tiny_specs, tiny_dataset) == later.digests()


def test_a_damaged_server_is_not_read(saving, tmp_path, golden):
    run = saving()
    run.save_and_wait(3)
    (manifest,) = run.store.manifests(pytest.fail)
    file = tmp_path / "checkpoints/round_000003/server.pt"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError) as error:
        read_server(run.store, manifest)
    num_bytes = file.stat().st_size
    golden(error.value, {str(num_bytes): "LESS", str(num_bytes + 1): "SIZE"})


@pytest.mark.parametrize("async_", [True, False])
def test_clients_are_saved_as_they_were_although_they_train_on(saving, tiny_specs, tiny_dataset, async_):
    run = saving({"async_": async_, "keep": 9})
    expected = []
    for round in (1, 2, 3):
        run.train(round)
        expected.append(run.digests())
        run.save(round)
        run.train(round + 10)
    run.checkpoints.wait()
    manifests = sorted(run.store.manifests(pytest.fail), key=lambda manifest: manifest.round)
    assert [run.restored_digests(manifest, tiny_specs, tiny_dataset) for manifest in manifests] == expected
    assert len({digest for digests in expected for digest in digests}) == 9


def test_rounds_run_while_a_checkpoint_is_written_and_the_next_checkpoint_waits(saving, tmp_path):
    store = SlowStore(tmp_path / "checkpoints")
    run = saving(store=store)
    run.save(1)
    assert store.is_asked.wait(TIMEOUT_S)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["round_000001.attempt-3.tmp"]
    assert run.rounds() == []
    with ThreadPoolExecutor(1) as second:
        saving_next = second.submit(run.save, 2)
        with pytest.raises(TimeoutError):
            saving_next.result(0.05)
        assert not run.checkpoints.covers(2)
        store.gate.set()
        saving_next.result(TIMEOUT_S)
    run.checkpoints.wait()
    assert run.rounds() == [2, 1]


def test_without_async_rounds_wait_for_the_checkpoint(saving, tmp_path):
    store = SlowStore(tmp_path / "checkpoints")
    run = saving({"async_": False}, store=store)
    with ThreadPoolExecutor(1) as other:
        being_saved = other.submit(run.save, 1)
        assert store.is_asked.wait(TIMEOUT_S)
        with pytest.raises(TimeoutError):
            being_saved.result(0.05)
        store.gate.set()
        being_saved.result(TIMEOUT_S)
    assert run.rounds() == [1]


def test_a_round_is_covered_once_its_checkpoint_has_begun(saving, tmp_path):
    store = SlowStore(tmp_path / "checkpoints")
    checkpoints = (run := saving({"every": 2}, store=store)).checkpoints
    assert (checkpoints.covers(0), checkpoints.covers(1)) == (True, False)
    run.save(2)
    assert [checkpoints.covers(round) for round in (1, 2, 3)] == [True, True, False]
    store.gate.set()
    checkpoints.wait()
    assert [checkpoints.covers(round) for round in (1, 2, 3)] == [True, True, False]


def test_the_checkpoint_of_a_resume_counts_as_saved(saving, golden, no_room):
    (before := saving()).save_and_wait(4)
    run = saving(start=before.store.newest_whole(pytest.fail))
    assert [run.checkpoints.covers(round) for round in (3, 4, 5)] == [True, True, False]
    with no_room():
        run.save_and_wait(5)
    assert run.incidents.totals == {"checkpoints_failed": 1}
    golden("\n".join(run.notes))
    assert [run.checkpoints.covers(round) for round in (4, 5)] == [True, False]


def test_without_checkpoints_every_round_is_covered_and_nothing_is_written(saving, tmp_path):
    run = saving({"every": None})
    assert run.checkpoints.covers(5)
    run.checkpoints.save_final(7, STATE, BROADCAST, 0.5)
    assert not (tmp_path / "checkpoints").exists()


def test_the_final_models_are_kept_beside_the_rounds(saving, tiny_specs, tiny_dataset):
    run = saving()
    run.train(1)
    run.save(1)
    run.train(2)
    run.checkpoints.save_final(1, STATE, BROADCAST, 0.75)
    final, last = run.store.manifests(pytest.fail)
    assert (final.folder, final.phase, final.round, final.accuracy) == ("final", "final", 1, 0.75)
    assert run.restored_digests(final, tiny_specs, tiny_dataset) == run.digests()
    assert last.round == 1
    assert not run.checkpoints.covers(2)
    assert run.clients_of(last)[0].keys() == {"classifier"}
    state, broadcast = read_server(run.store, final)
    assert (state["name"], broadcast.round, broadcast.payload.keys()) == ("a", 3, {"prototypes"})


@pytest.mark.parametrize(
    ("keep", "keep_best", "kept"),
    [(2, False, [5, 4]), (2, True, [5, 4, 2]), (3, True, [5, 4, 3, 2]), (9, True, [5, 4, 3, 2, 1])],
)
def test_the_newest_and_the_best_are_kept(saving, keep, keep_best, kept):
    run = saving({"keep": keep, "keep_best": keep_best})
    for round, accuracy in enumerate([0.1, 0.9, None, 0.3, 0.2], start=1):
        run.save_and_wait(round, accuracy)
    assert run.rounds() == kept


def test_no_checkpoint_is_deleted_while_records_wait_for_the_disk(saving):
    run = saving({"keep_best": False})
    for round in (1, 2, 3, 4):
        run.save(round, is_recorded=round <= 2)
    run.checkpoints.wait()
    assert run.rounds() == [4, 3, 2, 1]
    run.save(5, is_recorded=False)
    run.checkpoints.wait()
    assert run.rounds() == [5, 4, 2, 1]
    run.save_and_wait(6)
    assert run.rounds() == [6, 5]


@pytest.mark.parametrize("end", ["wait", "abandon"])
def test_the_first_whole_checkpoint_is_announced_at_once_and_once(saving, end):
    announced = []
    run = saving(on_first=lambda: announced.append(run.rounds()))
    run.save(1)
    # No other checkpoint follows.
    getattr(run.checkpoints, end)()
    assert announced == [[1]]
    run.save_and_wait(2)
    assert announced == [[1]]


class Frozen:
    """A pool of one frozen process: its shards are lost as soon as a call to it fails."""

    def __init__(self, pool):
        self._pool, self.saved, self.num_asked = pool, [], 0

    def save(self, clients, store, draft):
        self.saved = [Future() for _ in clients]
        return self.saved

    def check(self):
        self.num_asked += 1
        for future in self.saved:
            if not future.done():
                future.set_exception(RuntimeError("The actor died"))


@pytest.mark.parametrize("async_", [True, False])
def test_a_process_that_hangs_while_it_saves_is_noticed_between_rounds(saving, golden, async_):
    run = saving({"async_": async_})
    run.train(1)
    run.checkpoints._pool = pool = Frozen(run.pool)
    run.save(1)
    assert pool.num_asked == (0 if async_ else 1)
    run.checkpoints.wait()
    assert (pool.num_asked, run.rounds()) == (1, [])
    assert run.incidents.totals == {"checkpoints_failed": 1}
    golden("\n".join(run.notes))


def test_the_end_of_a_run_does_not_wait_for_a_process_that_hangs(saving, monkeypatch):
    run = saving({}, {"client_timeout_s": 0.1})
    run.train(1)
    run.checkpoints._pool = pool = Frozen(run.pool)
    monkeypatch.setattr("fedvtc.federation.checkpointer.TICK_S", 0.05)
    run.save(1)
    run.checkpoints.abandon()
    assert (pool.num_asked, run.rounds()) == (0, [])


class Stuck(CheckpointStore):
    """A store whose method with the given name waits for its gate in the checkpoint of round 2."""

    def __init__(self, location, method):
        super().__init__(location)
        self.gate = threading.Event()

        original = getattr(self, method)

        def wait_and_call(draft, *arguments):
            assert "000002" not in draft or self.gate.wait(TIMEOUT_S)
            return original(draft, *arguments)

        setattr(self, method, wait_and_call)


@pytest.fixture(params=["write", "publish"])
def stuck(request, saving, tmp_path, monkeypatch):
    """A run that saves round 1, and whose checkpoint of round 2 is stuck though its clients answer."""
    monkeypatch.setattr("fedvtc.federation.checkpointer.TICK_S", 0.05)
    run = saving({}, {"client_timeout_s": 0.5}, store=Stuck(tmp_path / "checkpoints", request.param))
    run.train(1)
    run.save_and_wait(1)
    run.save(2)
    yield run
    run.store.gate.set()


def test_a_checkpoint_that_is_stuck_is_given_up_and_the_run_continues(stuck, tmp_path, golden):
    thread = stuck.checkpoints._thread
    stuck.checkpoints.wait()
    assert stuck.incidents.totals == {"checkpoints_failed": 1}
    golden("\n".join(stuck.notes))
    assert [stuck.checkpoints.covers(round) for round in (1, 2)] == [True, False]
    # The thread ends later, and changes nothing that the run uses.
    stuck.store.gate.set()
    thread.join(TIMEOUT_S)
    assert [manifest.round for manifest in stuck.lineage.history(0).checkpoints] == [1]
    stuck.train(3)
    stuck.save_and_wait(3)
    stuck.save_and_wait(4)
    assert stuck.rounds() == [4, 3]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"round_000003", "round_000004"}
    assert len(stuck.notes) == 1


def test_the_end_of_a_run_does_not_wait_for_a_checkpoint_that_is_stuck(stuck):
    stuck.checkpoints.abandon()
    assert not stuck.store.gate.is_set()
    assert stuck.notes == []


@pytest.mark.parametrize("location", ["{}/checkpoints", "memory:/{}/checkpoints"])
def test_old_checkpoints_that_cannot_be_deleted_do_not_fail_the_new_one(saving, tmp_path, golden, location):
    run = saving({}, {"on_disk_error": "stop"}, store=StubbornStore(location.format(tmp_path)))
    for round in (1, 2, 3):
        run.train(round)
        run.save_and_wait(round)
    assert run.rounds() == [3, 2, 1]
    assert [run.store.problems(manifest) for manifest in run.store.manifests(pytest.fail)] == [[], [], []]
    (note,) = set(run.notes)
    golden(note)
    assert run.incidents.totals == {"disk_errors": 3}
    assert [manifest.round for manifest in run.lineage.history(0).checkpoints] == [3, 2]
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def test_the_lineage_drops_steps_that_a_whole_checkpoint_covers(saving):
    run = saving({"keep": 2})
    for round, kept in [(1, 0), (2, 1), (3, 1), (4, 1)]:
        run.train(round)
        run.save_and_wait(round)
        # From the older of the two that are kept on.
        assert (run.lineage.num_steps, run.lineage.history(0).from_nothing) == (kept, False)
    assert [manifest.round for manifest in run.lineage.history(0).checkpoints] == [4, 3]


def test_kept_checkpoints_keep_no_steps_in_memory(saving):
    run = saving({"keep": 50})
    for round in range(1, 21):
        run.train(round, clients=[0])
        run.save_and_wait(round)
    assert len(run.rounds()) == 20
    assert run.lineage.num_steps == 1
    assert [manifest.round for manifest in run.lineage.history(0).checkpoints] == [20, 19]


def test_the_lineage_never_uses_the_checkpoint_of_another_run(saving, tmp_path):
    run = saving()
    store = run.store
    draft = store.draft("round_000001", 1)
    store.publish(draft, Manifest("another", 1, "round", "f00d", None, (), {}, "now"))
    run.save_and_wait(2)
    assert [manifest.round for manifest in run.lineage.history(0).checkpoints] == [2]


def test_a_full_disk_fails_the_checkpoint_and_nothing_else(saving, tmp_path, golden, no_room):
    run = saving()
    run.train(1)
    run.save_and_wait(1)
    run.train(2)
    with no_room():
        run.save_and_wait(2)
    assert run.incidents.totals == {"checkpoints_failed": 1}
    golden("\n".join(run.notes))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["round_000001"]
    assert run.store.newest_whole(pytest.fail).round == 1
    assert [run.checkpoints.covers(round) for round in (1, 2)] == [True, False]
    # The step since then is still known, so that a client can be built.
    assert [step[1] for step in run.lineage.history(0).steps] == [2]
    run.train(3)
    run.save_and_wait(3)
    assert (run.rounds(), len(run.notes)) == ([3, 1], 1)


def test_a_first_checkpoint_that_fails_leaves_none(saving, golden, no_room):
    run = saving({"async_": False})
    with no_room():
        run.save(1)
    golden("\n".join(run.notes))
    assert (run.checkpoints.covers(1), run.rounds()) == (False, [])


@pytest.mark.parametrize("on_disk_error", ["continue", "stop"])
def test_a_node_without_the_draft_is_named(saving, tmp_path, golden, on_disk_error):
    """A node that does not share checkpoint.dir has no draft."""

    class Elsewhere(CheckpointStore):
        def draft(self, folder, attempt):
            draft = super().draft(folder, attempt)
            shutil.rmtree(tmp_path / "checkpoints")
            return draft

    run = saving({}, {"on_disk_error": on_disk_error}, store=Elsewhere(tmp_path / "checkpoints"))
    run.train(1)
    run.save(1)
    if on_disk_error == "stop":
        with pytest.raises(DiskError) as error:
            run.checkpoints.wait()
        golden(error.value, {socket.gethostname(): "HOST"})
    run.checkpoints.wait()
    assert run.incidents.totals == {"checkpoints_failed": 1}
    assert f"{socket.gethostname()} has no folder" in run.notes[0]
    assert "checkpoint.dir" in run.notes[0]
    golden("\n".join(run.notes), {socket.gethostname(): "HOST"})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT], ids=["disk", "quota"])
def test_only_a_full_disk_needs_space(saving, golden, number):
    class Full(CheckpointStore):
        def write(self, *_):
            raise OSError(number, "full")

    run = saving({}, {"on_disk_error": "stop"}, store=Full(saving().store.location))
    with pytest.raises(DiskError) as error:
        run.save_and_wait(1)
    assert "Free disk space" in str(error.value)
    golden(error.value)


def test_a_folder_that_cannot_be_made_is_reported(saving, tmp_path, golden):
    (tmp_path / "file").write_text("")
    run = saving(store=CheckpointStore(tmp_path / "file" / "checkpoints"))
    run.save_and_wait(1)
    run.checkpoints.save_final(1, STATE, BROADCAST, None)
    assert run.incidents.totals == {"checkpoints_failed": 2}
    golden("\n".join(run.notes))


@pytest.mark.parametrize("async_", [True, False])
def test_on_disk_error_stop_raises_once(saving, golden, async_, no_room):
    run = saving({"async_": async_}, {"on_disk_error": "stop"})
    run.save_and_wait(1)
    with no_room(), pytest.raises(DiskError) as error:
        run.save_and_wait(2)
    golden(error.value)
    assert run.incidents.totals == {"checkpoints_failed": 1}
    # The same failure is not raised again.
    run.checkpoints.wait()


def test_on_disk_error_stop_covers_folders_and_the_final_checkpoint(saving, tmp_path, golden):
    (tmp_path / "file").write_text("")
    run = saving({}, {"on_disk_error": "stop"}, store=CheckpointStore(tmp_path / "file" / "checkpoints"))
    with pytest.raises(DiskError) as error:
        run.save_and_wait(1)
    golden(error.value)
    with pytest.raises(DiskError) as error:
        run.checkpoints.save_final(1, STATE, BROADCAST, None)
    golden(error.value)


def test_a_state_that_no_file_can_hold_is_reported_and_is_no_disk_error(saving, tmp_path, golden):
    run = saving({}, {"on_disk_error": "stop"})
    run.checkpoints.save(1, {"seen": {1, 2}}, BROADCAST, None)
    run.checkpoints.wait()
    assert run.incidents.totals == {"checkpoints_failed": 1}
    golden("\n".join(run.notes))
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_the_manifest_is_the_last_to_be_written(saving, tmp_path):
    run = saving()
    run.save_and_wait(1)
    manifest = json.loads((tmp_path / "checkpoints/round_000001/manifest.json").read_text())
    sizes = {shard["name"]: shard["num_bytes"] for shard in manifest["shards"]}
    files = {path.name: path for path in (tmp_path / "checkpoints/round_000001").iterdir()}
    assert {name: path.stat().st_size for name, path in files.items() if name != "manifest.json"} == sizes
    written = files.pop("manifest.json").stat().st_mtime_ns
    assert all(path.stat().st_mtime_ns <= written for path in files.values())


def test_an_idle_client_is_not_written_again_and_still_has_two_files(saving, tmp_path, tiny_specs, tiny_dataset):
    run = saving({"keep": 2, "keep_best": False})
    files, expected = {}, {}
    for round, participants in enumerate(([0, 1, 2], [0], [0], [0, 1], [0], [0]), start=1):
        list(run.pool.map(ClientHost.run_round, participants, Broadcast(round - 1)))
        run.save_and_wait(round)
        expected[round] = run.digests()
        folder = tmp_path / f"checkpoints/round_{round:06d}"
        files[round] = [(folder / f"client_{client:04d}.pt").stat().st_ino for client in range(3)]
        if round > 1:
            assert not set(files[round]) & set(files[round - 1])

    # Client 2 took part in the first round alone: two files serve all later checkpoints in turn.
    assert files[3][2] == files[1][2] == files[5][2]
    assert files[4][2] == files[2][2] == files[6][2]
    # Client 1 was another after round 4.
    assert files[3][1] == files[1][1]
    assert files[4][1] != files[2][1]
    newest, previous = run.store.manifests(pytest.fail)
    assert run.restored_digests(newest, tiny_specs, tiny_dataset) == expected[6]
    with (tmp_path / "checkpoints/round_000006/client_0002.pt").open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    assert [bool(run.store.problems(manifest)) for manifest in (newest, previous)] == [True, False]
    assert run.restored_digests(previous, tiny_specs, tiny_dataset) == expected[5]


class Copying(CheckpointStore):
    """A store that records the shards that this process copies, and the threads that take shards over."""

    def __init__(self, location):
        super().__init__(location)
        self.copied, self.threads = [], []

    def take_over(self, *arguments):
        self.threads.append(threading.current_thread())
        return super().take_over(*arguments)

    def copy(self, draft, manifest, name, source=None):
        shard = super().copy(draft, manifest, name, source)
        self.copied.append((draft.partition(".")[0], manifest.folder, name))
        return shard


@pytest.fixture(params=["{}/checkpoints", "memory:/{}/checkpoints"], ids=["folder", "url"])
def idle(request, tmp_path, saving):
    """A run in whose rounds 2 and 3 client 1 does not take part, and a function for further such rounds."""
    run = saving(store=Copying(request.param.format(tmp_path)))

    def save(*rounds):
        for round in rounds:
            run.train(round, clients=[0, 1] if round == 1 else [0])
            run.save_and_wait(round)

    save(1, 2)
    yield run, save
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def refuse(*_, **__):
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_rounds_do_not_wait_while_shards_are_taken_over(idle, tiny_specs, tiny_dataset):
    run, save = idle
    save(3, 4)
    assert [thread.name for thread in run.store.threads] == ["checkpoint"] * 2
    assert run.store.copied == []
    manifests = [manifest for manifest in run.store.manifests(pytest.fail) if manifest.round > 2]
    assert [run.store.problems(manifest) for manifest in manifests] == [[], []]
    assert run.restored_digests(manifests[0], tiny_specs, tiny_dataset) == run.digests()


def test_a_shard_that_cannot_be_shared_is_copied_and_then_written_by_its_client(
    idle, monkeypatch, tiny_specs, tiny_dataset
):
    run, save = idle
    monkeypatch.setattr(MemoryFileSystem, "cp_file", refuse)
    monkeypatch.setattr("os.link", refuse)
    save(3, 4, 5)
    copies = [("round_000003", "round_000001"), ("round_000005", "round_000003")]
    assert run.store.copied == [(*copy, "client_0001.pt") for copy in copies]
    assert run.restored_digests(run.store.newest_whole(pytest.fail), tiny_specs, tiny_dataset) == run.digests()
    assert run.notes == []


def cut(store, round):
    """Shortens the shard of client 1."""
    file_system, root = url_to_fs(store.location)
    path = f"{root}/round_{round:06d}/client_0001.pt"
    file_system.pipe_file(path, file_system.cat_file(path)[:-1])


def test_a_shard_that_is_damaged_in_one_checkpoint_is_copied_from_the_other(idle, tiny_specs, tiny_dataset):
    run, save = idle
    cut(run.store, 1)
    save(3)
    assert run.store.copied == [("round_000003", "round_000002", "client_0001.pt")]
    assert run.restored_digests(run.store.newest_whole(pytest.fail), tiny_specs, tiny_dataset) == run.digests()


def test_a_shard_that_is_damaged_in_both_checkpoints_is_missing_in_one_checkpoint(
    idle, golden, tiny_specs, tiny_dataset
):
    run, save = idle
    cut(run.store, 1)
    cut(run.store, 2)
    save(3)
    assert run.incidents.totals == {"checkpoints_failed": 1}
    golden("\n".join(run.notes))
    save(4)
    (manifest,) = (manifest for manifest in run.store.manifests(pytest.fail) if manifest.round == 4)
    assert run.restored_digests(manifest, tiny_specs, tiny_dataset) == run.digests()

import threading

import pytest

from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.lineage import Lineage
from fedvtc.storage.checkpoints import CheckpointStore, Manifest

TIMEOUT_S = 20
SOON_S = 0.1


def manifest(round):
    return Manifest("run", round, "round", "f00d", None, (), {}, "now")


def take_steps(lineage, *rounds, clients=(0,), task=ClientHost.run_round):
    for round in rounds:
        lineage.begin(task, round, f"broadcast {round - 1}").clients.update(clients)


def rounds_of(history):
    return [step.round for step in history.steps]


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path)


def test_a_history_from_nothing_holds_the_steps_that_the_client_completed(store):
    lineage = Lineage(store)
    first = lineage.begin(ClientHost.run_round, 1, "a")
    first.clients.update([0, 2])
    lineage.begin(ClientHost.run_round, 2, "b").clients.add(1)
    lineage.begin(ClientHost.finish, 3, "c").clients.update([0, 1])
    assert lineage.num_steps == 3
    history = lineage.history(0)
    assert history.steps == (("run_round", 1, "a"), ("finish", 3, "c"))
    assert (history.store, history.checkpoints, history.from_nothing) == (store, (), True)
    assert lineage.history(1).steps == (("run_round", 2, "b"), ("finish", 3, "c"))
    assert lineage.history(2).steps == (("run_round", 1, "a"),)
    # Client 3 has never worked, so it is in its initial state.
    assert lineage.history(3).steps == ()


def test_a_step_counts_for_a_client_once_the_client_completed_the_step(store):
    lineage = Lineage(store)
    step = lineage.begin(ClientHost.run_round, 1, "a")
    assert lineage.history(0).steps == ()
    before = lineage.history(0)
    step.clients.add(0)
    assert lineage.history(0).steps == (("run_round", 1, "a"),)
    # A history does not change after it was returned.
    assert before.steps == ()


def test_a_checkpoint_drops_the_steps_before_it(store):
    lineage = Lineage(store)
    take_steps(lineage, 1, 2, 3)
    lineage.saved([manifest(2)])
    history = lineage.history(0)
    assert rounds_of(history) == [3]
    assert (history.checkpoints, history.from_nothing) == ((manifest(2),), False)
    assert lineage.num_steps == 1


def test_steps_start_at_the_oldest_checkpoint_because_the_newest_may_be_damaged(store):
    lineage = Lineage(store)
    take_steps(lineage, 1, 2, 3, 4, 5)
    lineage.saved([manifest(2), manifest(4)])
    history = lineage.history(0)
    assert [known.round for known in history.checkpoints] == [4, 2]
    assert rounds_of(history) == [3, 4, 5]
    take_steps(lineage, 6)
    lineage.saved([manifest(6), manifest(4)])
    assert rounds_of(lineage.history(0)) == [5, 6]
    assert [known.round for known in lineage.history(0).checkpoints] == [6, 4]


def test_a_resumed_run_starts_from_its_checkpoint_and_never_from_nothing(store):
    lineage = Lineage(store, manifest(4))
    history = lineage.history(0)
    assert (history.checkpoints, history.from_nothing, history.steps) == ((manifest(4),), False, ())
    take_steps(lineage, 5, 6)
    # This attempt has no steps between round 2 and round 4, so the checkpoint of round 2 is of no use.
    lineage.saved([manifest(6), manifest(4), manifest(2)])
    assert [known.round for known in lineage.history(0).checkpoints] == [6, 4]
    assert rounds_of(lineage.history(0)) == [5, 6]


def test_checkpoints_before_the_start_change_nothing(store):
    lineage = Lineage(store, manifest(4))
    take_steps(lineage, 5)
    before = lineage.history(0)
    for known in ([], [manifest(3)]):
        lineage.saved(known)
        assert lineage.history(0) == before


def test_a_checkpoint_of_the_last_round_leaves_no_step_but_later_steps_count(store):
    lineage = Lineage(store)
    take_steps(lineage, 1, 2)
    lineage.saved([manifest(2)])
    assert (lineage.num_steps, lineage.history(0).steps) == (0, ())
    take_steps(lineage, 3, task=ClientHost.finish)
    assert lineage.history(0).steps == (("finish", 3, "broadcast 2"),)


def test_a_lineage_without_a_store_keeps_every_step():
    lineage = Lineage()
    take_steps(lineage, *range(1, 40))
    history = lineage.history(0)
    assert (history.store, history.from_nothing, rounds_of(history)) == (None, True, list(range(1, 40)))


class InterruptedLineage(Lineage):
    """A lineage whose `saved` lets another thread run at the worst moment, just before it sets the list of steps."""

    meanwhile = None

    def __setattr__(self, name, value):
        if name == "_steps" and self.meanwhile is not None:
            thread, self.meanwhile = threading.Thread(target=self.meanwhile), None
            thread.start()
            # With the lock, the other thread cannot end before `saved` does; without the lock, it ends in this time.
            thread.join(SOON_S)
            self.other = thread
        super().__setattr__(name, value)


def test_a_step_that_begins_while_a_checkpoint_is_reported_is_not_lost(store):
    lineage = InterruptedLineage(store)
    take_steps(lineage, 1, 2)
    lineage.meanwhile = lambda: take_steps(lineage, 3)
    writer = threading.Thread(target=lineage.saved, args=([manifest(2)],))
    writer.start()
    writer.join(TIMEOUT_S)
    lineage.other.join(TIMEOUT_S)
    assert rounds_of(lineage.history(0)) == [3]


def test_a_report_does_not_read_the_clients_of_the_step_that_runs(store):
    class Changing(set):
        def __iter__(self):
            raise RuntimeError("Set changed size during iteration")

    lineage = Lineage(store)
    take_steps(lineage, 1, 2, clients=(0, 1))
    running = lineage.begin(ClientHost.run_round, 3, "c")
    object.__setattr__(running, "clients", Changing())
    lineage.saved([manifest(2)])
    object.__setattr__(running, "clients", {2})
    assert lineage.worked() == {0, 1, 2}
    assert lineage.num_steps == 1


def test_a_history_of_the_time_of_a_report_is_of_before_or_after_it(store):
    lineage, seen = InterruptedLineage(store), []
    take_steps(lineage, 1, 2, 3)
    lineage.meanwhile = lambda: seen.append(lineage.history(0))
    before = lineage.history(0)
    writer = threading.Thread(target=lineage.saved, args=([manifest(2)],))
    writer.start()
    writer.join(TIMEOUT_S)
    lineage.other.join(TIMEOUT_S)
    assert seen[0] in (before, lineage.history(0))

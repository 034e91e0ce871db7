import pytest

from fedvtc.runtime.lineage import CHANGING, Lineage
from fedvtc.storage.checkpoints import CheckpointStore, Manifest


def manifest(round):
    return Manifest("run", round, "round", "f00d", None, (), {}, "now")


def taken(lineage, *rounds, clients=(0,), task="run_round"):
    for round in rounds:
        lineage.begin(task, round, f"broadcast {round - 1}").clients.update(clients)


def rounds_of(history):
    return [round for _, round, _ in history.steps]


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path)


def test_a_client_is_built_from_nothing_by_the_steps_it_completed(store):
    lineage = Lineage(store)
    first = lineage.begin("run_round", 1, "a")
    first.clients.update([0, 2])
    lineage.begin("run_round", 2, "b").clients.add(1)
    lineage.begin("finish", 3, "c").clients.update([0, 1])
    assert lineage.num_steps == 3
    history = lineage.history(0)
    assert history.steps == (("run_round", 1, "a"), ("finish", 3, "c"))
    assert (history.store, history.checkpoints, history.from_nothing) == (store, (), True)
    assert lineage.history(1).steps == (("run_round", 2, "b"), ("finish", 3, "c"))
    assert lineage.history(2).steps == (("run_round", 1, "a"),)
    # Nobody has seen client 3 yet: it is as it was made.
    assert lineage.history(3).steps == ()


def test_a_step_counts_for_a_client_from_the_moment_it_is_complete(store):
    lineage = Lineage(store)
    step = lineage.begin("run_round", 1, "a")
    assert lineage.history(0).steps == ()
    before = lineage.history(0)
    step.clients.add(0)
    assert lineage.history(0).steps == (("run_round", 1, "a"),)
    # A history that was handed out is of its own time.
    assert before.steps == ()


def test_a_checkpoint_makes_older_steps_superfluous(store):
    lineage = Lineage(store)
    taken(lineage, 1, 2, 3)
    lineage.saved([manifest(2)])
    history = lineage.history(0)
    assert rounds_of(history) == [3]
    assert (history.checkpoints, history.from_nothing) == ((manifest(2),), False)
    assert lineage.num_steps == 1


def test_steps_reach_back_to_the_oldest_checkpoint_for_the_newest_may_be_damaged(store):
    lineage = Lineage(store)
    taken(lineage, 1, 2, 3, 4, 5)
    lineage.saved([manifest(2), manifest(4)])
    history = lineage.history(0)
    assert [known.round for known in history.checkpoints] == [4, 2]
    assert rounds_of(history) == [3, 4, 5]
    taken(lineage, 6)
    lineage.saved([manifest(6), manifest(4)])
    assert rounds_of(lineage.history(0)) == [5, 6]
    assert [known.round for known in lineage.history(0).checkpoints] == [6, 4]


def test_a_resumed_run_starts_from_its_checkpoint_and_never_from_nothing(store):
    lineage = Lineage(store, manifest(4))
    history = lineage.history(0)
    assert (history.checkpoints, history.from_nothing, history.steps) == ((manifest(4),), False, ())
    taken(lineage, 5, 6)
    # Round 2 lies before what this attempt has steps of: nothing leads from there to here.
    lineage.saved([manifest(6), manifest(4), manifest(2)])
    assert [known.round for known in lineage.history(0).checkpoints] == [6, 4]
    assert rounds_of(lineage.history(0)) == [5, 6]


def test_checkpoints_that_are_too_old_or_none_change_nothing(store):
    lineage = Lineage(store, manifest(4))
    taken(lineage, 5)
    before = lineage.history(0)
    for known in ([], [manifest(3)]):
        lineage.saved(known)
        assert lineage.history(0) == before


def test_a_checkpoint_of_now_leaves_no_step_and_the_work_after_the_last_round_is_one(store):
    lineage = Lineage(store)
    taken(lineage, 1, 2)
    lineage.saved([manifest(2)])
    assert (lineage.num_steps, lineage.history(0).steps) == (0, ())
    taken(lineage, 3, task="finish")
    assert lineage.history(0).steps == (("finish", 3, "broadcast 2"),)


def test_without_a_store_every_step_is_kept():
    lineage = Lineage()
    taken(lineage, *range(1, 40))
    history = lineage.history(0)
    assert (history.store, history.from_nothing, rounds_of(history)) == (None, True, list(range(1, 40)))


def test_what_changes_a_client_is_known():
    assert CHANGING == ("run_round", "finish")

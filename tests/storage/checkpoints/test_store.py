import pickle
from operator import methodcaller

import pytest

from fedvtc.errors import CheckpointError
from fedvtc.storage.checkpoints import Shard

EMPTY = "client_0012.pt"
NAMES = ("server.pt", "client_0003.pt", EMPTY)


def flip_bit(content, position=0):
    return content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]


def test_what_is_published_is_found_and_read(store, place, save, contents_of):
    manifest = save(store, 10, accuracy=0.5)

    assert store.manifests(pytest.fail) == [manifest]
    assert store.problems(manifest) == []
    assert store.newest_whole(pytest.fail) == manifest
    assert {name: store.read(manifest, name) for name in NAMES} == contents_of(10)
    assert place.names() == ["round_000010"]
    assert place.names("round_000010") == ["client_0003.pt", "client_0012.pt", "manifest.json", "server.pt"]


def test_a_shard_is_told_by_size_and_hash(store):
    draft = store.draft("round_000001", attempt=1)

    # SHA-256 of "abc" is an example of FIPS 180-2.
    assert store.write(draft, "server.pt", methodcaller("write", b"abc")) == Shard(
        "server.pt", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_checkpoints_come_newest_first_and_the_final_one_before(store, save):
    for round in (2, 1000000, 999999, 10):
        save(store, round)
    save(store, 7, phase="final")

    assert [m.folder for m in store.manifests(pytest.fail)] == [
        "final",
        "round_1000000",
        "round_999999",
        "round_000010",
        "round_000002",
    ]
    assert store.newest_whole(pytest.fail).round == 1000000
    assert store.newest_whole(pytest.fail, max_round=999998).round == 10
    assert store.newest_whole(pytest.fail, max_round=1) is None


def test_where_nothing_was_written_nothing_is_found(store, newest):
    store.clear_drafts()
    store.prune(newest(store, 1), keep_best=True)

    assert store.manifests(pytest.fail) == []
    assert store.newest_whole(pytest.fail) is None


def test_a_draft_is_no_checkpoint(store, save):
    save(store, 1)
    store.write(store.draft("round_000002", attempt=1), "server.pt", methodcaller("write", b"x"))

    assert store.newest_whole(lambda line: None).round == 1


DAMAGES = {
    "missing": (None, "{name} is missing"),
    "longer": (lambda content: content + b"!", "{name} has {longer} of {size} bytes"),
    "shorter": (lambda content: content[:-1], "{name} has {shorter} of {size} bytes"),
    "first bit": (flip_bit, "{name} does not match its hash"),
    "last bit": (lambda content: flip_bit(content, len(content) - 1), "{name} does not match its hash"),
}


@pytest.mark.parametrize(
    ("name", "damage"),
    # An empty shard can only be missing or longer.
    [(name, damage) for name in NAMES for damage in DAMAGES if name != EMPTY or damage in ("missing", "longer")],
)
def test_damage_to_any_shard_is_named_and_an_older_checkpoint_used(store, place, name, damage, save, contents_of):
    old, new = save(store, 11), save(store, 12)
    size, (change, fault) = len(contents_of(12)[name]), DAMAGES[damage]
    if change:
        place.change(f"round_000012/{name}", change)
    else:
        place.delete(f"round_000012/{name}")
    line = "checkpoints/round_000012: " + fault.format(name=name, size=size, longer=size + 1, shorter=size - 1)
    lines = []

    assert store.problems(new) == [line]
    assert store.newest_whole(lines.append) == old
    assert lines == [line]
    with pytest.raises(CheckpointError) as raised:
        store.read(new, name)
    assert str(raised.value) == line


def test_many_problems_are_one_line(store, place, save):
    manifest = save(store, 12)
    for name in NAMES:
        place.delete(f"round_000012/{name}")
    lines = []

    assert len(store.problems(manifest)) == 3
    assert store.newest_whole(lines.append) is None
    assert lines == ["checkpoints/round_000012: server.pt is missing (and 2 more problems)"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda text: text[: len(text) // 2], "round_000012/manifest.json: is not JSON; it is damaged"),
        (lambda text: b"", "round_000012/manifest.json: is not JSON; it is damaged"),
        (
            lambda text: text.replace(b'"round": 12', b'"round": 11'),
            "round_000012: manifest.json is that of round_000011",
        ),
        (
            lambda text: text.replace(b'"phase": "round"', b'"phase": "final"'),
            "round_000012: manifest.json is that of final",
        ),
        (lambda text: text.replace(b"server.pt", b"../up.pt"), "round_000012/manifest.json: name cannot be '../up.pt'"),
        (None, "round_000012: manifest.json is missing"),
    ],
)
def test_a_damaged_manifest_is_named_and_passed_over(store, place, change, fault, save):
    old = save(store, 11)
    save(store, 12)
    if change:
        place.change("round_000012/manifest.json", change)
    else:
        place.delete("round_000012/manifest.json")
    lines = []

    assert store.newest_whole(lines.append) == old
    assert lines == [f"checkpoints/{fault}"]


def test_a_shard_that_is_not_of_the_checkpoint_is_not_read(store, place, save):
    manifest = save(store, 1)
    place.create("round_000001/client_0099.pt")

    with pytest.raises(CheckpointError, match=r"^checkpoints/round_000001: client_0099\.pt is not part of it$"):
        store.read(manifest, "client_0099.pt")


def test_foreign_names_are_neither_checkpoints_nor_deleted(store, place, save, newest):
    foreign = ["notes.tmp", "round_12", "round_000012.bak", "finals", "xround_000001", "round_000001.attempt-x.tmp"]
    for name in foreign:
        place.create(f"{name}/manifest.json")
    place.create("README")
    save(store, 1)

    assert len(store.manifests(pytest.fail)) == 1
    store.clear_drafts()
    store.prune(newest(store, 1), keep_best=False)
    assert place.names() == sorted([*foreign, "README", "round_000001"])


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_checkpoint_gives_way_to_a_new_one_of_its_name(store, place, is_damaged, save):
    save(store, 5, run_id="old")
    place.create("round_000005/client_0044.pt")
    if is_damaged:
        place.delete("round_000005/manifest.json")

    manifest = save(store, 5, run_id="new")

    assert store.newest_whole(pytest.fail) == manifest
    assert manifest.run_id == "new"
    assert place.names() == ["round_000005"]
    assert "client_0044.pt" not in place.names("round_000005")


def test_a_draft_begun_again_is_empty(store, place):
    for name in ("server.pt", "client_0003.pt"):
        draft = store.draft("round_000002", attempt=1)
        store.write(draft, name, methodcaller("write", b"x"))

    assert place.names(draft) == ["client_0003.pt"]


def test_a_discarded_draft_is_gone(store, place, save):
    save(store, 1)
    draft = store.draft("round_000002", attempt=1)
    store.write(draft, "server.pt", methodcaller("write", b"x"))

    store.discard(draft)
    store.discard(draft)

    assert place.names() == ["round_000001"]


def test_what_crashes_left_is_cleared_and_checkpoints_stay(store, place, save):
    save(store, 1)
    save(store, 1, phase="final")
    for attempt in (1, 12):
        store.write(store.draft("round_000002", attempt), "server.pt", methodcaller("write", b"x"))

    store.clear_drafts()

    assert place.names() == ["final", "round_000001"]


@pytest.mark.parametrize(
    ("keep", "keep_best", "kept"),
    [
        (1, False, ["final", "round_000006"]),
        (2, False, ["final", "round_000005", "round_000006"]),
        # Rounds 2 and 4 are equally good: the newer stays.
        (1, True, ["final", "round_000004", "round_000006"]),
        (3, True, ["final", "round_000004", "round_000005", "round_000006"]),
        (9, True, ["final", *(f"round_{round:06d}" for round in range(1, 7))]),
    ],
)
def test_the_newest_the_best_and_the_final_one_are_kept(store, place, keep, keep_best, kept, save, newest):
    for round, accuracy in enumerate([0.1, 0.9, None, 0.9, float("nan"), 0.2], 1):
        save(store, round, accuracy=accuracy)
    save(store, 6, phase="final", accuracy=0.99)

    store.prune(newest(store, keep), keep_best=keep_best)

    assert place.names() == kept
    assert all(store.problems(manifest) == [] for manifest in store.manifests(pytest.fail))


def test_what_is_not_named_goes_even_where_it_is_newer(store, place, save):
    manifests = [save(store, round) for round in (1, 2, 3)]

    store.prune(manifests[1:2], keep_best=False)

    assert place.names() == ["round_000002"]


def test_without_a_measured_round_only_the_newest_are_kept(store, place, save, newest):
    for round in (1, 2, 3):
        save(store, round)

    store.prune(newest(store, 2), keep_best=True)

    assert place.names() == ["round_000002", "round_000003"]


def test_a_store_travels_to_another_process(store, location, tmp_path, save):
    manifest = save(store, 3)

    copy = pickle.loads(pickle.dumps(store))

    assert copy.newest_whole(pytest.fail) == manifest
    assert copy.location == store.location


def test_a_shard_can_be_taken_over_from_an_earlier_checkpoint(store, save, manifest_of, contents_of, place):
    old = save(store, 1)
    draft = store.draft("round_000002", attempt=1)
    shards = [store.take_over(draft, old, shard.name) for shard in old.shards]
    assert shards == list(old.shards)
    store.publish(draft, new := manifest_of(2, shards))
    place.delete("round_000001/manifest.json")
    store.prune([new], keep_best=False)

    assert store.problems(new) == []
    assert {name: store.read(new, name) for name in NAMES} == contents_of(1)


def test_a_shard_that_is_gone_or_cut_is_not_taken_over(store, save, place):
    old = save(store, 1)
    draft = store.draft("round_000002", attempt=1)
    place.delete("round_000001/server.pt")
    place.change("round_000001/client_0003.pt", lambda content: content[:-1])

    assert store.take_over(draft, old, "server.pt") is None
    assert store.take_over(draft, old, "client_0003.pt") is None
    assert store.take_over(draft, old, "client_0099.pt") is None

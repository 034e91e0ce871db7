import pickle
from operator import methodcaller

import pytest

from fedvtc.errors import CheckpointError
from fedvtc.storage.checkpoints import Shard

EMPTY = "client_0012.pt"
NAMES = ("server.pt", "client_0003.pt", EMPTY)


def flip_bit(content, position=0):
    return content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]


def test_a_published_checkpoint_is_found_and_read(store, place, save, contents_of):
    manifest = save(store, 10, accuracy=0.5)

    assert store.manifests(pytest.fail) == [manifest]
    assert store.problems(manifest) == []
    assert store.newest_whole(pytest.fail) == manifest
    assert {name: store.read(manifest, name) for name in NAMES} == contents_of(10)
    assert place.names() == ["round_000010"]
    assert place.names("round_000010") == ["client_0003.pt", "client_0012.pt", "manifest.json", "server.pt"]


def test_a_shard_has_size_and_hash(store):
    draft = store.draft("round_000001", attempt=1)

    # SHA-256 of "abc" is an example of FIPS 180-2.
    assert store.write(draft, "server.pt", methodcaller("write", b"abc")) == Shard(
        "server.pt", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_manifests_are_in_order_from_final_and_the_newest_round_on(store, save):
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


def test_a_missing_folder_holds_no_checkpoint(store, newest):
    store.clear_drafts()
    store.prune(newest(store, 1), keep_best=True)

    assert store.manifests(pytest.fail) == []
    assert store.newest_whole(pytest.fail) is None


def test_a_draft_is_no_checkpoint(store, save):
    save(store, 1)
    store.write(store.draft("round_000002", attempt=1), "server.pt", methodcaller("write", b"x"))

    assert store.newest_whole(lambda line: None).round == 1


DAMAGES = {
    "missing": None,
    "longer": lambda content: content + b"x",
    "shorter": lambda content: content[:-1],
    "empty": lambda content: b"",
    "first bit": flip_bit,
    "last bit": lambda content: flip_bit(content, len(content) - 1),
}


def damage(place, path, kind):
    if DAMAGES[kind]:
        place.change(path, DAMAGES[kind])
    else:
        place.delete(path)


@pytest.mark.parametrize(
    ("name", "kind"),
    # An empty shard can only be missing or longer.
    [(name, kind) for name in NAMES for kind in DAMAGES if name != EMPTY or kind in ("missing", "longer")],
)
def test_damage_to_any_shard_is_reported_and_an_older_checkpoint_used(store, place, name, kind, save, keys_of):
    old, new = save(store, 11), save(store, 12)
    damage(place, f"round_000012/{name}", kind)
    lines = []

    (line,) = store.problems(new)
    assert keys_of(line) == ["checkpoints/round_000012"]
    assert name in line
    assert store.newest_whole(lines.append) == old
    assert lines == [line]
    with pytest.raises(CheckpointError) as caught:
        store.read(new, name)
    assert str(caught.value) == line


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_described_in_one_line(local, open_place, kind, save, golden):
    manifest = save(local, 12)
    damage(open_place(local.location), "round_000012/server.pt", kind)

    (line,) = local.problems(manifest)
    golden(line)


def test_many_problems_are_one_line(local, open_place, save, golden, keys_of):
    manifest = save(local, 12)
    for name in NAMES:
        open_place(local.location).delete(f"round_000012/{name}")
    lines = []

    assert len(local.problems(manifest)) == 3
    assert local.newest_whole(lines.append) is None
    assert keys_of("\n".join(lines)) == ["checkpoints/round_000012"]
    golden(lines[0])


MANIFEST_DAMAGES = {
    "torn": lambda text: text[: len(text) // 2],
    "empty": lambda text: b"",
    "another round": lambda text: text.replace(b'"round": 12', b'"round": 11'),
    "another phase": lambda text: text.replace(b'"phase": "round"', b'"phase": "final"'),
    "another folder": lambda text: text.replace(b"server.pt", b"../up.pt"),
    "missing": None,
}


@pytest.mark.parametrize("kind", MANIFEST_DAMAGES)
def test_a_damaged_manifest_is_reported_and_skipped(store, place, kind, save):
    old = save(store, 11)
    save(store, 12)
    if MANIFEST_DAMAGES[kind]:
        place.change("round_000012/manifest.json", MANIFEST_DAMAGES[kind])
    else:
        place.delete("round_000012/manifest.json")
    lines = []

    assert store.newest_whole(lines.append) == old
    (line,) = lines
    assert line.startswith("checkpoints/round_000012")


@pytest.mark.parametrize("kind", [kind for kind, change in MANIFEST_DAMAGES.items() if change])
def test_damage_to_a_manifest_is_described_in_one_line(local, open_place, kind, save, golden):
    save(local, 12)
    open_place(local.location).change("round_000012/manifest.json", MANIFEST_DAMAGES[kind])
    lines = []

    assert local.newest_whole(lines.append) is None
    (line,) = lines
    golden(line)


def test_a_file_that_the_manifest_does_not_name_is_not_read(store, place, save, keys_of):
    manifest = save(store, 1)
    place.create("round_000001/client_0099.pt")

    with pytest.raises(CheckpointError) as caught:
        store.read(manifest, "client_0099.pt")
    assert keys_of(caught.value) == ["checkpoints/round_000001"]


def test_other_names_are_neither_checkpoints_nor_deleted(store, place, save, newest):
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
def test_a_new_checkpoint_replaces_an_old_one_of_its_name(store, place, is_damaged, save):
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


def test_a_checkpoint_is_removed_alone(store, place, save):
    save(store, 1)
    save(store, 1, phase="final")

    store.remove("final")
    store.remove("final")

    assert place.names() == ["round_000001"]


def test_leftovers_of_crashes_are_cleared_and_checkpoints_stay(store, place, save):
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


def test_newer_checkpoints_that_are_not_kept_are_deleted(store, place, save):
    manifests = [save(store, round) for round in (1, 2, 3)]

    store.prune(manifests[1:2], keep_best=False)

    assert place.names() == ["round_000002"]


def test_without_a_measured_round_only_the_newest_are_kept(store, place, save, newest):
    for round in (1, 2, 3):
        save(store, round)

    store.prune(newest(store, 2), keep_best=True)

    assert place.names() == ["round_000002", "round_000003"]


def test_a_store_can_be_pickled(store, location, tmp_path, save):
    manifest = save(store, 3)

    copy = pickle.loads(pickle.dumps(store))

    assert copy.newest_whole(pytest.fail) == manifest
    assert copy.location == store.location


def test_a_shard_can_be_taken_over_from_an_earlier_checkpoint(store, save, manifest_of, contents_of, place):
    old = save(store, 1)
    draft = store.draft("round_000002", attempt=1)
    shards = store.take_over(draft, old, NAMES)
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

    taken = store.take_over(draft, old, ["server.pt", "client_0003.pt", "client_0012.pt", "client_0099.pt"])
    assert [shard.name for shard in taken] == ["client_0012.pt"]


def test_a_shard_is_copied_if_it_is_whole(store, save, place, contents_of, manifest_of):
    old = save(store, 1)
    draft = store.draft("round_000002", attempt=1)
    shard = store.copy(draft, old, "server.pt")
    store.publish(draft, new := manifest_of(2, [shard]))
    # The files are not shared.
    place.change("round_000001/server.pt", lambda content: b"x" * len(content))

    assert store.read(new, "server.pt") == contents_of(1)["server.pt"]
    with pytest.raises(CheckpointError):
        store.copy(draft, old, "server.pt")

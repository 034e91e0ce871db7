import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedvtc.config.schema import PartitionConfig
from fedvtc.errors import DataError
from fedvtc.learning.data import class_counts, load_partition, make_partition, save_partition, split_validation
from fedvtc.learning.data.client_mixes import client_mixes

KINDS = ("iid", "dirichlet", "client_dirichlet", "shards", "quantity")


def some_labels(num_images: int, num_classes: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.arange(num_images) % num_classes)


def assert_a_partition(parts: list[np.ndarray], num_images: int) -> None:
    for part in parts:
        assert part.dtype == np.int64
        assert np.all(np.diff(part) > 0)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(num_images))


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    num_clients=st.integers(1, 12),
    num_classes=st.integers(1, 6),
    num_images=st.integers(200, 400),
    alpha=st.sampled_from([0.3, 1.0, 100.0]),
    seed=st.integers(0, 10),
)
def test_every_image_goes_to_exactly_one_client(kind, num_clients, num_classes, num_images, alpha, seed):
    labels_N = some_labels(num_images, num_classes)
    classes_per_client = -(-num_classes // num_clients)
    config = PartitionConfig(
        kind=kind, alpha=alpha, min_images=1, classes_per_client=classes_per_client, max_redraws=20_000
    )
    parts = make_partition(labels_N, num_classes, num_clients, config, seed)
    assert len(parts) == num_clients
    assert_a_partition(parts, num_images)
    assert min(len(part) for part in parts) >= 1
    again = make_partition(labels_N, num_classes, num_clients, config, seed)
    assert all(np.array_equal(one, two) for one, two in zip(parts, again, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_gives_another_partition(kind):
    labels_N = some_labels(300, 3)
    config = PartitionConfig(kind=kind, alpha=5.0)
    parts, others = (make_partition(labels_N, 3, 5, config, seed) for seed in (0, 1))
    assert any(not np.array_equal(one, two) for one, two in zip(parts, others, strict=True))


@pytest.mark.parametrize(("num_clients", "sizes"), [(5, [2, 2, 2, 2, 2]), (3, [3, 3, 4]), (4, [2, 3, 2, 3])])
def test_iid_sizes_differ_by_at_most_one(num_clients, sizes):
    parts = make_partition(some_labels(10, 2), 2, num_clients, PartitionConfig(kind="iid", min_images=1), 0)
    assert [len(part) for part in parts] == sizes


def test_iid_sizes_are_equal_if_the_share_is_not_an_exact_float():
    parts = make_partition(some_labels(4900, 10), 10, 49, PartitionConfig(kind="iid"), 0)
    assert {len(part) for part in parts} == {100}


def test_shards_give_each_client_its_number_of_classes_and_each_class_equal_shards():
    labels_N = np.repeat(np.arange(5), 60)
    parts = make_partition(labels_N, 5, 10, PartitionConfig(kind="shards", classes_per_client=2), 3)
    counts_KC = class_counts(labels_N, parts, 5)
    assert (counts_KC > 0).sum(axis=1).tolist() == [2] * 10
    assert (counts_KC > 0).sum(axis=0).tolist() == [4] * 5
    assert set(counts_KC[counts_KC > 0].tolist()) == {15}


def test_shards_combine_classes_at_random():
    labels_N = np.repeat(np.arange(10), 40)
    parts = make_partition(labels_N, 10, 40, PartitionConfig(kind="shards", classes_per_client=2), 0)
    pairs = {tuple(np.flatnonzero(counts_C)) for counts_C in class_counts(labels_N, parts, 10)}
    # Classes dealt in turn would give 5 pairs, each 8 times.
    assert len(pairs) > 15


def test_dirichlet_is_skewed_in_classes_and_less_so_for_a_larger_alpha():
    labels_N = some_labels(6000, 10)
    largest_share = {}
    for alpha in (0.1, 1.0, 100.0):
        parts = make_partition(labels_N, 10, 10, PartitionConfig(kind="dirichlet", alpha=alpha), 0)
        counts_KC = class_counts(labels_N, parts, 10)
        largest_share[alpha] = float((counts_KC.max(axis=1) / counts_KC.sum(axis=1)).mean())
    assert largest_share[0.1] > 0.4 > largest_share[1.0] > 0.15 > largest_share[100.0]


def test_dirichlet_shares_have_the_mean_and_the_variance_of_the_distribution():
    labels_N = np.repeat(np.arange(400), 100)
    parts = make_partition(labels_N, 400, 4, PartitionConfig(kind="dirichlet", alpha=0.5), 0)
    shares_KC = class_counts(labels_N, parts, 400) / 100
    assert shares_KC.mean(axis=1) == pytest.approx([0.25] * 4, abs=0.05)
    # Dir(a, .., a) over 4: variance (1/4)(3/4) / (4 a + 1) = 0.0625 for a = 0.5.
    assert shares_KC.var() == pytest.approx(0.0625, abs=0.008)


class Scripted:
    """A source of randomness whose draws are known: client 1 first, mixes in turn, multinomials as expected."""

    def __init__(self, *mixes):
        self.mixes, self.concentrations = list(mixes), []

    def permutation(self, num_clients):
        return np.arange(num_clients)[::-1]

    def dirichlet(self, concentration_C):
        self.concentrations.append(concentration_C.tolist())
        return np.array(self.mixes.pop(0))

    def multinomial(self, num_draws, mix_C):
        return np.round(num_draws * mix_C).astype(np.int64)


def test_mixes_of_clients_by_hand():
    rng = Scripted([0.0, 1.0, 0.0], [0.5, 0.5], [0.5, 0.5, 0.0], [1.0])
    # Six images each. Client 1 wants class 1 alone, which has 2 images; it draws a mix of the other two for the rest.
    sizes_CK = client_mixes(np.array([6, 2, 4]), 2, 3.0, rng)
    assert rng.concentrations[:3] == [[1.5, 0.5, 1.0], [1.5, 1.0], [1.5, 0.5, 1.0]]
    assert sizes_CK[:, 1].tolist() == [2, 2, 2]
    # Class 1 is gone: client 0 takes class 0 up, then what is left.
    assert sizes_CK[:, 0].tolist() == [4, 0, 2]


def test_mixes_of_clients_follow_alpha_and_have_equal_sizes():
    labels_N = np.repeat(np.arange(4), [400, 300, 200, 99])
    for alpha, least, most in ((1e6, 0.38, 0.46), (0.01, 0.9, 1.0), (1e-300, 0.9, 1.0)):
        parts = make_partition(labels_N, 4, 10, PartitionConfig(kind="client_dirichlet", alpha=alpha), 0)
        assert sorted(map(len, parts)) == [99] + [100] * 9
        counts_KC = class_counts(labels_N, parts, 4)
        shares_K = counts_KC.max(axis=1) / counts_KC.sum(axis=1)
        assert least < np.median(shares_K) <= most


def test_1000_clients_at_a_small_alpha(keys_of, golden):
    labels_N = some_labels(5000, 10)
    with pytest.raises(DataError) as caught:
        make_partition(labels_N, 10, 1000, PartitionConfig(alpha=0.1, min_images=1, max_redraws=5), 0)
    assert "client_dirichlet" in str(caught.value)
    assert "min_images," not in str(caught.value)
    golden(caught.value)
    parts = make_partition(labels_N, 10, 1000, PartitionConfig(kind="client_dirichlet", min_images=1), 0)
    assert {len(part) for part in parts} == {5}
    assert_a_partition(parts, 5000)


def test_shards_of_a_class_with_too_few_images_are_refused(keys_of, golden):
    labels_N = np.repeat(np.arange(10), [3, *[100] * 9])
    config = PartitionConfig(kind="shards", classes_per_client=2)
    with pytest.raises(DataError) as caught:
        make_partition(labels_N, 10, 100, config, 0)
    assert keys_of(caught.value) == ["partition.classes_per_client"]
    golden(caught.value)
    # 15 clients with 2 of 10 classes: 3 holders of each class.
    assert "at most 15," in str(caught.value)
    counts_KC = class_counts(labels_N, make_partition(labels_N, 10, 15, config, 0), 10)
    assert set((counts_KC > 0).sum(axis=1)) == {2}


def test_shards_that_the_limit_of_images_leaves_without_a_class_are_refused(keys_of, golden):
    labels_N = some_labels(1000, 10)
    with pytest.raises(DataError) as caught:
        make_partition(labels_N, 10, 8, PartitionConfig(kind="shards", images_per_client=2), 0)
    assert keys_of(caught.value) == ["partition.images_per_client"]
    golden(caught.value)
    parts = make_partition(labels_N, 10, 8, PartitionConfig(kind="shards", images_per_client=20), 0)
    assert set((class_counts(labels_N, parts, 10) > 0).sum(axis=1)) == {2}


def test_quantity_skews_sizes_and_keeps_the_class_mix():
    labels_N = some_labels(20_000, 4)
    parts = make_partition(labels_N, 4, 5, PartitionConfig(kind="quantity", alpha=1.0, min_images=200), 0)
    counts_KC = class_counts(labels_N, parts, 4)
    assert counts_KC.sum(axis=1).max() > 2 * counts_KC.sum(axis=1).min()
    assert np.abs(counts_KC / counts_KC.sum(axis=1, keepdims=True) - 0.25).max() < 0.1


def test_a_class_without_images_is_skipped():
    labels_N = np.array([0, 0, 0, 2, 2, 2] * 10)
    for kind in KINDS:
        parts = make_partition(labels_N, 4, 3, PartitionConfig(kind=kind, alpha=10.0), 0)
        assert_a_partition(parts, 60)


def test_images_per_client_keeps_a_uniform_draw_of_the_clients_own():
    labels_N = some_labels(900, 3)
    whole = make_partition(labels_N, 3, 3, PartitionConfig(kind="iid"), 0)
    capped = make_partition(labels_N, 3, 3, PartitionConfig(kind="iid", images_per_client=40), 0)
    assert [len(part) for part in capped] == [40] * 3
    for few, many in zip(capped, whole, strict=True):
        assert set(few) < set(many)
        assert np.all(np.diff(few) > 0)
        assert few.max() > many[200], "a prefix is no uniform draw"


def test_200_clients_at_a_small_alpha_are_drawn_fast():
    labels_N = some_labels(60_000, 10)
    start_s = time.perf_counter()
    parts = make_partition(labels_N, 10, 200, PartitionConfig(kind="dirichlet", alpha=0.1), 0)
    assert time.perf_counter() - start_s < 5.0
    assert_a_partition(parts, 60_000)
    assert min(len(part) for part in parts) >= 2


@pytest.mark.parametrize(
    ("num_images", "num_clients", "config", "key"),
    [
        (3, 4, PartitionConfig(), "population.num_clients"),
        (30, 4, PartitionConfig(min_images=8), "partition.min_images"),
        (30, 4, PartitionConfig(images_per_client=1), "partition.images_per_client"),
        (30, 4, PartitionConfig(kind="shards", classes_per_client=4), "partition.classes_per_client"),
        (30, 2, PartitionConfig(kind="shards", classes_per_client=1), "partition.classes_per_client"),
        (30, 10, PartitionConfig(alpha=0.01, max_redraws=20), "partition.min_images"),
        (30, 4, PartitionConfig(kind="file"), "partition.file"),
        (30, 4, PartitionConfig(kind="groups"), "partition.kind"),
    ],
)
def test_an_impossible_partition_is_refused_in_one_line(num_images, num_clients, config, key, keys_of, golden):
    with pytest.raises(DataError) as caught:
        make_partition(some_labels(num_images, 3), 3, num_clients, config, 0)
    assert keys_of(caught.value) == [key]
    golden(caught.value)


def test_an_impossible_min_images_is_refused_without_a_draw(keys_of):
    start_s = time.perf_counter()
    with pytest.raises(DataError) as caught:
        make_partition(some_labels(50, 2), 2, 10, PartitionConfig(min_images=6, max_redraws=10**9), 0)
    assert keys_of(caught.value) == ["partition.min_images"]
    assert time.perf_counter() - start_s < 1.0


def test_class_counts_by_hand():
    labels_N = np.array([0, 2, 2, 1, 0])
    counts_KC = class_counts(labels_N, [np.array([0, 1, 2]), np.array([3]), np.array([], dtype=np.int64)], 4)
    assert counts_KC.tolist() == [[1, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert counts_KC.dtype == np.int64


def test_a_saved_partition_comes_back_and_is_readable_with_numpy_alone(tmp_path):
    labels_N = some_labels(50, 5)
    parts = make_partition(labels_N, 5, 4, PartitionConfig(alpha=1.0), 0)
    path = tmp_path / "partition"
    save_partition(path, parts, labels_N)
    back = load_partition(path, labels_N, 4)
    assert all(np.array_equal(one, two) for one, two in zip(parts, back, strict=True))
    with np.load(path, allow_pickle=False) as arrays:
        offsets = arrays["offsets"]
        assert np.array_equal(arrays["indices"][offsets[2] : offsets[3]], parts[2])
        assert np.array_equal(arrays["labels"], labels_N)


def test_the_path_of_a_partition_may_begin_with_the_home_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_partition(tmp_path / "partition.npz", [np.array([0, 1])])

    parts = make_partition(np.zeros(2), 1, 1, PartitionConfig(kind="file", file="~/partition.npz"), 0)

    assert [part.tolist() for part in parts] == [[0, 1]]


def test_the_kind_file_reads_a_saved_partition_and_caps_it(tmp_path, keys_of, golden):
    path = tmp_path / "partition.npz"
    save_partition(path, [np.array([5, 1, 3]), np.array([0, 2])])
    config = PartitionConfig(kind="file", file=str(path))
    assert [part.tolist() for part in make_partition(np.zeros(6), 1, 2, config, 0)] == [[1, 3, 5], [0, 2]]
    capped = make_partition(np.zeros(6), 1, 2, PartitionConfig(kind="file", file=str(path), images_per_client=2), 0)
    assert [len(part) for part in capped] == [2, 2]
    with pytest.raises(DataError) as caught:
        make_partition(np.zeros(6), 1, 2, PartitionConfig(kind="file", file=str(path), min_images=3), 0)
    assert keys_of(caught.value) == [str(path)]
    golden(caught.value)


def test_each_client_holds_the_images_of_one_group():
    groups_N = np.array([2, 0, 2, 1, 0, 2, 3])
    config = PartitionConfig(kind="groups", min_images=2)
    parts = make_partition(np.zeros(7), 1, 2, config, 0, groups_N)
    # The groups 1 and 3 are too small, so no draw is left.
    assert [part.tolist() for part in parts] == [[1, 4], [0, 2, 5]]
    assert parts[0].dtype == np.int64
    capped = PartitionConfig(kind="groups", min_images=2, images_per_client=2)
    assert [len(part) for part in make_partition(np.zeros(7), 1, 2, capped, 0, groups_N)] == [2, 2]


def test_groups_are_drawn_if_there_are_more_than_clients():
    groups_N = np.random.default_rng(0).permutation(np.repeat(np.arange(50), 4))
    config = PartitionConfig(kind="groups")
    drawn = [
        [int(groups_N[part[0]]) for part in make_partition(np.zeros(200), 1, 5, config, seed, groups_N)]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(groups == sorted(set(groups)) for groups in drawn)
    assert_a_partition(make_partition(np.zeros(200), 1, 50, config, 0, groups_N), 200)


def test_more_clients_than_groups_are_refused(keys_of, golden):
    config = PartitionConfig(kind="groups", min_images=2)
    with pytest.raises(DataError) as caught:
        make_partition(np.zeros(9), 1, 3, config, 0, np.array([0, 0, 1, 1, 1, 2, 1, 1, 1]))
    assert keys_of(caught.value) == ["population.num_clients"]
    golden(caught.value)


@pytest.mark.parametrize("text", ["[[5, 1, 3], [0, 2]]", '\n {"ann": [5, 1, 3], "bob": [0, 2]}'])
def test_the_kind_file_reads_lists_in_json(tmp_path, text):
    path = tmp_path / "clients"
    path.write_text(text)
    config = PartitionConfig(kind="file", file=str(path))
    assert [part.tolist() for part in make_partition(np.zeros(6), 1, 2, config, 0)] == [[1, 3, 5], [0, 2]]


@pytest.mark.parametrize(
    "text",
    [
        "[[0, 1], [1, 2]]",
        "[[0, 1], [2, 10]]",
        "[[0, 1], [2, -1]]",
        "[[0, 1], [2, 1e3]]",
        "[[0, 1], [2, true]]",
        f"[[0, 1], [2, {2**64}]]",
        "[[0, 1]]",
        "[0, 1]",
        "[]",
        "{}",
        "[[0, 1], [2, 3]",
        '{"users": ["ann"], "user_data": {}}',
    ],
)
def test_wrong_lists_in_json_are_refused_in_one_line(tmp_path, text, keys_of, golden):
    path = tmp_path / "clients.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        load_partition(path, np.zeros(10), 2)
    assert keys_of(caught.value) == [str(path)]
    golden(caught.value)


@pytest.mark.parametrize(
    "arrays",
    [
        {"indices": [0, 1, 2, 3], "offsets": [0, 4]},
        {"indices": [0, 1, 2, 10], "offsets": [0, 2, 4]},
        {"indices": [0, -1, 2, 3], "offsets": [0, 2, 4]},
        {"indices": [0, 1, 1, 3], "offsets": [0, 2, 4]},
        {"indices": [0, 1, 2, 3], "offsets": [0, 2, 5]},
        {"indices": [0, 1, 2, 3], "offsets": [0, 5, 4]},
        {"indices": [0, 1, 2, 3], "offsets": [1, 2, 4]},
        {"indices": [0.5, 1, 2, 3], "offsets": [0, 2, 4]},
        {"indices": [[0, 1], [2, 3]], "offsets": [0, 1, 2]},
        {"indices": [0, 1, 2, 3], "offsets": []},
        {"indices": [0, 1, 2, 3]},
        {"indices": np.array([{}]), "offsets": [0, 2, 4]},
    ],
)
def test_a_partition_file_with_wrong_arrays_is_refused(tmp_path, arrays, keys_of, golden):
    path = tmp_path / "partition.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError) as caught:
        load_partition(path, np.zeros(10), 2)
    assert keys_of(caught.value) == [str(path)]
    golden(caught.value)


def test_a_partition_of_other_data_is_refused(tmp_path, keys_of, golden):
    path = tmp_path / "partition.npz"
    save_partition(path, [np.array([0]), np.array([1])], np.array([4, 5]))
    with pytest.raises(DataError) as caught:
        load_partition(path, np.array([5, 4]), 2)
    assert keys_of(caught.value) == [str(path)]
    golden(caught.value)


@pytest.mark.parametrize("kept_bytes", [0, 1, 10, 100, -1])
def test_a_truncated_partition_file_is_refused(tmp_path, kept_bytes, keys_of):
    path = tmp_path / "partition.npz"
    save_partition(path, [np.arange(50), np.arange(50, 100)])
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(DataError) as caught:
        load_partition(path, np.zeros(100), 2)
    assert keys_of(caught.value) == [str(path)]


def test_a_partition_file_with_flipped_bits_is_refused_or_read(tmp_path):
    path = tmp_path / "partition.npz"
    save_partition(path, [np.arange(50), np.arange(50, 100)], np.zeros(100))
    content = path.read_bytes()
    num_refused = 0
    for place in range(0, 8 * len(content), 7):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            load_partition(path, np.zeros(100), 2)
        except DataError:
            num_refused += 1
    assert num_refused > len(content) // 4


def test_a_bare_array_or_an_absent_file_is_refused(tmp_path, keys_of, golden, monkeypatch):
    np.save(tmp_path / "array.npy", np.arange(3))
    for name in ("array.npy", "absent.npz"):
        with pytest.raises(DataError) as caught:
            load_partition(tmp_path / name, np.zeros(3), 1)
        assert keys_of(caught.value) == [str(tmp_path / name)]
        golden(caught.value)
    # config.yaml of a run folder keeps a relative path.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load_partition("absent.npz", np.zeros(3), 1)
    assert keys_of(caught.value) == [str(tmp_path / "absent.npz")]


def test_of_kind_all_every_client_holds_every_image(tmp_path):
    labels_N = some_labels(20, 3)
    parts = make_partition(labels_N, 3, 30, PartitionConfig(kind="all"), seed=0)
    assert [part.tolist() for part in parts] == [list(range(20))] * 30
    some = make_partition(labels_N, 3, 4, PartitionConfig(kind="all", images_per_client=12), seed=0)
    assert [len(part) for part in some] == [12] * 4
    assert len({part.tobytes() for part in some}) == 4
    save_partition(tmp_path / "partition.npz", some, labels_N)
    loaded = load_partition(tmp_path / "partition.npz", labels_N, 4, may_overlap=True)
    assert all(np.array_equal(one, two) for one, two in zip(loaded, some, strict=True))
    with pytest.raises(DataError):
        load_partition(tmp_path / "partition.npz", labels_N, 4)


def test_validation_images_are_a_share_of_each_class_rounded_down():
    labels_N = np.array([0] * 10 + [1] * 5 + [2] * 3 + [0] * 50)
    part_N = np.arange(18)
    trained_N, validation_M = split_validation(part_N, labels_N, 0.3, seed=0, client=4)
    assert np.bincount(labels_N[validation_M], minlength=3).tolist() == [3, 1, 0]
    assert np.array_equal(np.union1d(trained_N, validation_M), part_N)
    assert len(trained_N) + len(validation_M) == 18
    again = split_validation(part_N, labels_N, 0.3, seed=0, client=4)
    assert all(np.array_equal(one, two) for one, two in zip(again, (trained_N, validation_M), strict=True))
    assert not np.array_equal(validation_M, split_validation(part_N, labels_N, 0.3, seed=0, client=5)[1])
    trained_N, validation_M = split_validation(part_N, labels_N, 0.0, seed=0, client=4)
    assert (trained_N.tolist(), validation_M.tolist()) == (part_N.tolist(), [])

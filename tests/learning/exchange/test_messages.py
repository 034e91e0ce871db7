import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedvtc.learning.exchange.messages import Broadcast, Upload, WeightedMean, bytes_by_kind, find_non_finite


def test_messages_are_empty_by_default():
    assert bytes_by_kind(Broadcast().payload) == {}
    assert bytes_by_kind(Upload(client=4, round=1, num_images=9, scalars={"loss/train": 1.0}).payload) == {}


def test_bytes_are_those_of_the_arrays_of_each_kind():
    payload = {
        "prototypes": {"classes": np.zeros(3, dtype=np.int64), "mean": np.zeros((3, 5))},
        "generator": {"weight": np.zeros((2, 2), dtype=np.float32)},
        "covariance": {"scatter": np.zeros(())},
    }
    assert bytes_by_kind(payload) == {"prototypes": 3 * 8 + 15 * 8, "generator": 16, "covariance": 8}


@pytest.mark.parametrize(
    "message",
    [
        lambda: Upload(client=0, round=1, num_images=9, payload={"head": {"bias": torch.zeros(3)}}),
        lambda: Upload(client=0, round=1, num_images=9, payload={"head": np.zeros(3)}),
        lambda: Broadcast(1, {"count": {"rounds": 3}}),
        lambda: Broadcast(1, groups={"cnn_2x8": {"head": {"bias": torch.zeros(3)}}}),
    ],
    ids=["tensor", "no_names", "number", "group"],
)
def test_a_payload_of_something_else_than_named_arrays_is_refused(message, golden):
    with pytest.raises(TypeError) as refused:
        message()
    golden(refused.value)


@pytest.mark.parametrize("value", [np.array([object()]), np.array(["a"]), np.array(["2026-11-30"], dtype="datetime64")])
def test_an_array_of_other_things_than_numbers_is_refused(value, golden):
    with pytest.raises(TypeError) as refused:
        Upload(0, 1, 2, {"kind": {"name": value}})
    golden(str(refused.value))


def test_arrays_are_kept_in_c_order_as_ray_and_checkpoints_return_them():
    whole = np.arange(12.0).reshape(3, 4)
    payload = {"kind": {"turned": whole.T, "part": whole[:, 1:3], "whole": whole}}
    for sent in (
        Upload(0, 1, 2, payload).payload,
        Broadcast(1, payload).payload,
        Broadcast(1, groups={"cnn_2x8": payload}).groups["cnn_2x8"],
    ):
        assert all(array.flags.c_contiguous for array in sent["kind"].values())
        assert sent["kind"]["turned"].tolist() == whole.T.tolist()
        assert sent["kind"]["part"].tolist() == [[1, 2], [5, 6], [9, 10]]
        assert sent["kind"]["whole"] is whole


@pytest.mark.parametrize("scalars", [{"mine": "text"}, {"mine": torch.tensor(1.0)}, {"round": 3.0}], ids=repr)
def test_a_measurement_is_a_number_with_a_name_of_its_own(scalars, golden):
    with pytest.raises(TypeError) as refused:
        Upload(0, 1, 2, scalars=scalars)
    golden(str(refused.value))
    Upload(0, 1, 2, scalars={"mine": np.float32(1.0), "yours": 3, "theirs": np.int64(2)})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_array_that_is_not_finite_is_named(bad):
    good, broken = np.zeros(3, dtype=np.float32), np.array([0.0, bad])
    assert find_non_finite({"a": {"x": good, "y": broken}, "b": {"z": broken}}) == "a/y"


def test_finite_and_integer_arrays_pass():
    assert find_non_finite({"a": {"x": np.zeros(3), "n": np.array([2**62])}}) is None
    assert find_non_finite({}) is None


def test_a_weighted_mean_by_hand_in_the_type_of_the_arrays():
    mean = WeightedMean()
    mean.add({"w": np.array([1.0, 2.0], dtype=np.float32), "b": np.array(10.0)}, 1)
    mean.add({"w": np.array([5.0, 6.0], dtype=np.float32), "b": np.array(2.0)}, 3)
    value = mean.value()
    assert value["w"].tolist() == [4.0, 5.0]
    assert value["w"].dtype == np.float32
    assert value["b"] == 4.0
    assert bytes_by_kind(Broadcast(1, {"means": value}).payload) == {"means": 2 * 4 + 8}


def test_sums_are_formed_in_double_precision():
    # In float32, 2^24 + 1 is 2^24: the small terms would be lost.
    mean = WeightedMean()
    mean.add({"w": np.array([2.0**24], dtype=np.float32)}, 1)
    for _ in range(64):
        mean.add({"w": np.array([1.0], dtype=np.float32)}, 1)
    assert mean.value()["w"] == np.float32((2**24 + 64) / 65)


def test_adding_neither_changes_nor_keeps_the_arrays():
    array, mean = np.array([1.0, 2.0]), WeightedMean()
    array.flags.writeable = False
    mean.add({"w": array}, 1)
    mean.add({"w": array}, 1)
    assert array.tolist() == [1.0, 2.0]
    assert not np.shares_memory(mean.value()["w"], array)


def test_a_mean_is_empty_until_a_weight_is_added():
    mean = WeightedMean()
    assert mean.is_empty
    mean.add({"w": np.ones(1)}, 0)
    assert mean.is_empty
    mean.add({"w": np.ones(1)}, 2)
    assert not mean.is_empty


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"v": np.zeros(2)}, r"arrays \['v'\] cannot be averaged with \['w'\]"),
        ({"w": np.zeros(2), "v": np.zeros(2)}, "cannot be averaged with"),
        ({"w": np.zeros((2, 1))}, r"w: shape \(2, 1\) cannot be averaged with \(2,\)"),
    ],
)
def test_sets_of_other_names_or_shapes_are_refused(other, message):
    mean = WeightedMean()
    mean.add({"w": np.zeros(2)}, 1)
    with pytest.raises(ValueError, match=message):
        mean.add(other, 1)


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(1, 500)), min_size=1, max_size=20))
def test_the_mean_is_numpys_weighted_average(pairs):
    mean = WeightedMean()
    for value, weight in pairs:
        mean.add({"w": np.array([value])}, weight)
    values, weights = zip(*pairs, strict=True)
    assert mean.value()["w"][0] == pytest.approx(np.average(values, weights=weights), abs=1e-9)


def test_a_client_sees_the_kinds_of_its_own_group():
    head, model = {"w": np.zeros(1)}, {"w": np.ones(1)}
    broadcast = Broadcast(2, {"head": head}, {"cnn": {"model": model}})
    assert broadcast.seen_by("cnn") == Broadcast(2, {"head": head, "model": model})
    assert broadcast.seen_by("vit") == Broadcast(2, {"head": head})

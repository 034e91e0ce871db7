import errno
import io
import os
import pickle
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fedvtc.errors import CheckpointError
from fedvtc.storage.checkpoints.trees import arrays_to_tensors, read_tree, tensors_to_arrays, write_tree

DTYPES = (np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_)
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


def pack(tree):
    write_tree(tree, file := io.BytesIO())
    return file.getvalue()


def trees(leaves):
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
        ),
        max_leaves=8,
    )


def assert_same(left, right):
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, np.ndarray):
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        assert left.tobytes() == right.tobytes()
    elif isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    else:
        assert left == right


@settings(max_examples=60, deadline=None)
@given(trees(plain | arrays))
def test_a_tree_of_arrays_comes_back_with_types_and_shapes(tree):
    back = tensors_to_arrays(read_tree(pack(arrays_to_tensors(tree))))

    assert_same(back, tree)


def writable_arrays(tree):
    if isinstance(tree, np.ndarray):
        return [tree.flags.writeable]
    values = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    return [flag for value in values for flag in writable_arrays(value)]


def test_read_only_and_strided_arrays_are_saved_without_a_warning_and_come_back_writable():
    read_only = np.arange(6, dtype=np.float32).reshape(2, 3)
    read_only.flags.writeable = False
    tree = {
        "read_only": read_only,
        "scalar": np.array(7, dtype=np.int64),
        "transposed": np.arange(6).reshape(2, 3).T,
        "backwards": np.arange(4.0)[::-1],
        "every_other": np.arange(10, dtype=np.uint8)[::2],
    }

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = tensors_to_arrays(read_tree(pack(arrays_to_tensors(tree))))

    assert_same(back, tree)
    assert writable_arrays(back) == [True] * 5
    back["read_only"][0, 0] = 9
    assert read_only[0, 0] == 0


def test_a_numpy_number_comes_back_as_an_array_of_no_dimension():
    back = tensors_to_arrays(read_tree(pack(arrays_to_tensors({"mean": np.float32(0.1)}))))

    assert_same(back, {"mean": np.array(0.1, dtype=np.float32)})


def test_the_states_of_a_module_and_its_optimizer_come_back():
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model(torch.ones(2, 2, 5, 5)).sum().backward()
    optimizer.step()

    back = read_tree(pack({"model": model.state_dict(), "optimizer": optimizer.state_dict()}))

    assert_same(back["model"], dict(model.state_dict()))
    assert_same(back["optimizer"], optimizer.state_dict())
    assert back["model"]["0.weight"].stride() == model[0].weight.stride()
    other = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    other.load_state_dict(back["model"])
    torch.optim.Adam(other.parameters()).load_state_dict(back["optimizer"])
    assert torch.equal(other[0].weight, model[0].weight)


def test_a_parameter_is_saved_as_a_plain_tensor():
    back = read_tree(pack(OrderedDict(weight=torch.nn.Parameter(torch.ones(2)))))

    assert type(back) is dict
    assert type(back["weight"]) is torch.Tensor
    assert not back["weight"].requires_grad


def test_a_view_is_saved_without_its_storage():
    storage = torch.zeros(1_000_000)

    content = pack({"row": storage[10:20], "column": storage.view(1000, 1000)[:, 3], "same": storage[:1].expand(7)})

    assert len(content) < 20_000
    assert {name: tuple(tensor.shape) for name, tensor in read_tree(content).items()} == {
        "row": (10,),
        "column": (1000,),
        "same": (7,),
    }


@pytest.mark.parametrize("leaf", [np.zeros(2), np.float64(1), {1, 2}, object(), os.getcwd, b"bytes"])
def test_a_type_that_cannot_be_loaded_is_not_saved(leaf):
    with pytest.raises(TypeError, match=type(leaf).__name__):
        pack({"a": [leaf]})


class FullDisk:
    """A file that takes `num_writes` writes, then is full."""

    def __init__(self, num_writes):
        self.num_left = num_writes

    def write(self, content):
        self.num_left -= 1
        if self.num_left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(content)

    def flush(self):
        pass


@pytest.mark.parametrize("num_writes", range(12))
def test_a_full_disk_raises_its_own_error_at_any_byte(num_writes):
    with pytest.raises(OSError, match="No space left") as raised:
        write_tree({"weight": torch.ones(3), "bias": torch.ones(1)}, FullDisk(num_writes))
    assert raised.value.errno == errno.ENOSPC


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("is_forced", [False, True])
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_code_in_a_checkpoint_does_not_run(tmp_path, monkeypatch, kind, is_forced, golden, keys_of):
    if is_forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    trap, buffer = tmp_path / "ran", io.BytesIO()
    if kind == "pickle":
        pickle.dump(Payload(trap), buffer)
    else:
        torch.save({"weights": Payload(trap)}, buffer, _use_new_zipfile_serialization=kind == "zip")

    # PyTorch warns about the variable; as an error, the warning would end the load before the trap.
    warnings.simplefilter("ignore")
    with pytest.raises(CheckpointError) as caught:
        read_tree(buffer.getvalue(), "round_000003/server.pt")
    assert keys_of(caught.value) == ["round_000003/server.pt"]
    golden(caught.value)
    assert not trap.exists()

    # The trap works where code is run.
    buffer.seek(0)
    torch.load(buffer, weights_only=False) if kind != "pickle" else pickle.load(buffer)
    assert trap.exists()


def test_damaged_content_is_refused_in_one_line():
    whole = pack({"weight": torch.arange(50)})
    damaged = [whole[:end] for end in range(0, len(whole), 37)] + [b"not a checkpoint", b"\x80\x02.", b"PK\x03\x04" * 9]

    for content in damaged:
        with pytest.raises(CheckpointError) as raised:
            read_tree(content)
        assert "\n" not in str(raised.value)

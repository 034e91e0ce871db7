import numpy as np
import pytest
import torch

from fedvtc.learning.client.memory import Memory


@pytest.fixture
def memory():
    return Memory()


@pytest.mark.parametrize("value", [3, 0.25, True, np.float32(0.5), np.int64(7), np.bool_(False)])
def test_a_number_comes_back_from_the_state_with_its_value_and_a_plain_type(memory, value):
    memory["n"] = value
    restored = Memory()
    restored.load_state_dict(memory.state_dict())
    assert restored["n"] == value
    assert type(restored["n"]) is type(np.asarray(value).item())


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_an_array_comes_back_from_the_state_with_type_shape_and_values(memory, dtype, shape):
    memory["a"] = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    restored = Memory()
    restored.load_state_dict(memory.state_dict())
    assert restored["a"].dtype == dtype
    assert restored["a"].shape == shape
    assert np.array_equal(restored["a"], memory["a"])


def test_sums_of_a_transposed_array_have_the_bits_of_a_restored_one(memory):
    memory["a"] = np.random.default_rng(0).standard_normal((37, 1000)).astype(np.float32).T
    restored = Memory()
    restored.load_state_dict(memory.state_dict())
    assert restored["a"].strides == memory["a"].strides
    assert restored["a"].sum() == memory["a"].sum()


def test_an_array_is_copied_when_it_is_stored_and_when_it_is_saved(memory):
    given = np.zeros(3)
    given.flags.writeable = False
    memory["a"] = given
    saved = memory.state_dict()
    memory["a"][1] += 2.0
    assert given.tolist() == [0.0, 0.0, 0.0]
    assert saved["a"].tolist() == [0.0, 0.0, 0.0]
    assert memory.state_dict()["a"].tolist() == [0.0, 2.0, 0.0]


def test_a_default_is_the_stored_copy(memory):
    default = np.zeros(2)
    memory.setdefault("a", default)[0] = 1.0
    memory.setdefault("a", default)[1] = 2.0
    assert memory["a"].tolist() == [1.0, 2.0]
    assert default.tolist() == [0.0, 0.0]


def test_a_memory_is_a_mapping(memory):
    memory["b"], memory["a"] = 1, 2
    del memory["b"]
    assert dict(memory) == {"a": 2}
    assert memory.get("b", 0) == 0
    memory.load_state_dict({})
    assert len(memory) == 0


@pytest.mark.parametrize("value", ["text", None, [1, 2], {"a": 1}, torch.zeros(2), np.array(["a"]), np.array([None])])
def test_a_value_that_a_checkpoint_cannot_hold_is_refused(memory, value, golden):
    with pytest.raises(TypeError) as caught:
        memory["x"] = value
    golden(caught.value)
    assert "x" not in memory


def test_a_name_is_a_string(memory, golden):
    with pytest.raises(TypeError) as caught:
        memory[3] = 1
    golden(caught.value)

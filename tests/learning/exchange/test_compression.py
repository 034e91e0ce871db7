import numpy as np
import pytest

from fedvtc.learning.exchange.compression import compress, decompress, rank_of_energy
from fedvtc.learning.exchange.messages import bytes_by_kind


def low_rank(shape, rank, seed=0):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, int(np.prod(shape[1:]))))
    return matrix.reshape(shape).astype(np.float32)


@pytest.mark.parametrize(("energy", "rank"), [(0.6, 1), (0.9, 2), (0.95, 3), (1.0, 3)])
def test_the_rank_keeps_the_energy(energy, rank):
    # Shares of the squares of 3, 2 and 1: 9/14 = 0.643, 13/14 = 0.929, 1.
    assert rank_of_energy(np.array([3.0, 2.0, 1.0]), energy) == rank


def test_a_matrix_of_zeros_has_one_value():
    assert rank_of_energy(np.zeros(4), 0.95) == 1
    arrays = {"weight": np.zeros((8, 8), np.float32)}
    assert np.array_equal(decompress(compress(arrays, 0.95), arrays)["weight"], arrays["weight"])


def test_factors_replace_large_matrices_and_convolutions():
    # A row of a convolution is an output channel: 16 x (4 * 3 * 3), rank 2 needs 2 (16 + 36 + 1) numbers.
    arrays = {"convolution": low_rank((16, 4, 3, 3), 2), "head": low_rank((10, 4), 4), "bias": np.ones(16, np.float32)}
    compressed = compress(arrays, 0.999999)
    assert {name: array.shape for name, array in compressed.items()} == {
        "convolution/left": (16, 2),
        "convolution/scale": (2,),
        "convolution/right": (2, 36),
        "head": (10, 4),
        "bias": (16,),
    }
    assert bytes_by_kind({"update": compressed}) == {"update": 4 * (2 * (16 + 36 + 1) + 40 + 16)}
    restored = decompress(compressed, arrays)
    for name, array in arrays.items():
        assert restored[name].dtype == array.dtype
        assert restored[name] == pytest.approx(array, abs=1e-5)


def test_full_energy_is_the_identity():
    arrays = {"tall": low_rank((40, 5), 5), "flat": low_rank((6, 50), 6), "low": low_rank((30, 30), 3)}
    restored = decompress(compress(arrays, 1.0), arrays)
    for name, array in arrays.items():
        assert restored[name] == pytest.approx(array, abs=1e-6 * float(np.abs(array).max()))


def test_integers_are_sent_whole():
    arrays = {"steps": np.arange(400).reshape(20, 20)}
    assert compress(arrays, 0.5)["steps"] is arrays["steps"]

import zipfile

import numpy as np
import pytest

from fedvtc.storage import confusions
from fedvtc.storage.confusions import (
    CONFUSION_FILE,
    Evaluated,
    add_confusions,
    cut_confusions,
    evaluations,
    kept_every,
    read_confusions,
    set_aside_damaged,
)


def counts(value):
    return np.full((2, 3, 3), value, np.uint32)


def test_evaluations_are_read_as_written_and_numpy_reads_them_too(tmp_path):
    assert evaluations(tmp_path) == []
    add_confusions(tmp_path, {Evaluated(1): counts(1), Evaluated(1, "trained"): counts(2)})
    add_confusions(tmp_path, {Evaluated(None): counts(2**32 - 1)})
    assert evaluations(tmp_path) == [Evaluated(1), Evaluated(1, "trained"), Evaluated(None)]
    np.testing.assert_array_equal(read_confusions(tmp_path, Evaluated(1, "trained")), counts(2))
    with np.load(tmp_path / CONFUSION_FILE) as arrays:
        assert {name: int(array.max()) for name, array in arrays.items()} == {
            "round_000001": 1,
            "round_000001/trained": 2,
            "final": 2**32 - 1,
        }


def test_a_cut_leaves_the_file_of_a_run_that_never_went_further(tmp_path):
    add_confusions(tmp_path, {Evaluated(2): counts(1), Evaluated(4, "trained"): counts(2)})
    before = (tmp_path / CONFUSION_FILE).read_bytes()
    add_confusions(tmp_path, {Evaluated(6): counts(3)})
    add_confusions(tmp_path, {Evaluated(None): counts(3)})
    cut_confusions(tmp_path, 5)
    assert (tmp_path / CONFUSION_FILE).read_bytes() == before
    cut_confusions(tmp_path, 5)
    assert [path.name for path in tmp_path.iterdir()] == [CONFUSION_FILE]


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x05\x06"])
def test_a_damaged_file_is_an_error_and_can_be_set_aside(tmp_path, content):
    for number in (1, 2):
        (tmp_path / CONFUSION_FILE).write_bytes(content)
        with pytest.raises(ValueError, match="not an archive"):
            evaluations(tmp_path)
        assert set_aside_damaged(tmp_path) == f"confusion.damaged-{number}.npz"
        assert (tmp_path / f"confusion.damaged-{number}.npz").read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 2
    assert set_aside_damaged(tmp_path) is None


def test_every_changed_byte_of_an_array_is_found_and_a_whole_file_stays(tmp_path):
    file = tmp_path / CONFUSION_FILE
    add_confusions(tmp_path, {Evaluated(1): counts(1), Evaluated(None): counts(2)})
    whole = file.read_bytes()
    assert set_aside_damaged(tmp_path) is None
    assert file.read_bytes() == whole
    # The archive's list of arrays comes last; before it come the headers, names and arrays.
    with zipfile.ZipFile(file) as archive:
        spans = [(info.header_offset + 30 + len(info.filename), info.compress_size) for info in archive.infolist()]
    for position in (position for start, size in spans for position in range(start, start + size)):
        changed = bytearray(whole)
        changed[position] ^= 255
        file.write_bytes(changed)
        name = set_aside_damaged(tmp_path)
        assert name is not None
        (tmp_path / name).unlink()


def test_a_damaged_or_foreign_array_is_an_error(tmp_path):
    add_confusions(tmp_path, {Evaluated(1): np.arange(5000, dtype=np.uint32).reshape(2, 50, 50)})
    file = tmp_path / CONFUSION_FILE
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    with pytest.raises(ValueError, match="round_000001: damaged"):
        read_confusions(tmp_path, Evaluated(1))
    with pytest.raises(ValueError, match="round_000002: not in the file"):
        read_confusions(tmp_path, Evaluated(2))
    np.savez(file, final=np.zeros((2, 3, 4)), **{"round_000001": np.array([{}], dtype=object)})
    for evaluated in (Evaluated(None), Evaluated(1)):
        with pytest.raises(ValueError, match=r"matrices|Object arrays"):
            read_confusions(tmp_path, evaluated)


def test_evaluations_are_left_out_evenly_where_all_would_be_too_large(monkeypatch):
    monkeypatch.setattr(confusions, "MAX_COUNTS", 100)
    # 100 counts hold ten evaluations of ten counts.
    assert [kept_every(number, 10) for number in (0, 1, 10, 11, 20, 21, 100)] == [1, 1, 1, 2, 2, 3, 10]
    assert [kept_every(1, num_counts) for num_counts in (100, 101)] == [1, None]

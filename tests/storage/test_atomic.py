import os

import pytest

from fedvtc.storage.atomic import replaced


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_failed_replacement_leaves_the_file_unchanged(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("before")

    def fill(beside):
        beside.symlink_to("/dev/full")
        beside.write_text("after")

    with pytest.raises(OSError, match="No space left on device") as caught, replaced(file) as beside:
        fill(beside)
    assert caught.value.filename == str(file)
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_beside_the_file_is_not_written_through(tmp_path):
    file, other = tmp_path / "a.txt", tmp_path / "other"
    other.write_text("mine")
    (tmp_path / ".a.tmp.txt").symlink_to(other)
    with replaced(file) as beside:
        beside.write_text("after")
    assert (file.read_text(), other.read_text()) == ("after", "mine")
    assert sorted(tmp_path.iterdir()) == [file, other]

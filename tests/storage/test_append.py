import errno
import os
import subprocess
import sys

import pytest

from fedvtc.storage.append import AppendFile


def run_alone(script, *arguments):
    """Runs a script in a process of its own, because a limit on the size of files applies to a whole process."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_lines_are_appended_to_existing_lines_at_once(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("0\n")
    file = AppendFile(path)
    file.append("1\n2\n")
    assert path.read_text() == "0\n1\n2\n"
    file.append("")
    file.append("\u00e9\n")
    assert path.read_text(encoding="utf-8") == "0\n1\n2\n\u00e9\n"
    file.close()
    assert file.num_waiting == 0


def test_lines_are_synced_before_append_returns(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    synced, sync = [], os.fsync

    def watch(file):
        synced.append(path.read_text())
        sync(file)

    monkeypatch.setattr(os, "fsync", watch)
    file = AppendFile(path)
    file.append("1\n")
    file.append("")
    file.append("2\n")
    file.close()
    assert synced == ["1\n", "1\n2\n"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_lines_wait_while_the_disk_is_full(tmp_path):
    (tmp_path / "a.txt").symlink_to("/dev/full")
    file = AppendFile(tmp_path / "a.txt")
    file.open()
    for text, num_waiting in (("1\n", 1), ("2\n3\n", 3), ("", 3)):
        with pytest.raises(OSError, match="No space left on device") as caught:
            file.append(text)
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.txt"))
        assert file.num_waiting == num_waiting
    with pytest.raises(OSError, match="No space left on device"):
        file.close()
    assert file.num_waiting == 3


def test_lines_wait_for_a_missing_folder(tmp_path):
    prepared = []
    file = AppendFile(tmp_path / "away/a.txt", lambda: prepared.append((tmp_path / "away").stat()))
    for action in (file.open, lambda: file.append("1\n"), lambda: file.append("2\n")):
        with pytest.raises(FileNotFoundError) as caught:
            action()
        assert caught.value.filename == str(tmp_path / "away/a.txt")
    (tmp_path / "away").mkdir()
    file.close()
    assert (tmp_path / "away/a.txt").read_text() == "1\n2\n"
    assert (len(prepared), file.num_waiting) == (1, 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_lines_wait_for_a_folder_without_write_permission(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    file = AppendFile(tmp_path / "locked/a.txt")
    with pytest.raises(PermissionError):
        file.append("1\n")
    (tmp_path / "locked").chmod(0o700)
    file.append("2\n")
    assert (tmp_path / "locked/a.txt").read_text() == "1\n2\n"
    file.close()


SHORT = """
import errno, pathlib, resource, sys
from fedvtc.storage.append import AppendFile

def limit(num_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))

path = pathlib.Path(sys.argv[1])
file = AppendFile(path)
file.append("first\\n")
limit(10)
try:
    file.append("second\\n")
except OSError as error:
    assert error.errno == errno.EFBIG, error
else:
    raise AssertionError("the limit was not met")
assert path.read_text() == "first\\n", path.read_text()
assert file.num_waiting == 1
limit(resource.RLIM_INFINITY)
file.append("third\\n")
assert path.read_text() == "first\\nsecond\\nthird\\n", path.read_text()
assert file.num_waiting == 0
"""


def test_half_a_line_is_cut_off_and_written_whole_later(tmp_path):
    run_alone(SHORT, tmp_path / "a.txt")


ANY = """
import pathlib, random, resource, sys
from fedvtc.storage.append import AppendFile

path, draw = pathlib.Path(sys.argv[1]), random.Random(3)
file, lines, num_failed = AppendFile(path), "", 0
for step in range(500):
    size = path.stat().st_size if path.exists() else 0
    room = draw.choice([0, 1, 7, 30, 10_000])
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, resource.RLIM_INFINITY))
    text = "".join(f"{step}-{part}" + "x" * draw.randrange(20) + "\\n" for part in range(draw.randrange(1, 4)))
    lines += text
    try:
        file.append(text)
        assert file.num_waiting == 0
    except OSError:
        num_failed += 1
    written = path.read_text()
    assert lines.startswith(written), step
    assert not written or written.endswith("\\n"), step
    assert file.num_waiting == lines.count("\\n") - written.count("\\n"), step
assert 100 < num_failed < 490, num_failed
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
file.close()
assert path.read_text() == lines
"""


def test_no_line_is_torn_doubled_or_lost_on_a_disk_that_fills_at_random(tmp_path):
    run_alone(ANY, tmp_path / "a.txt")

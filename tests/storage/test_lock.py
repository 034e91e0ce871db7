import os
import signal
import socket
import subprocess
import sys

import pytest

from fedvtc.errors import RunFolderError
from fedvtc.storage.lock import holder, locked

OURS = f"pid {os.getpid()} on {socket.gethostname()}"
HOLDER = """
import pathlib, subprocess, sys, time
from fedvtc.storage.lock import locked

with locked(pathlib.Path(sys.argv[1])):
    # A file descriptor that is not closed on exec would be inherited here.
    child = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    time.sleep(60)
"""


def refusal(path):
    with pytest.raises(RunFolderError) as caught, locked(path):
        pass
    return caught.value


def test_a_second_lock_is_refused_and_names_the_holder(tmp_path, golden, keys_of):
    for _ in range(2):
        with locked(tmp_path):
            error = refusal(tmp_path)
            assert keys_of(error) == [str(tmp_path)]
            golden(error, {OURS: "pid PID on HOST"})
    with locked(tmp_path):
        pass


def test_the_holder_is_known_while_the_lock_is_held(tmp_path):
    assert holder(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path):
        assert holder(tmp_path) == OURS
        assert holder(tmp_path) == OURS
    assert holder(tmp_path) is None


def test_a_holder_that_could_not_write_its_name_is_unknown(tmp_path, golden):
    with locked(tmp_path):
        (tmp_path / ".lock").write_text("")
        assert holder(tmp_path) == "unknown process"
        golden(refusal(tmp_path))


def test_a_folder_that_cannot_be_locked_is_refused(tmp_path, golden, keys_of):
    (tmp_path / "occupied/.lock").mkdir(parents=True)
    for name in ("absent", "occupied"):
        error = refusal(tmp_path / name)
        assert keys_of(error) == [f"{tmp_path}/{name}"]
        golden(error)
    assert not (tmp_path / "absent").exists()


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "theirs").write_text("text")
    (tmp_path / ".lock").symlink_to("theirs")
    refusal(tmp_path)
    assert (tmp_path / "theirs").read_text() == "text"


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    ours, childs = os.pipe()
    with locked(tmp_path):
        child = os.fork()
        if child == 0:
            os.close(childs)
            os.read(ours, 1)
            os._exit(0)
    try:
        with locked(tmp_path):
            pass
    finally:
        os.write(childs, b"x")
        os.waitpid(child, 0)
        os.close(ours)
        os.close(childs)


def test_the_lock_ends_with_its_process_although_a_child_lives_on(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        child = int(process.stdout.readline())
        try:
            assert holder(tmp_path) == f"pid {process.pid} on {socket.gethostname()}"
            assert str(process.pid) in str(refusal(tmp_path))
            process.kill()
            process.wait()
            with locked(tmp_path):
                os.kill(child, 0)
                assert holder(tmp_path) == OURS
        finally:
            process.kill()
            os.kill(child, signal.SIGKILL)

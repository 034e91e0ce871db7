"""Downloads of a data set that several processes need."""

import subprocess
import sys
import threading

from fedvtc.config.schema import DataConfig
from fedvtc.learning.data.fetching import await_others, by_torchvision

# Replaces torchvision: fails if two processes are inside, and downloads only absent files.
FETCH = """
import sys, time
from pathlib import Path
from fedvtc.config.schema import DataConfig
from fedvtc.learning.data.fetching import by_torchvision

root = Path(sys.argv[1])

def fetch():
    (root / "inside").mkdir()
    time.sleep(0.3)
    (root / "inside").rmdir()
    is_there = (root / "fetched").exists()
    (root / "fetched").touch()
    return "found" if is_there else "fetched"

sys.stdin.readline()
print(by_torchvision(DataConfig(name="mnist", root=str(root)), [root], "files", fetch))
"""


def test_one_process_downloads_and_the_others_find_the_files(tmp_path):
    root = tmp_path / "absent" / "root"
    command = [sys.executable, "-c", FETCH, str(root)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate() for process in processes]

    assert [errors for _, errors in outputs] == [""] * 3
    assert sorted(printed for printed, _ in outputs) == ["fetched\n", "found\n", "found\n"]


def test_a_data_set_is_not_read_during_its_download(tmp_path):
    config = DataConfig(name="mnist", root=str(tmp_path))
    begun, may_end, order = threading.Event(), threading.Event(), []

    def fetch():
        begun.set()
        may_end.wait(30)
        order.append("fetched")

    def look():
        await_others(config)
        order.append("looked")

    threads = [threading.Thread(target=by_torchvision, args=(config, [], "files", fetch))]
    threads[0].start()
    assert begun.wait(30)
    await_others(DataConfig(name="kmnist", root=str(tmp_path)))
    threads.append(threading.Thread(target=look))
    threads[1].start()
    threads[1].join(0.2)
    assert order == []
    may_end.set()
    for thread in threads:
        thread.join(30)

    assert order == ["fetched", "looked"]


def test_a_root_without_locks_may_hold_the_data(tmp_path):
    # Root may write everywhere, so a folder in place of the lock file simulates a read-only root.
    (tmp_path / ".mnist.lock").mkdir()
    config = DataConfig(name="mnist", root=str(tmp_path))

    await_others(config)

    assert by_torchvision(config, [], "files", lambda: "read") == "read"


def test_without_download_no_folder_is_created(tmp_path):
    config = DataConfig(name="mnist", root=str(tmp_path / "absent"), download=False)

    await_others(config)

    assert by_torchvision(config, [], "files", lambda: "read") == "read"
    assert not (tmp_path / "absent").exists()

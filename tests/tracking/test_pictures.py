import os
import subprocess
import sys

import numpy as np
from PIL import Image

from fedvtc.config.schema import Config
from fedvtc.tracking import RunInfo
from fedvtc.tracking.pictures import PictureTracker


def make_run(folder):
    return RunInfo("abc", "a", folder, Config(), {}, np.ones((2, 2), dtype=np.int64), ["cnn", "vit"])


def draw(folder, grey, show=PictureTracker.show_samples):
    tracker = PictureTracker(["x", "y"])
    tracker.start(make_run(folder))
    show(tracker, 10, np.full((2, 1, 8, 8), grey, dtype=np.uint8), [0, 1])


def test_pictures_are_whole_and_leave_no_other_file(tmp_path):
    times = []
    for grey in (10, 200):
        draw(tmp_path, grey)
        times.append((tmp_path / "partition.png").stat().st_mtime_ns)
    # A resume keeps the picture of the partition, which cannot change.
    assert times[0] == times[1]
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == ["partition.png", "samples/round_000010.png"]
    for name in files:
        with Image.open(tmp_path / name) as image:
            image.load()
            assert image.format == "PNG"
    with Image.open(tmp_path / "samples/round_000010.png") as image:
        assert (200, 200, 200) in image.get_flattened_data()


FULL = """
import errno, pathlib, resource, runpy, sys
from fedvtc.tracking.pictures import PictureTracker

draw = runpy.run_path(sys.argv[1])["draw"]
folder = pathlib.Path(sys.argv[2])
new = folder / "new"
new.mkdir()

def limit(num_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))

def show_on_full_disk(*arguments):
    limit(200)
    PictureTracker.show_samples(*arguments)

def fails(target, name, show):
    try:
        draw(target, 200, show)
    except OSError as error:
        assert error.errno == errno.EFBIG, error
        assert error.filename == str(target / name), error.filename
    else:
        raise AssertionError("the limit was not met")
    limit(resource.RLIM_INFINITY)

draw(folder, 10)
before = {path: path.read_bytes() for path in folder.rglob("*.png")}
fails(folder, "samples/round_000010.png", show_on_full_disk)
limit(200)
fails(new, "partition.png", PictureTracker.show_samples)
assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
"""


def test_a_full_disk_leaves_no_half_picture(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", FULL, __file__, tmp_path], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

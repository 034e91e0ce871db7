"""Compares the memory that `fedvtc plan` expects with the peak of a run in one process.

    .venv/bin/python benchmarks/memory.py [--classes 200] [--side 64] [--backbone cnn_2x16] \
        [--method fedvtc] [KEY=VALUE ...]

Runs two clients for two rounds on colour images of noise, in this process alone (placement.pool=inline), and
prints the planned and the measured peak of the resident memory. Exits with 1 if they differ by more than 20 %.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from fedvtc.commands.plan.plan import make_plan
from fedvtc.config import load
from fedvtc.learning.methods import config_classes
from fedvtc.reporting.run_folders import find_runs
from fedvtc.reporting.run_numbers import numbers_of
from fedvtc.storage.records import read_metrics

MOST_DIFFERENCE = 0.2
TRAIN_IMAGES, TEST_IMAGES = 10, 2
"""Images of each class."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--side", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--backbone", default="cnn_2x16")
    parser.add_argument("--method", default="fedvtc", help="a file of conf/method/")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="more config keys")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images.npz")
        save_noise(images, words.classes, words.side)
        overrides = [
            "placement.pool=inline",
            "population.num_clients=2",
            f"population.backbones=[{{name: {words.backbone}, share: 1}}]",
            "partition.kind=iid",
            "data.name=npz",
            f"data.path={images}",
            "run.rounds=2",
            f"run.output_dir={folder}",
            "method.finetune.epochs=1",
            *words.overrides,
        ]
        files = [Path(__file__).parents[1] / f"conf/method/{words.method}.yaml"]
        planned = make_plan(load(files, overrides, methods=config_classes())).memory
        print(f"planned   {planned.total / 1e9:.2f} GB, largest step {planned.largest_step}", flush=True)
        command = [sys.executable, "-m", "fedvtc", "run", *map(str, files), *overrides, "--plain"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (run,) = find_runs([Path(folder)])[0]
        # The system's peak of a process that has ended lacks all before the last phase.
        measured = numbers_of(read_metrics(run).records)["memory/coordinator_peak_bytes"]
    difference = measured / planned.total - 1
    print(f"measured  {measured / 1e9:.2f} GB, {difference:+.0%}")
    return int(abs(difference) > MOST_DIFFERENCE)


def save_noise(path: Path, num_classes: int, side: int) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, num_each in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
        arrays[f"y_{part}"] = np.arange(num_classes).repeat(num_each)
        arrays[f"x_{part}"] = rng.integers(0, 256, (num_classes * num_each, side, side, 3), dtype=np.uint8)
    np.savez(path, **arrays)


if __name__ == "__main__":
    sys.exit(main())

"""Measures a run of many rounds whose clients train nothing: memory and descriptors must not grow.

    .venv/bin/python benchmarks/endurance.py [--rounds 1000] [--clients 100] [--pool ray] [KEY=VALUE ...]

Runs the command `fedvtc run` without checkpoints, with uploads of 10 classes x 512 features. Prints the memory (PSS
without mapped files) and the open descriptors of all processes of the run, Ray's among them. Ends with 1 if the memory
grows by more than 5 % in the second half of the rounds, or the descriptors by more than 5.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from engine import CLASSES, FEATURES
from watching import watched

MOST_GROWTH, MOST_DESCRIPTORS = 0.05, 5
IMAGES_EACH = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--pool", default="ray", choices=["inline", "ray"])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="more config keys")
    words = parser.parse_intermixed_args()
    # The command and the actors import the method from this folder.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with tempfile.TemporaryDirectory(prefix="endurance-") as folder:
        images = Path(folder, "noise.npz")
        save_noise(images, IMAGES_EACH * words.clients)
        keys = [
            "method.name=engine:NoTraining",
            "data.name=npz",
            f"data.path={images}",
            "partition.kind=iid",
            f"population.num_clients={words.clients}",
            "population.backbones=[{name: cnn_2x8, share: 1}]",
            f"population.feature_size={FEATURES}",
            "checkpoint.every=null",
            f"run.rounds={words.rounds + 1}",
            f"evaluate.every={words.rounds + 1}",
            f"run.output_dir={folder}",
            "run.name=endurance",
            f"placement.pool={words.pool}",
            "cluster.num_cpus=1",
            *words.overrides,
        ]
        found = watched(keys, Path(folder, "endurance"), words.rounds)
    rounds = sorted(found.samples)
    print(f"{words.clients} clients, {words.pool}, {rounds[-1]} rounds; peak {found.peak_bytes / 1e9:.3f} GB PSS")
    for target in np.linspace(0, rounds[-1], 11):
        nearest = min(rounds, key=lambda each: abs(each - target))
        num_bytes, num_descriptors = found.samples[nearest]
        print(f"round {nearest:>5}  {num_bytes / 1e9:.3f} GB  {num_descriptors} descriptors", flush=True)
    middle = [found.samples[each] for each in rounds if each >= rounds[-1] / 2]
    growth, descriptors = middle[-2][0] / middle[0][0] - 1, middle[-2][1] - middle[0][1]
    print(f"second half: memory {growth:+.1%}, descriptors {descriptors:+d}")
    return int(growth > MOST_GROWTH or descriptors > MOST_DESCRIPTORS)


def save_noise(path: Path, num_images: int) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, num in (("train", num_images), ("test", CLASSES)):
        arrays[f"x_{part}"] = rng.integers(256, size=(num, 8, 8), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(num) % CLASSES
    np.savez(path, **arrays)


if __name__ == "__main__":
    sys.exit(main())

"""Times `fedvtc report` on made-up runs of many clients and classes, and prints the size of the page.

    .venv/bin/python benchmarks/large_report.py OUTPUT
    .venv/bin/python benchmarks/large_report.py OUTPUT --clients 20 --classes 10 --methods 8

The run folders are those of the tests of reports. `report_screens.mjs` draws the page.
"""

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np

from fedvtc.commands.main import main
from fedvtc.reporting.sample_grid import sample_grid
from fedvtc.storage.evaluations import save_evaluations
from fedvtc.storage.features import POSITIONS, save_points

METHODS = ("FedVTC+", "FedVTC", "Local", "FedProto", "FedAvg", "FedGen", "LG-FedAvg", "FD")
MAX_SECONDS, MAX_BYTES = 60.0, 5_000_000


def write_runs(folder, arguments):
    spec = importlib.util.spec_from_file_location("made_up", Path(__file__).parents[1] / "tests/reporting/conftest.py")
    made_up = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made_up)
    rng = np.random.default_rng(0)
    for place, label in enumerate(METHODS[: arguments.methods]):
        for seed in range(arguments.seeds):
            right = 0.1 + 0.05 * (place + seed)
            sizes = {"num_clients": arguments.clients, "num_classes": arguments.classes, "num_rounds": 2}
            run = made_up.write_measured_run(folder, label, seed, right=right, **sizes)
            sets = [
                (client, name) for client in range(arguments.clients) for name in ("test", "rotated:15", "noise:0.1")
            ]
            save_evaluations(run, [{"client": k, "on": name, "accuracy": rng.random()} for k, name in sets])
            names = [f"class {number}" for number in range(arguments.classes)]
            images_NCHW = rng.integers(0, 256, (8 * arguments.classes, 3, 32, 32), dtype=np.uint8)
            (run / "samples").mkdir()
            (run / "features").mkdir()
            for round in (1, 2):
                sample_grid(images_NCHW, run / f"samples/round_{round:06d}.png", names)
            sample_grid(images_NCHW, run / "features/real.png", names)
            points = [
                {"client": client, "backbone": "cnn", "models": "after", "images": kind, "class": name}
                | dict(zip(POSITIONS, rng.normal(size=4), strict=True))
                for client in range(2)
                for kind in ("real", "generated")
                for name in names
                for _ in range(5)
            ]
            save_points(run / "features", points)


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="new folder for run folders and the report")
    for name, default in (("clients", 500), ("classes", 100), ("methods", 8), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    write_runs(arguments.output / "runs", arguments)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    assert main(["report", str(arguments.output / "runs"), "-o", str(arguments.output / "report")]) == 0
    seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    num_bytes = (arguments.output / "report/index.html").stat().st_size
    print(f"{seconds:.1f} s, {cpu_s:.1f} CPU s, page of {num_bytes / 1e6:.2f} MB")
    return int(cpu_s > MAX_SECONDS or num_bytes > MAX_BYTES)


if __name__ == "__main__":
    raise SystemExit(run())

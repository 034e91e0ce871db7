"""Measures rounds of FedAvg in a bare loop, in fedvtc, and in Flower, pfl and BlazeFL, side by side.

    .venv/bin/python benchmarks/peers/run.py [--root DATA] [--rounds 9] [--repeats 1] [--engines bare inline ...]

100 clients of 600 MNIST images, 20 clients a round, the model cnn_2x8, SGD with rate 0.01, one epoch in batches of 32,
one thread, one worker. The first call makes an environment for each peer below `--environments`, with uv and the
versions in this file. All engines wait in processes of their own; the rounds alternate, and each engine is divided by
the first engine's round of the same pass. Starts and the first two rounds do not count. The accuracy and the loss of
each final mean model on the test images show the work to be equal. `fedvtc` and `fedvtc_ray` are rounds of FedVTC,
whose clients also train generators.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

sys.path.append(str(Path(__file__).parents[1]))
from overhead import config_of, images_of, specs_of
from processes import cpu_seconds_of
from work import IMAGES, Cnn

HERE = Path(__file__).resolve().parent
PEERS = {
    "flower": ("3.11", ["flwr[simulation]==1.42.0"]),
    "pfl": ("3.11", ["pfl==0.6.0"]),
    "blazefl": ("3.12", ["blazefl[contrib,reproducibility]==2.0.3"]),
}
FEDVTC = "method.name=fedvtc"
OURS = {
    "bare": ["bare"],
    "inline": ["inline"],
    "ray": ["ray"],
    "fedvtc": ["inline", FEDVTC],
    "fedvtc_ray": ["ray", FEDVTC],
}
COMPARED = ["bare", "inline", "ray", *PEERS]
WARM_UP = 2


@dataclass
class Engine:
    """An engine in its own process, and its rounds: wall seconds and CPU seconds."""

    process: subprocess.Popen[str]
    rounds: list[tuple[float, float]]

    def ask(self, word: str) -> str:
        print(word, file=self.process.stdin, flush=True)
        return self.reply()

    def reply(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args[1:]} ended with {self.process.wait()}.")
        return line.strip()

    def run_round(self) -> None:
        began_s, began_cpu_s = time.perf_counter(), cpu_seconds_of(self.process.pid)
        if (reply := self.ask("round")) != "ready":
            raise SystemExit(f"{self.process.args[1:]} printed {reply[:200]!r}.")
        self.rounds.append((time.perf_counter() - began_s, cpu_seconds_of(self.process.pid) - began_cpu_s))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder with data sets; default FEDVTC_DATA")
    parser.add_argument("--rounds", type=int, default=9, help=f"rounds of each engine, after {WARM_UP} to warm up")
    parser.add_argument("--repeats", type=int, default=1, help="times to start all engines again")
    parser.add_argument("--engines", nargs="+", default=COMPARED, choices=[*OURS, *PEERS])
    parser.add_argument("--environments", type=Path, default=HERE / ".environments", help="folder of the environments")
    parser.add_argument("--csv", type=Path, help="file to which the seconds of each round are appended")
    words = parser.parse_args()
    keys = [f"data.root={words.root}"] if words.root else []
    for name in words.engines:
        if name in PEERS:
            make_environment(name, words.environments / name)
    config = config_of(keys)
    dataset = images_of(config)
    parts = np.array([spec.indices_N for spec in specs_of(config, dataset)])
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        os.environ[IMAGES] = str(Path(folder, "images.npz"))
        np.savez(os.environ[IMAGES], images=dataset.train.images_NCHW, labels=dataset.train.labels_N, parts=parts)
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in words.engines}
        for repeat in range(1, words.repeats + 1):
            engines = {name: start(name, words.environments / name, keys) for name in words.engines}
            measure(engines, words.rounds)
            print(f"repeat {repeat}, {dataset.name}")
            report({name: engine.rounds for name, engine in engines.items()}, words.engines[0])
            for name, engine in engines.items():
                rounds[name] += engine.rounds
            if words.csv:
                save(words.csv, engines)
            for name, engine in engines.items():
                weights = json.loads(engine.ask("end"))
                if weights:
                    print(f"{name:<8} {scores(weights, dataset.test.images_NCHW, dataset.test.labels_N)}", flush=True)
                engine.process.stdin.close()
                engine.process.wait()
        print(f"all {words.repeats} repeats")
        report(rounds, words.engines[0])


def make_environment(name: str, folder: Path) -> None:
    """Makes the environment of a peer, with the PyTorch of this environment."""
    if (folder / "complete").exists():
        return
    python, packages = PEERS[name]
    torch_version = torch.__version__.partition("+")[0]
    subprocess.run(["uv", "venv", "--quiet", "--clear", "--python", python, folder], check=True)
    words = ["uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", folder / "bin/python"]
    subprocess.run([*words, f"torch=={torch_version}", "numpy", *packages], check=True)
    (folder / "complete").touch()


def start(name: str, environment: Path, keys: list[str]) -> Engine:
    """Starts an engine and waits until it can run a round."""
    if name in OURS:
        command = [sys.executable, HERE / "ours.py", *OURS[name], *keys]
    else:
        command = [environment / "bin/python", HERE / f"peer_{name}.py"]
    log = Path(os.environ[IMAGES]).with_name(f"{name}.log")
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    with log.open("w") as errors:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        engine = Engine(subprocess.Popen(command, env=variables, text=True, **pipes), [])
    try:
        engine.reply()
    except SystemExit:
        print(log.read_text()[-3000:], file=sys.stderr)
        raise
    return engine


def measure(engines: dict[str, Engine], num_rounds: int) -> None:
    names = list(engines)
    for round in range(num_rounds + WARM_UP):
        # Each engine follows each other engine equally often.
        for name in names[round % len(names) :] + names[: round % len(names)]:
            engines[name].run_round()
    for engine in engines.values():
        engine.rounds = engine.rounds[WARM_UP:]


def report(rounds: dict[str, list[tuple[float, float]]], reference: str) -> None:
    """Prints the median of each engine's rounds, and the median and the quartiles of the ratios to the reference."""
    for name in rounds:
        texts = []
        for place, kind in enumerate(("wall", "CPU")):
            own, base = ([seconds[place] for seconds in rounds[each]] for each in (name, reference))
            ratios = [mine / other for mine, other in zip(own, base, strict=True)]
            low, _, high = statistics.quantiles(ratios, n=4)
            texts.append(
                f"{kind} {statistics.median(own):.3f} s, {statistics.median(ratios):.3f} x {reference}"
                f" ({low:.3f} to {high:.3f})"
            )
        print(f"{name:<8} {'; '.join(texts)}", flush=True)


def save(path: Path, engines: dict[str, Engine]) -> None:
    with path.open("a", newline="") as file:
        rows = (
            (name, round, *seconds) for name, engine in engines.items() for round, seconds in enumerate(engine.rounds)
        )
        csv.writer(file).writerows(rows)


def scores(weights: list[list[float]], images: np.ndarray, labels: np.ndarray) -> str:
    """Accuracy and loss of a mean model on the test images."""
    model = Cnn()
    with torch.no_grad():
        for own, weight in zip(model.parameters(), weights, strict=True):
            own.copy_(torch.tensor(weight))
        scores_NC = model(torch.tensor(images).float() / 127.5 - 1.0)
    labels_N = torch.tensor(labels)
    accuracy = float((scores_NC.argmax(1) == labels_N).float().mean())
    return f"accuracy {accuracy:.4f}, loss {float(functional.cross_entropy(scores_NC, labels_N)):.4f}"


if __name__ == "__main__":
    main()

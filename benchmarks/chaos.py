"""Injects faults of every known kind into runs, and compares the results with an undisturbed run, bit by bit.

    python benchmarks/chaos.py --data DATA --faults 60 --csv chaos.csv

Each trial runs the MNIST experiment with FedVTC+, injects a fault that the seed draws, and resumes the run until it
finishes. Then every record, every row of clients.csv and the weights of every client must equal those of the
undisturbed run, every round must have one record, and no process may remain. The exit code is 1 if a trial fails.
"""

import argparse
import csv
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

from faults.compare import differences
from faults.kinds import KINDS
from faults.runs import Outcome, Runner
from faults.trial import Setting, Trial
from faults.workspace import ROOT, can_mount

EVALUATE_EVERY = 3
WIDTHS = {
    "trial": 5,
    "fault": 37,
    "where": 31,
    "actors": 6,
    "outcome": 10,
    "records": 7,
    "weights": 7,
    "lost": 4,
    "orphans": 7,
    "seconds": 7,
}


def main() -> int:
    """Runs the trials; prints a line at the end of each."""
    # A background job of a script ignores SIGINT, and its child processes would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # SystemExit lets the cleanup end processes and unmount disks.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    arguments = parsed()
    if arguments.rounds < 1 or arguments.rounds % EVALUATE_EVERY:
        raise SystemExit(f"--rounds {arguments.rounds}: not a multiple of {EVALUATE_EVERY}.")
    setting = mnist(arguments.rounds, arguments.images, arguments.data)
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    runner = Runner(setting, folder)
    print(f"fedvtc run {' '.join(setting.words)}\nseed {arguments.seed}, folders in {folder}", flush=True)
    undisturbed(runner)
    part, num_parts = map(int, arguments.part.split("/"))
    num_trials = num_good = num_lost = num_orphans = 0
    print(line(WIDTHS), flush=True)
    for number, trial in enumerate(
        drawn(setting, arguments.faults, arguments.seed, possible(arguments.only, folder)), 1
    ):
        if number <= arguments.after or number % num_parts != part % num_parts:
            continue
        num_trials += 1
        outcome = runner.disturbed(trial, str(number))
        row = row_of(number, trial, outcome)
        print("\n".join([line(row), *(f"      {problem}" for problem in outcome.problems)]), flush=True)
        if arguments.csv:
            append(arguments.csv, row)
        num_good += not outcome.problems
        num_lost += outcome.num_lost
        num_orphans += outcome.num_orphans
        if not outcome.problems and not arguments.keep:
            # Errors are ignored, because Ray's agents may still write to the folder.
            shutil.rmtree(folder / str(number), ignore_errors=True)
    for pid, name in runner.agents().items():
        num_orphans += 1
        print(f"left behind: process {pid} {name}")
    print(f"{num_good} of {num_trials} equal, {num_lost} lost rounds, {num_orphans} orphan processes")
    is_good = num_good == num_trials and not num_orphans
    if is_good and not arguments.keep:
        shutil.rmtree(folder)
    return 0 if is_good else 1


def parsed() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--faults", type=int, default=60, help=f"number of trials; {len(KINDS)} or more include all kinds"
    )
    parser.add_argument(
        "--part",
        metavar="K/N",
        default="1/1",
        help="runs every N-th trial, starting at the K-th",
    )
    parser.add_argument("--after", metavar="N", type=int, default=0, help="skips the first N trials")
    parser.add_argument("--seed", type=int, default=0, help="seed of the kinds and moments of faults")
    parser.add_argument("--rounds", type=int, default=3, help=f"rounds of a run; a multiple of {EVALUATE_EVERY}")
    parser.add_argument("--images", type=int, default=20, help="training images of each client")
    parser.add_argument("--only", metavar="TEXT", default="", help="runs only kinds whose name contains TEXT")
    parser.add_argument("--data", metavar="ROOT", help="folder with MNIST")
    parser.add_argument("--keep", action="store_true", help="keeps the folders of all trials, not only of failed ones")
    parser.add_argument("--csv", type=Path, help="writes the table to a new file")
    return parser.parse_args()


def mnist(rounds: int, images: int, root: str | None) -> Setting:
    """A small version of the MNIST experiment with FedVTC+."""
    words = [
        str(ROOT / "conf/experiment/mnist_dir01.yaml"),
        str(ROOT / "conf/method/fedvtc_plus.yaml"),
        f"run.rounds={rounds}",
        # The evaluation of larger backbones on 10,000 images would take half of a trial.
        "population.backbones=[{name: cnn_2x8, share: 0.5}, {name: cnn_3x16, share: 0.5}]",
        f"partition.images_per_client={images}",
        f"evaluate.every={EVALUATE_EVERY}",
        f"evaluate.samples_every={EVALUATE_EVERY}",
        # Faults hit the training of a classifier and of a generator, which joint training does in one.
        "method.generator.training=alternating",
        "method.generator.width=8",
        "method.generator.epochs=1",
        "method.finetune.epochs=1",
        "method.finetune.images_per_class=4",
        "method.finetune.pool=4",
        *([f"data.root={root}"] if root else []),
    ]
    return Setting(tuple(words), rounds, num_clients=10, evaluate_every=EVALUATE_EVERY)


def undisturbed(runner: Runner) -> None:
    """Runs the federation undisturbed on two actors and on three; both must be equal."""
    two, two_s = runner.undisturbed(2)
    three, three_s = runner.undisturbed(3)
    print(f"undisturbed: {two_s:.0f} s on 2 actors, {three_s:.0f} s on 3", flush=True)
    if unequal := differences(two, three):
        raise SystemExit("\n".join(["Undisturbed runs differ:", *unequal]))


def possible(text: str, folder: Path) -> list[str]:
    """The kinds whose name contains a text, without kinds that need a right this user lacks."""
    kinds = [kind for kind in KINDS if text in kind]
    if not kinds:
        raise SystemExit(f"--only {text}: unknown kind. Known kinds: {', '.join(KINDS)}.")
    if can_mount(folder):
        return kinds
    left_out = [kind for kind in kinds if "for a while" in kind or "for good" in kind]
    print(f"skipped kinds, because this user cannot mount a disk: {', '.join(left_out) or 'none'}")
    return [kind for kind in kinds if kind not in left_out]


def drawn(setting: Setting, num_trials: int, seed: int, kinds: Sequence[str]) -> Iterator[Trial]:
    """Yields trials: all kinds in a drawn order, then all kinds in another drawn order, up to the number of trials."""
    order: list[str] = []
    for number in range(num_trials):
        random = Random(f"{seed}/{number}")
        order = order or random.sample(kinds, len(kinds))
        kind = order.pop()
        yield KINDS[kind](kind, setting, random)


def row_of(number: int, trial: Trial, outcome: Outcome) -> dict[str, object]:
    """A row of the table."""
    equal = {True: "equal", False: "OTHER", None: "-"}
    return {
        "trial": number,
        "fault": trial.kind,
        "where": trial.where,
        "actors": trial.num_actors,
        "outcome": outcome.text,
        "records": equal[outcome.records],
        "weights": equal[outcome.weights],
        "lost": outcome.num_lost,
        "orphans": outcome.num_orphans,
        "seconds": round(outcome.seconds),
    }


def line(row: Mapping[str, object]) -> str:
    """A row or the header, aligned in columns."""
    cells = (str(name if row is WIDTHS else row[name]).ljust(width) for name, width in WIDTHS.items())
    return "  ".join(cells).rstrip()


def append(path: Path, row: dict[str, object]) -> None:
    """Appends a row to the table; the first row creates the file."""
    is_first = row["trial"] == 1
    with path.open("w" if is_first else "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if is_first:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    sys.exit(main())

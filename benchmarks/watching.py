"""Runs `fedvtc run` and watches its processes: memory, descriptors, CPU seconds, and the records of its rounds."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import descendants, descriptors, pss_bytes

POLL_S = 2.0
"""Twice a second, the readings of memory took 5 % of two cores, and stopped the processes each time."""


@dataclass
class Watched:
    """What a run showed.

    Attributes:
        start_s: seconds from the command to the beginning of the first round.
        peak_bytes: largest sum of the PSS of all processes, Ray's among them.
        num_processes: number of processes at that time.
        records: the records of the rounds.
        samples: PSS in bytes without mapped files, and open descriptors, of all processes, by completed rounds.
    """

    start_s: float = 0.0
    peak_bytes: int = 0
    num_processes: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)
    samples: dict[int, tuple[int, int]] = field(default_factory=dict)


def watched(words: Sequence[str], run: Path, num_rounds: int | None = None) -> Watched:
    """Runs the command until its end; with `num_rounds`, ends the run by SIGTERM once this many rounds have records."""
    found, began_s = Watched(), time.time()
    # Ray would give its workers a low priority.
    environment = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", **os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "fedvtc", "run", *words, "--plain"], env=environment, stdout=sys.stderr
    )
    metrics, is_told = run / "metrics.jsonl", False
    while process.poll() is None:
        pids = descendants(process.pid)
        size, own_size = map(sum, zip(*map(pss_bytes, pids), strict=True))
        if size > found.peak_bytes:
            found.peak_bytes, found.num_processes = size, len(pids)
        lines = metrics.read_text().split("\n")[:-1] if metrics.exists() else []
        found.records = [record for record in map(json.loads, lines) if record["phase"] == "round"]
        if found.records:
            found.samples[len(found.records)] = own_size, sum(map(descriptors, pids))
        if found.records and not found.start_s:
            found.start_s = metrics.stat().st_mtime - sum(each["time/round"] for each in found.records) - began_s
        if num_rounds is not None and len(found.records) >= num_rounds and not is_told:
            is_told = True
            process.terminate()
        time.sleep(POLL_S)
    if process.returncode not in ((0, 143) if is_told else (0,)):
        raise SystemExit(process.returncode)
    return found

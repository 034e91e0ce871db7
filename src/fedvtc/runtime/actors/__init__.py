"""Clients in Ray actors. The only folder of the runtime that imports Ray; no client logic."""

import os

SETTINGS = {
    # Ray does not hide GPUs from actors that reserve none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Messages that are not printed: up to a thousand letters about an actor or node whose loss the run reports.
    "RAY_DEDUP_LOGS_SKIP_REGEX": (
        "A worker died or was killed while executing a task"
        r"|Workers \(tasks / actors\) killed due to memory pressure"
        "|has been marked dead"
    ),
}
"""Environment variables that Ray reads when imported, which every other module of this folder may do."""

for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)

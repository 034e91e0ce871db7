"""Imports of a coordinator and of an actor, in one process that imports PyTorch and Ray once."""

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "src"
IMPORTS = """
import os, sys
import ray, torch

if os.fork() == 0:
    import fedvtc.federation.launch, fedvtc.runtime.actors.pool
    print({"lightning", "torchmetrics", "torchvision"} & set(sys.modules), flush=True)
    os._exit(0)
os.wait()

from fedvtc.config.schema import Config
from fedvtc.runtime.actors.actor import ClientActor

ClientActor(Config(), None, [], 0.0)
before = set(sys.modules)
import fedvtc.runtime.host, fedvtc.learning.client.client
print(sorted(set(sys.modules) - before))

from threadpoolctl import threadpool_info
print(torch.get_num_threads(), {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"})
"""


def test_a_coordinator_imports_no_lightning_and_an_actor_all_modules_at_once_with_limited_threads():
    # More threads than an actor may have, also on a machine of one core.
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, ["set()", "[]", "1 {1}"], "")

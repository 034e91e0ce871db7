import os
import subprocess
import sys

ACTOR = """
import sys
from fedvtc.config.schema import Config
from fedvtc.runtime.actors.actor import ClientActor

ClientActor(Config(), None, [], 0.0)
before = set(sys.modules)
import fedvtc.runtime.host, fedvtc.learning.client.client
print(sorted(set(sys.modules) - before))

import torch
from threadpoolctl import threadpool_info
print(torch.get_num_threads(), {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"})
"""


def test_the_constructor_of_an_actor_imports_all_modules_and_limits_their_threads():
    # More threads than an actor may have, also on a machine of one core.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", ACTOR], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, ["[]", "1 {1}"], "")

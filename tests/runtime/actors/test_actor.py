import os
import subprocess
import sys

ACTOR = """
import sys
from fedvtc.config.schema import Config
from fedvtc.runtime.actors.actor import ClientActor

ClientActor(Config(), None, [], 0.0)
before = set(sys.modules)
import fedvtc.runtime.host
print(sorted(set(sys.modules) - before))

import torch
from threadpoolctl import threadpool_info
print(torch.get_num_threads(), {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"})
"""


def test_an_actor_that_is_up_has_loaded_what_it_needs_and_holds_all_of_it_to_its_threads():
    # More than an actor is to have, on a machine of one core too.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", ACTOR], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, ["[]", "1 {1}"], "")

"""The start and the end of `fedvtc run`: what is loaded, and what is left."""

import json

import pytest

pytestmark = pytest.mark.integration

OWN = """
import json, sys
from pathlib import Path

import torch
from lightning.fabric.wrappers import _unwrap_compiled

from fedvtc.tracking import Tracker

SLOW = ("sympy", "torch._dynamo.eval_frame", "torch._inductor", "scipy.signal", "ray", "pandas", "altair", "wandb")


class Watch(Tracker):
    def finish(self, status):
        loaded = [name for name in SLOW if name in sys.modules]
        model = torch.nn.Linear(2, 2)
        optimizer = torch.optim.Adam(model.parameters())
        compiled = torch.compile(model, backend="eager")
        compiled(torch.ones(2)).sum().backward()
        optimizer.step()
        found = {
            "loaded": loaded,
            "optimized": isinstance(compiled, torch._dynamo.OptimizedModule),
            "unwrapped": _unwrap_compiled(compiled)[0] is model and _unwrap_compiled(model)[0] is model,
            "steps": len(optimizer.state_dict()["state"]),
            "compiler": "torch._dynamo.eval_frame" in sys.modules,
        }
        Path("found.json").write_text(json.dumps(found))
"""


def test_a_run_loads_no_compiler_but_own_code_may_compile(tmp_path, zygote):
    (tmp_path / "own.py").write_text(OWN)
    words = ["method.name=local", "placement.pool=inline", "population.num_clients=4", "run.rounds=1"]
    done = zygote.run("run", *words, "tracking.trackers=[own:Watch]", "--plain", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == {"loaded": [], "optimized": True, "unwrapped": True, "steps": 2, "compiler": True}

"""The work of `work.py` in the bare loop and through fedvtc, as `overhead.py` measures them, in turns.

ours.py bare|inline|ray [KEY=VALUE ...]
"""

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
from overhead import bare_engine, config_of, images_of, pool_engine, specs_of
from work import Turns


def main() -> None:
    turns = Turns()
    name, *keys = sys.argv[1:]
    os.environ.setdefault("RAY_worker_niceness", "0")
    keys = [*keys, "cluster.num_cpus=1"]
    if name != "bare":
        keys.append(f"placement.pool={name}")
    config = config_of(keys)
    dataset = images_of(config)
    specs = specs_of(config, dataset)
    with ExitStack() as stack:
        run = bare_engine(config, dataset, specs) if name == "bare" else pool_engine(stack, config, dataset, specs)
        round, state = 0, {}
        while turns.wait():
            round += 1
            state = run(round)
        turns.end([np.asarray(weight) for model in state.get("models", {}).values() for weight in model.values()])


if __name__ == "__main__":
    main()

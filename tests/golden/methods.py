"""Checks every method in a tiny federation, and digests its results.

.venv/bin/python tests/golden/methods.py          # compares with methods.json
.venv/bin/python tests/golden/methods.py --write  # replaces methods.json
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from runs import libraries

from fedvtc.config.checking import checked
from fedvtc.config.schema import MethodConfig
from fedvtc.learning import methods
from fedvtc.testing import check_method

DIGESTS = Path(__file__).with_name("methods.json")
SMALL: dict[str, dict[str, Any]] = {
    "ccvr": {"draws_per_class": 20, "epochs": 1},
    "dense": {
        "generation": {"batches": 2, "batch_size": 6, "steps": 2, "latent_size": 8, "width": 4},
        "finetune": {"epochs": 1},
    },
    "fedavg": {"prox_mu": 0.1},
    "fedcvae": {"decoder": {"epochs": 1, "width": 4}, "num_images": 24, "finetune": {"epochs": 1}},
    "gefl": {"generator": {"epochs": 1, "width": 4}},
    "fedgen": {"server_steps": 4, "hidden_size": 8},
    "fedtgp": {"server_epochs": 2},
    "fedvtc": {
        "generator": {"epochs": 1, "width": 4},
        "finetune": {"epochs": 1, "images_per_class": 4, "latents": "client_mixture"},
        "statistics": {"covariance": "class_full"},
    },
    **{name: {"proxy": "cnn_2x8"} for name in ("fedkd", "fedkwaz", "fedmrl", "fedtype", "fml")},
}
"""Keys of a method that make its checks fast; all other methods run with their defaults."""
OPTIONS: dict[str, dict[str, Any]] = {"fedkd": {"bytes_vary": True}}
"""Arguments of `check_method`, by method."""


def small(name: str) -> MethodConfig:
    """Returns keys of a method that make its checks fast."""
    section = methods.config_classes()[name]
    config, problems = checked(section, {"name": name, **SMALL.get(name, {})})
    assert not problems, problems
    return config


def digest(name: str) -> str:
    """Checks a method and returns the digest of its results."""
    return check_method(methods.method_class(name), small(name), **OPTIONS.get(name, {}))


def main() -> int:
    """Compares the digests of all methods with methods.json, or writes them there."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="replace methods.json")
    is_written = parser.parse_args().write
    # As in the tests: sums of several threads have other bits.
    torch.set_num_threads(1)
    found = {"libraries": libraries(), "methods": {name: digest(name) for name in methods.names()}}
    if is_written:
        DIGESTS.write_text(json.dumps(found, indent=2) + "\n")
        print(f"{DIGESTS}: {len(found['methods'])} methods written")
        return 0
    known = json.loads(DIGESTS.read_text())
    if known["libraries"] != found["libraries"]:
        print(f"other libraries: {known['libraries']}, here {found['libraries']}")
    differ = [name for name, value in found["methods"].items() if known["methods"].get(name) != value]
    for name in found["methods"]:
        print(f"{name}: {'DIFFERS' if name in differ else 'equal'}")
    return 1 if differ else 0


if __name__ == "__main__":
    raise SystemExit(main())

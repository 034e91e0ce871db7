"""Results keep their bits from one version of fedvtc to the next."""

import importlib.util
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def runs():
    spec = importlib.util.spec_from_file_location("golden_runs", GOLDEN / "runs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_six_runs_keep_their_bits(runs):
    known = json.loads((GOLDEN / "bits.json").read_text())
    if known["libraries"] != runs.libraries():
        pytest.skip(f"bits.json is of {known['libraries']}, here are {runs.libraries()}")

    assert runs.run_all() == known["runs"]

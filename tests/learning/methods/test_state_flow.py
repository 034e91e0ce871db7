"""What holds for every method: state, messages and gradients go where they should; see `fedvtc.testing`."""

import importlib.util
import json
from pathlib import Path

import pytest

from fedvtc.learning.methods import names


@pytest.fixture(scope="module")
def golden_methods():
    path = Path(__file__).parents[2] / "golden/methods.py"
    spec = importlib.util.spec_from_file_location("golden_methods", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", names())
def test_a_method_passes_all_checks_with_the_recorded_bits(name, golden_methods):
    found, known = golden_methods.digest(name), json.loads(golden_methods.DIGESTS.read_text())
    assert name in known["methods"], "python tests/golden/methods.py --write"
    # Other versions, or another processor, form sums in another order.
    if known["libraries"] == golden_methods.libraries():
        assert found == known["methods"][name], "python tests/golden/methods.py --write, if the bits should change"

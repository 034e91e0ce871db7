"""What holds for every method: state, messages and gradients go where they should; see `fedvtc.testing`."""

import importlib.util
import json
from pathlib import Path

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook

from fedvtc.config.schema import OptimizerConfig, TrainingConfig
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


@pytest.mark.parametrize("name", names())
def test_a_round_takes_the_steps_of_the_config(name, golden_methods, tiny_federation):
    training = TrainingConfig(steps=4, batch_size=4, optimizer=OptimizerConfig(lr=0.01))
    # Clients of ten, fourteen and three images: three, four batches and one in a pass.
    federation, taken = tiny_federation(golden_methods.small(name), training=training), []
    weights = {id(next(client.classifier.parameters())): client.id for client in federation.clients}

    def count(optimizer, args, kwargs):
        taken.extend(weights[id(weight)] for weight in optimizer.param_groups[0]["params"] if id(weight) in weights)

    _, state, broadcast = federation.round(*federation.method.start())
    hook = register_optimizer_step_post_hook(count)
    try:
        federation.round(state, broadcast)
    finally:
        hook.remove()
    # FedKWAZ has two stages; GeFL adds the first pass once more, on generated images.
    expected = {"fedkwaz": [8, 8, 8], "gefl": [7, 8, 5]}.get(name, [4, 4, 4])
    assert [taken.count(client) for client in range(3)] == expected

"""The recipe of conf/method/fedvtc_plus.yaml, with smaller numbers."""

import pytest

from fedvtc.config import load
from fedvtc.learning.methods import config_classes
from fedvtc.learning.methods.fedvtc import FedVTC, passes
from fedvtc.testing import check_method

SMALLER = [
    "method.generator.epochs=1",
    "method.generator.closing_epochs=1",
    "method.generator.width=4",
    "method.generator.batch_size=4",
    "method.finetune.epochs=2",
    "method.finetune.images_per_class=4",
    "method.finetune.pool=6",
    "method.finetune.batch_size=8",
]


@pytest.fixture(scope="module")
def recipe():
    return load(["conf/method/fedvtc_plus.yaml"], SMALLER, methods=config_classes()).method


def test_the_recipe_passes_the_checks_of_every_method(recipe, monkeypatch):
    # So few images of a class are used in no real run, and the clients of the checks have no more.
    monkeypatch.setattr(passes, "LEAST_OWN", 1)
    assert (recipe.upload, recipe.generator.training, recipe.finetune.real_data) == ("once", "joint", "balanced")
    assert recipe.finetune.averaging > 0
    assert recipe.finetune.sharpening > 0
    check_method(FedVTC, recipe)

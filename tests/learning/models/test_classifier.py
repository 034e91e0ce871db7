import math

import numpy as np
import pytest
import torch
from lightning import Trainer
from torch import nn

from fedvtc.config.schema import OptimizerConfig
from fedvtc.learning.data.module import ClientDataModule
from fedvtc.learning.models.classifier import ClassifierModule, prototype_distance


def flat_classifier(dtype=torch.float32):
    """Two features that are the two pixels, and logits (2 x first, 0, second)."""
    module = ClassifierModule(nn.Flatten(), feature_size=2, num_classes=3, optimizer=OptimizerConfig(lr=0.1)).to(dtype)
    with torch.no_grad():
        module.head.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]]))
        module.head.bias.zero_()
    return module


IMAGES = torch.tensor([[1.0, 0.0], [0.0, 3.0]]).view(2, 1, 1, 2)
LABELS = torch.tensor([0, 2])
CROSS_ENTROPY = -(math.log(math.e**2 / (math.e**2 + 2)) + math.log(math.e**3 / (math.e**3 + 2))) / 2


def test_cross_entropy_by_hand():
    terms = flat_classifier().loss_terms(IMAGES, LABELS)
    assert set(terms) == {"loss", "classification"}
    assert terms["loss"].item() == pytest.approx(CROSS_ENTROPY, rel=1e-6)
    assert terms["loss"] is terms["classification"]


def test_the_prototype_term_by_hand_in_units_of_sigma():
    # Image 0: ((1 - 3)^2 / 2^2 + (0 - 1)^2 / 0.5^2) / 2 = 2.5; image 1: ((0 - 1)^2 / 1 + (3 - 0)^2 / 3^2) / 2 = 1.
    mean_CD = torch.tensor([[3.0, 1.0], [99.0, 99.0], [1.0, 0.0]])
    std_CD = torch.tensor([[2.0, 0.5], [1.0, 1.0], [1.0, 3.0]])
    module = flat_classifier()
    module.set_prototypes(mean_CD, std_CD, torch.tensor([True, True, True]), weight=0.2)
    terms = module.loss_terms(IMAGES, LABELS)
    assert terms["prototype"].item() == pytest.approx((2.5 + 1.0) / 2)
    assert terms["classification"].item() == pytest.approx(CROSS_ENTROPY, rel=1e-6)
    assert terms["loss"].item() == pytest.approx(CROSS_ENTROPY + 0.2 * 1.75, rel=1e-6)


def test_images_of_a_class_without_a_prototype_have_no_second_term():
    mean_CD, std_CD = torch.tensor([[3.0, 1.0], [0.0, 0.0], [9.0, 9.0]]), torch.ones(3, 2)
    distance = prototype_distance(IMAGES.flatten(1), LABELS, mean_CD, std_CD, torch.tensor([True, False, False]))
    # The one image with a prototype counts ((1 - 3)^2 + 1) / 2, the mean is still over both.
    assert distance.item() == pytest.approx(2.5 / 2)


def test_with_unit_spread_the_pull_is_the_mean_squared_error():
    features_BD, mean_CD = torch.randn(5, 4), torch.randn(3, 4)
    labels_B = torch.tensor([0, 1, 2, 1, 0])
    distance = prototype_distance(features_BD, labels_B, mean_CD, torch.ones(3, 4), torch.ones(3, dtype=torch.bool))
    assert distance.item() == pytest.approx(nn.functional.mse_loss(features_BD, mean_CD[labels_B]).item(), rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_weight_decides_whether_prototypes_matter(weight):
    module = flat_classifier()
    module.set_prototypes(torch.full((3, 2), 5.0), torch.ones(3, 2), torch.ones(3, dtype=torch.bool), weight=weight)
    terms = module.loss_terms(IMAGES, LABELS)
    assert ("prototype" in terms) == (weight > 0)
    assert (terms["loss"].item() > CROSS_ENTROPY + 1e-3) == (weight > 0)
    module.clear_prototypes()
    assert set(module.loss_terms(IMAGES, LABELS)) == {"loss", "classification"}


def test_gradients_are_those_of_finite_differences():
    module = flat_classifier(dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    mean_CD, images = (torch.randn(3, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    std_CD, held_C = torch.full((3, 2), 0.3, dtype=torch.float64), torch.tensor([True, False, True])
    module.set_prototypes(mean_CD, std_CD, held_C, weight=0.7)
    labels = torch.tensor([0, 1, 2])

    def loss(images, weight, bias):
        module.head.weight.data, module.head.bias.data = weight.data, bias.data
        logits = nn.functional.linear(images, weight, bias)
        by_hand = nn.functional.cross_entropy(logits, labels) + 0.7 * prototype_distance(
            images, labels, *module._prototypes
        )
        assert torch.allclose(by_hand, module.loss_terms(images.view(3, 1, 1, 2), labels)["loss"])
        return by_hand

    inputs = [images.requires_grad_(), torch.randn(3, 2, dtype=torch.float64, requires_grad=True)]
    assert torch.autograd.gradcheck(loss, [*inputs, torch.zeros(3, dtype=torch.float64, requires_grad=True)])


@pytest.fixture
def small_client(tiny_dataset):
    data = ClientDataModule(tiny_dataset.train, np.arange(20), tiny_dataset.test, batch_size=8, eval_batch_size=8)
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
    return data, ClassifierModule(backbone, feature_size=6, num_classes=3, optimizer=OptimizerConfig(lr=0.01))


def test_a_trainer_runs_it_unchanged(small_client, quiet):
    data, module = small_client
    module.set_prototypes(torch.zeros(3, 6), torch.ones(3, 6), torch.ones(3, dtype=torch.bool), weight=1.0)
    before = module.head.weight.detach().clone()
    trainer = Trainer(fast_dev_run=True, **quiet)
    trainer.fit(module, datamodule=data)
    assert not torch.equal(module.head.weight, before)
    logged = trainer.callback_metrics
    assert {"loss/loss", "loss/classification", "loss/prototype", "test/loss", "test/accuracy"} <= set(logged)
    assert logged["loss/loss"].item() == pytest.approx(
        (logged["loss/classification"] + logged["loss/prototype"]).item()
    )


def test_a_trainer_brings_the_loss_down_and_the_accuracy_up(small_client, quiet):
    data, module = small_client
    trainer = Trainer(max_epochs=8, log_every_n_steps=1, num_sanity_val_steps=0, **quiet)
    (before,) = trainer.validate(module, datamodule=data, verbose=False)
    trainer.fit(module, datamodule=data)
    (after,) = trainer.validate(module, datamodule=data, verbose=False)
    assert after["test/loss"] < 0.5 * before["test/loss"]
    assert after["test/accuracy"] == 1.0


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (OptimizerConfig(name="adam", lr=0.25, weight_decay=0.125), torch.optim.Adam),
        (OptimizerConfig(name="sgd", lr=0.25, momentum=0.5, weight_decay=0.125), torch.optim.SGD),
    ],
)
def test_the_optimizer_is_the_configs_over_all_weights(config, kind):
    module = ClassifierModule(nn.Linear(2, 2), feature_size=2, num_classes=3, optimizer=config)
    optimizer = module.configure_optimizers()
    (group,) = optimizer.param_groups
    assert type(optimizer) is kind
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.125)
    assert group.get("momentum", 0.5) == 0.5
    assert {id(weight) for weight in group["params"]} == {id(weight) for weight in module.parameters()}

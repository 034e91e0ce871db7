import contextlib
import copy
from functools import partial

import pytest
import torch
from lightning import LightningModule
from torch import nn

from fedvtc.config.schema import OptimizerConfig
from fedvtc.learning.client.loop import Learner, keyed_randomness, make_fabric, weights_digest
from fedvtc.learning.models.backbones import build_backbone
from fedvtc.learning.models.classifier import ClassifierModule

KEY = {"round": 1, "client": 2, "purpose": "train"}


def make_classifier():
    torch.manual_seed(0)
    backbone = build_backbone("cnn_2x8", num_channels=1, image_size=8, feature_size=6)
    return ClassifierModule(backbone, feature_size=6, num_classes=3, optimizer=OptimizerConfig(lr=0.01))


def make_learner(module):
    return Learner(make_fabric(torch.device("cpu")), module)


def make_batches(sizes=(4, 4, 3)):
    generator = torch.Generator().manual_seed(1)
    return [(torch.rand(n, 1, 8, 8, generator=generator), torch.arange(n) % 3) for n in sizes]


class Scripted(LightningModule):
    """A module whose loss is its weight times the sum of the batch."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def training_step(self, batch, batch_idx):
        assert self.training
        return {"loss": self.weight * batch[0].sum(), "index": torch.tensor(float(batch_idx))}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def draw(**changes):
    with keyed_randomness(0, **(KEY | changes)):
        return torch.rand(3).tolist()


def test_the_same_key_gives_the_same_draws_and_any_other_key_others():
    assert draw() == draw() == draw(device=torch.device("cpu"))
    assert draw(round=2) != draw()
    assert draw(client=3) != draw()
    assert draw(purpose="generator") != draw()
    with keyed_randomness(1, **KEY):
        assert torch.rand(3).tolist() != draw()


def test_a_key_restores_the_random_state_at_its_end():
    torch.manual_seed(9)
    state = torch.random.get_rng_state()
    with keyed_randomness(0, **KEY):
        torch.rand(5)
    assert torch.equal(torch.random.get_rng_state(), state)
    with contextlib.suppress(KeyError), keyed_randomness(0, **KEY):
        raise KeyError(torch.rand(5))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_fitting_is_the_bare_loop_bit_for_bit():
    learned, bare = make_classifier(), make_classifier()
    learner = make_learner(learned)
    optimizer = torch.optim.Adam(bare.parameters(), lr=0.01)
    for _ in range(2):
        learner.fit(make_batches())
        for images, labels in make_batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(bare.head(bare.backbone(images)), labels).backward()
            optimizer.step()
    assert weights_digest(learned) == weights_digest(bare)
    assert weights_digest(learned) != weights_digest(make_classifier())


def test_bfloat16_computes_otherwise_on_weights_that_stay_float32(capfd):
    classifiers = {precision: make_classifier() for precision in ("32-true", "bf16-mixed")}
    losses = {}
    for precision, module in classifiers.items():
        seen = []
        module.backbone.projection.register_forward_hook(lambda *args, seen=seen: seen.append(args[2].dtype))
        losses[precision] = Learner(make_fabric(torch.device("cpu"), precision), module).fit(make_batches())["loss"]
        assert set(seen) == {torch.float32 if precision == "32-true" else torch.bfloat16}
        assert {weight.dtype for weight in module.parameters()} == {torch.float32}
        # Calls outside of training are not rounded.
        assert module.features(make_batches()[0][0]).dtype == torch.float32
    assert weights_digest(classifiers["32-true"]) != weights_digest(classifiers["bf16-mixed"])
    assert losses["bf16-mixed"] != losses["32-true"]
    assert abs(losses["bf16-mixed"] - losses["32-true"]) < 0.1
    assert "Automatic Mixed Precision" not in "".join(capfd.readouterr())


def test_terms_are_means_over_images_of_each_step():
    module = Scripted()
    # Steps: weight 2 on a sum of 3 -> 6, weight -1 on 10 -> -10, weight -11.
    terms = make_learner(module).fit([(torch.tensor([1.0, 1.0, 1.0]),), (torch.tensor([10.0]),)])
    assert terms == {"loss": (3 * 6.0 + 1 * -10.0) / 4, "index": 0.25}
    assert module.weight.item() == -11.0


def test_fitting_turns_train_mode_on():
    module = Scripted().eval()
    make_learner(module).fit([(torch.ones(1),)])
    assert module.training


def test_without_a_batch_nothing_happens():
    module = make_classifier()
    before = weights_digest(module)
    assert make_learner(module).fit([]) == {}
    assert weights_digest(module) == before


def test_a_given_optimizer_replaces_the_modules_own():
    module = Scripted()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    Learner(make_fabric(torch.device("cpu")), module, optimizer).fit([(torch.tensor([4.0]),)])
    assert module.weight.item() == 0.0


def test_a_loss_that_is_not_finite_is_returned():
    terms = make_learner(Scripted()).fit([(torch.tensor([float("inf")]),)])
    assert terms["loss"] == float("inf")


@pytest.mark.parametrize(
    "loss",
    [
        lambda weight: 1.0,
        lambda weight: {"other": weight.sum()},
        lambda weight: {"loss": weight.sum(), "size": 3},
        lambda weight: weight,
        lambda weight: torch.tensor(1.0),
    ],
    ids=["float", "no loss", "float term", "vector", "constant"],
)
def test_a_loss_that_cannot_be_minimised_names_the_fault(loss, golden):
    module = nn.Linear(2, 1)
    learner = Learner(make_fabric(torch.device("cpu")), module, torch.optim.SGD(module.parameters(), lr=0.1))
    with pytest.raises(TypeError) as refused:
        learner.fit([(torch.ones(1),)], lambda _: loss(module.weight))
    golden(str(refused.value))


def test_training_continues_from_a_state_with_the_same_bits():
    first, second = make_learner(make_classifier()), make_learner(make_classifier())
    first.fit(make_batches())
    before = copy.deepcopy(first.state_dict())
    second.load_state_dict(before)
    for learner in (first, second):
        learner.fit(make_batches((5,)))
    assert weights_digest(first.module) == weights_digest(second.module)
    # Weights alone are not enough, because Adam's moments matter.
    weights_only = make_learner(make_classifier())
    weights_only.module.load_state_dict(before["module"])
    weights_only.fit(make_batches((5,)))
    assert weights_digest(weights_only.module) != weights_digest(first.module)


def test_digests_differ_after_any_change_of_any_module():
    first, second = make_classifier(), Scripted()
    digest = weights_digest(first, second)
    assert digest == weights_digest(make_classifier(), Scripted())
    assert digest != weights_digest(first)
    with torch.no_grad():
        second.weight += 1e-7
    assert digest == weights_digest(first, second)  # 2 + 1e-7 is 2 in float32.
    with torch.no_grad():
        second.weight += 1e-6
    assert digest != weights_digest(first, second)


@pytest.mark.parametrize(
    "build",
    [
        torch.optim.Adam,
        partial(torch.optim.Adam, weight_decay=0.1),
        partial(torch.optim.AdamW, weight_decay=0.1),
        partial(torch.optim.SGD, momentum=0.9, weight_decay=0.1),
    ],
)
def test_a_step_calls_a_kernel_once_for_all_weights_and_has_the_bits_of_the_bare_loop(build):
    learned, bare = make_classifier(), make_classifier()
    optimizer, other = build(learned.parameters(), lr=0.01), build(bare.parameters(), lr=0.01)
    learner, flags = Learner(make_fabric(torch.device("cpu")), learned, optimizer), []
    optimizer.register_step_pre_hook(lambda optimizer, *_: flags.append(optimizer.param_groups[0]["foreach"]))
    learner.fit(make_batches())
    for images, labels in make_batches():
        other.zero_grad()
        nn.functional.cross_entropy(bare(images), labels).backward()
        other.step()
    assert weights_digest(learned) == weights_digest(bare)
    assert flags == [True] * 3
    # A checkpoint has the flag of an optimizer that was never used.
    assert optimizer.state_dict()["param_groups"] == other.state_dict()["param_groups"]


def test_an_optimizer_that_a_step_restores_has_its_own_flag_again():
    """The first step of a kind runs twice, and the optimizer is restored between both."""
    module = make_classifier()
    learner = make_learner(module)

    def counted(num_images, step):
        learner.load_state_dict(copy.deepcopy(learner.state_dict()))
        return step()

    learner.fit(make_batches(), counted=counted)
    assert [group["foreach"] for group in learner.optimizer.param_groups] == [None]

"""The loss of joint training, its gradients, and its optimizer."""

import pytest
import torch
from lightning import Trainer
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from fedvtc.config.schema import OptimizerConfig
from fedvtc.learning.client.loop import weights_digest
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.methods.fedvtc.generator import VTCModule
from fedvtc.learning.methods.fedvtc.joint import JointModule
from fedvtc.learning.methods.fedvtc.steps import generator_of
from fedvtc.learning.models.classifier import ClassifierModule

NUM_CLASSES, D, SIZE = 3, 4, 8


def make_joint(weight=0.02, noise=0.3, dtype=torch.float32):
    torch.manual_seed(1)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(SIZE**2, D), nn.Tanh())
    settings = {"optimizer": OptimizerConfig(lr=1e-3)}
    classifier = ClassifierModule(backbone, feature_size=D, num_classes=NUM_CLASSES, **settings)
    generator = VTCModule(
        feature_size=D, num_channels=1, image_size=SIZE, width=4, optimizer=OptimizerConfig(lr=2e-3, weight_decay=0.1)
    )
    return JointModule(classifier, generator, reconstruction_weight=weight, noise=noise).to(dtype)


def make_batch(size=6, dtype=torch.float32):
    torch.manual_seed(2)
    return torch.rand(size, 1, SIZE, SIZE, dtype=dtype) * 2 - 1, torch.arange(size) % NUM_CLASSES


def loss_terms(joint, batch):
    torch.manual_seed(7)
    return joint.loss_terms(*batch)


def test_the_joint_loss_by_hand():
    joint = make_joint(weight=0.5, noise=0.3)
    images, labels_B = batch = make_batch()
    mean_CD, std_CD = torch.randn(NUM_CLASSES, D), torch.rand(NUM_CLASSES, D) + 0.5
    joint.classifier.set_prototypes(mean_CD, std_CD, torch.tensor([True, False, True]), weight=0.25)
    terms = loss_terms(joint, batch)
    features_BD = joint.classifier.features(images)
    torch.manual_seed(7)
    decoded = joint.generator(features_BD + 0.3 * torch.randn(6, D))
    squared = sum(((decoded[n] - images[n]) ** 2).sum() for n in range(6)) / 6
    pull = sum(
        (((features_BD[n] - mean_CD[y]) / std_CD[y]) ** 2).mean() for n, y in enumerate(labels_B.tolist()) if y != 1
    )
    entropy = functional.cross_entropy(joint.classifier(images), labels_B)
    assert terms["reconstruction"].item() == pytest.approx(squared.item(), rel=1e-5)
    assert terms["prototype"].item() == pytest.approx(pull.item() / 6, rel=1e-5)
    assert terms["classification"].item() == pytest.approx(entropy.item(), rel=1e-5)
    by_hand = entropy + 0.25 * pull / 6 + 0.5 * squared
    assert terms["loss"].item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_zero_images_and_zero_weights_give_the_pixels_of_the_image():
    joint = make_joint(weight=2.0)
    for weight in joint.parameters():
        nn.init.zeros_(weight)
    # The generator draws 0, and the head 0: 64 pixels of 1, and 64 of 0.5; ln 3.
    images = torch.stack([torch.ones(1, SIZE, SIZE), torch.full((1, SIZE, SIZE), -0.5)])
    terms = joint.training_step((images, torch.tensor([0, 1])), 0)
    assert terms["reconstruction"].item() == pytest.approx((64 + 16) / 2)
    assert terms["loss"].item() == pytest.approx(2 * 40 + 1.0986123)


@pytest.mark.parametrize("name", ["classifier.backbone.1.weight", "classifier.head.bias", "generator.decoder.0.bias"])
def test_gradients_are_those_of_finite_differences(name):
    joint, batch = make_joint(dtype=torch.float64), make_batch(dtype=torch.float64)
    loss_terms(joint, batch)["loss"].backward()
    weight = joint.get_parameter(name)
    flat, step = weight.detach().view(-1), 1e-6
    for index in range(0, len(flat), max(1, len(flat) // 5)):
        sides = []
        for sign in (1, -1):
            flat[index] += sign * step
            sides.append(loss_terms(joint, batch)["loss"].item())
            flat[index] -= sign * step
        assert weight.grad.view(-1)[index].item() == pytest.approx(
            (sides[0] - sides[1]) / (2 * step), rel=1e-4, abs=1e-8
        )


def test_the_gradient_of_the_reconstruction_reaches_the_backbone_and_not_the_head():
    joint = make_joint()
    loss_terms(joint, make_batch())["reconstruction"].backward()
    assert all(weight.grad.abs().max() > 0 for weight in joint.classifier.backbone.parameters())
    assert all(weight.grad.abs().max() > 0 for weight in joint.generator.parameters())
    assert all(weight.grad is None for weight in joint.classifier.head.parameters())


def test_each_module_keeps_its_learning_rate():
    joint = make_joint()
    generator, classifier = joint.configure_optimizers().param_groups
    assert (generator["lr"], generator["weight_decay"]) == (2e-3, 0.1)
    assert (classifier["lr"], classifier["weight_decay"]) == (1e-3, 0.0)
    assert len(generator["params"]) == len(list(joint.generator.parameters()))
    assert len(classifier["params"]) == len(list(joint.classifier.parameters()))


def test_the_joint_module_trains_under_a_trainer(tmp_path):
    joint, (images, labels_B) = make_joint(), make_batch()
    before = weights_digest(joint.classifier), weights_digest(joint.generator)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, default_root_dir=tmp_path, **quiet)
    trainer.fit(joint, DataLoader(TensorDataset(images, labels_B), batch_size=6, num_workers=0))
    assert trainer.callback_metrics["loss/reconstruction"] > 0
    assert weights_digest(joint.classifier) != before[0]
    assert weights_digest(joint.generator) != before[1]


def test_a_joint_round_trains_both_modules_and_records_its_terms(tiny_federation, tiny_fedvtc):
    federation = tiny_federation(tiny_fedvtc(generator={"training": "joint"}))
    client = federation.clients[0]
    before = weights_digest(client.classifier), weights_digest(generator_of(client))
    uploads, state, broadcast = federation.round()
    assert weights_digest(client.classifier) != before[0]
    assert weights_digest(generator_of(client)) != before[1]
    losses = {name for name in uploads[0].scalars if name.startswith("loss/")}
    assert losses == {"loss/train", "loss/classification", "loss/reconstruction"}
    uploads, _, _ = federation.round(state, broadcast)
    assert "loss/prototype" in uploads[0].scalars


@pytest.mark.parametrize(("training", "first"), [("joint", "finetune"), ("alternating", "train")])
def test_the_generator_trains_after_the_fine_tuning_of_a_round(tiny_federation, tiny_fedvtc, training, first):
    federation = tiny_federation(tiny_fedvtc(generator={"training": training}, finetune={"when": "both"}))
    _, state, broadcast = federation.round()
    uploads, _, _ = federation.round(state, broadcast)
    phases = [name.removeprefix("time/") for name in uploads[0].scalars if name.startswith("time/")]
    last = "train" if training == "joint" else "generator"
    assert phases.index(first) < phases.index("finetune" if first == "train" else last)
    assert phases.index("finetune") < phases.index(last)


def test_a_restored_client_continues_with_the_state_of_both_optimizers(tiny_federation, tiny_fedvtc):
    digests = []
    for is_restored in (False, True):
        federation = tiny_federation(tiny_fedvtc(generator={"training": "joint"}))
        federation.round()
        if is_restored:
            other = tiny_federation(tiny_fedvtc(generator={"training": "joint"}))
            for client, saved in zip(other.clients, federation.clients, strict=True):
                client.load_state_dict(saved.state_dict())
            federation = other
        federation.upload(0, Broadcast(1))
        digests.append(federation.clients[0].weights_digest())
    assert digests[0] == digests[1]

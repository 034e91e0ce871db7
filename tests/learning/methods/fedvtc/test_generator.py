import numpy as np
import pytest
import torch
from lightning import Trainer
from torch import nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference_kl
from torch.utils.data import DataLoader, TensorDataset

from fedvtc.config.schema import OptimizerConfig
from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.methods.fedvtc.generator import GeneratorTarget, VTCModule, kl_divergence
from fedvtc.learning.models.classifier import ClassifierModule
from fedvtc.learning.models.weights import load_weights, weights_of

NUM_CLASSES, D, SIZE = 3, 4, 8


def make_vtc(**keys):
    torch.manual_seed(0)
    return VTCModule(**({"feature_size": D, "num_channels": 1, "image_size": SIZE, "width": 4} | keys))


def make_classifier():
    torch.manual_seed(1)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(SIZE**2, D), nn.Tanh())
    classifier = ClassifierModule(backbone, feature_size=D, num_classes=NUM_CLASSES, optimizer=OptimizerConfig())
    return classifier.eval().requires_grad_(False)


def gaussians(classes=(0, 2), spread=0.5, seed=0):
    mean_KD = np.random.default_rng(seed).normal(size=(len(classes), D)).astype(np.float32)
    count_K = np.ones(len(classes), dtype=np.int64)
    return ClassGaussians(np.array(classes), count_K, mean_KD, np.array(spread, dtype=np.float32))


def make_target(anchors=None, matched=None, classifier=None):
    """Local spread 0.3; class 1 has no prototype unless the anchors say so."""
    matched_K = np.array([0, 2] if matched is None else matched, dtype=np.int64)
    return GeneratorTarget.of(
        classifier or make_classifier(),
        gaussians((0, 1, 2), spread=0.3),
        anchors,
        matched_K,
        num_classes=NUM_CLASSES,
    )


def make_batch(size=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(size, 1, SIZE, SIZE, generator=generator, dtype=dtype) * 2 - 1
    return images, torch.arange(size) % NUM_CLASSES, torch.randn(size, D, generator=generator, dtype=dtype)


def step(module, batch, seed=7):
    """The loss terms with the noise of one seed."""
    torch.manual_seed(seed)
    return module.training_step(batch, 0)


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("image_size", [*range(8, 34), 48, 63, 64])
def test_images_of_any_size_lie_between_black_and_white(image_size, num_channels):
    module = make_vtc(image_size=image_size, num_channels=num_channels, width=8)
    with torch.no_grad():
        images = module(10 * torch.randn(2, D))
    assert images.shape == (2, num_channels, image_size, image_size)
    assert images.abs().max() <= 1.0
    assert images.std() > 0.0


def test_reconstruction_is_summed_over_pixels_and_averaged_over_images():
    module = make_vtc()
    for weight in module.parameters():
        nn.init.zeros_(weight)
    module.set_target(make_target())
    # The generator draws 0 everywhere: 64 pixels of 1, and 64 of 0.5.
    images = torch.stack([torch.ones(1, SIZE, SIZE), torch.full((1, SIZE, SIZE), -0.5)])
    terms = module.training_step((images, torch.tensor([0, 1]), torch.zeros(2, D)), 0)
    assert set(terms) == {"loss", "reconstruction"}
    assert terms["reconstruction"].item() == pytest.approx((64 + 16) / 2)
    assert terms["loss"] is terms["reconstruction"]


def test_latents_are_features_with_noise_of_the_clients_own_spread():
    module = make_vtc()
    local = gaussians((0, 1, 2), spread=[[0.1] * D, [0.2] * D, [0.4] * D])
    target = GeneratorTarget.of(make_classifier(), local, None, np.array([]), num_classes=NUM_CLASSES)
    module.set_target(target)
    images, labels, features = make_batch()
    torch.manual_seed(7)
    noise = torch.randn(5, D)
    latents = features + torch.tensor([0.1, 0.2, 0.4])[labels][:, None] * noise
    by_hand = sum(((module(latents)[n] - images[n]) ** 2).sum() for n in range(5)) / 5
    assert step(module, (images, labels, features))["loss"].item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_kl_of_diagonal_gaussians_is_pytorchs():
    generator = torch.Generator().manual_seed(0)
    mean, prior_mean = torch.randn(2, 6, D, generator=generator, dtype=torch.float64)
    std, prior_std = torch.rand(2, 6, D, generator=generator, dtype=torch.float64) + 0.1
    reference_B = reference_kl(Normal(mean, std), Normal(prior_mean, prior_std)).sum(dim=1)
    assert torch.allclose(kl_divergence(mean, std, prior_mean, prior_std), reference_B, rtol=1e-12)
    assert torch.equal(kl_divergence(mean, std, mean, std), torch.zeros(6, dtype=torch.float64))


def test_the_kl_term_skips_classes_without_a_prototype_and_is_averaged_over_the_batch():
    anchors, module = gaussians(), make_vtc()
    module.set_target(make_target(anchors))
    images, labels, features = make_batch()
    prior_mean = torch.tensor(anchors.dense(NUM_CLASSES)[0])
    by_hand = sum(
        reference_kl(Normal(features[n], 0.3), Normal(prior_mean[label], 0.5)).sum()
        for n, label in enumerate(labels.tolist())
        if label != 1
    )
    assert step(module, (images, labels, features))["kl"].item() == pytest.approx(by_hand.item() / 5, rel=1e-5)


def test_distribution_matching_by_hand_when_every_image_is_the_same():
    module, classifier, anchors = make_vtc(), make_classifier(), gaussians()
    for weight in module.parameters():
        nn.init.zeros_(weight)
    module.set_target(make_target(anchors, classifier=classifier))
    feature_D = classifier.features(torch.zeros(1, 1, SIZE, SIZE))[0]
    by_hand = sum(((feature_D - torch.tensor(mean_D)) ** 2).sum() for mean_D in anchors.mean_KD)
    terms = module.training_step(make_batch(), 0)
    assert terms["distribution_matching"].item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_distribution_matching_compares_the_mean_feature_of_each_class_alone():
    module, classifier, anchors = make_vtc(matching_samples=3), make_classifier(), gaussians()
    target = make_target(anchors, classifier=classifier)
    module.set_target(target)
    images, labels, features = make_batch()
    terms = step(module, (images, labels, features))
    torch.manual_seed(7)
    torch.randn_like(features)
    latents, _ = target.server.sampler.draw(torch.tensor([0, 0, 0, 2, 2, 2]))
    drawn = classifier.features(module(latents))
    by_hand = ((drawn[:3].mean(dim=0) - torch.tensor(anchors.mean_KD[0])) ** 2).sum()
    by_hand = by_hand + ((drawn[3:].mean(dim=0) - torch.tensor(anchors.mean_KD[1])) ** 2).sum()
    assert terms["distribution_matching"].item() == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.parametrize(("beta", "gamma"), [(0.0, 0.0), (1.0, 1.0), (0.0, 2.5), (3.0, 0.5)])
def test_beta_and_gamma_enter_linearly(beta, gamma):
    module = make_vtc(beta=beta, gamma=gamma)
    module.set_target(make_target(gaussians()))
    terms = step(module, make_batch())
    expected = terms["reconstruction"] + beta * terms["kl"] + gamma * terms.get("distribution_matching", 0.0)
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert ("distribution_matching" in terms) == (gamma > 0)


def test_without_a_class_to_match_there_is_no_matching_term():
    module = make_vtc()
    module.set_target(make_target(gaussians(), matched=[]))
    assert set(step(module, make_batch())) == {"loss", "reconstruction", "kl"}


@pytest.mark.parametrize("name", ["decoder.0.weight", "decoder.4.weight", "decoder.4.bias", "log_factor_D"])
def test_the_gradient_of_the_whole_loss_is_that_of_finite_differences(name):
    module = make_vtc(learn_sigma=True, beta=0.7, gamma=1.3).double()
    module.set_target(make_target(gaussians(), classifier=make_classifier().double()))
    # Only so that the noise is drawn in double precision.
    torch.set_default_dtype(torch.float64)
    try:
        batch, weight = make_batch(dtype=torch.float64), module.get_parameter(name)
        step(module, batch)["loss"].backward()
        place, epsilon = int(weight.grad.abs().argmax()), 1e-6
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.view(-1)[place] += sign * epsilon
                losses.append(step(module, batch)["loss"].item())
                weight.view(-1)[place] -= sign * epsilon
    finally:
        torch.set_default_dtype(torch.float32)
    slope = (losses[0] - losses[1]) / (2 * epsilon)
    assert abs(slope) > 1e-3
    assert weight.grad.view(-1)[place].item() == pytest.approx(slope, rel=1e-5)


def test_a_learned_sigma_starts_as_the_measured_one_and_gets_a_gradient():
    learned, fixed = make_vtc(learn_sigma=True), make_vtc()
    assert fixed.log_factor_D is None
    for module in (learned, fixed):
        module.set_target(make_target(gaussians()))
    terms = step(learned, make_batch())
    assert terms["loss"].item() == step(fixed, make_batch())["loss"].item()
    terms["loss"].backward()
    assert learned.log_factor_D.grad.abs().min() > 0
    with torch.no_grad():
        learned.log_factor_D.fill_(np.log(2.0))
    doubled = step(learned, make_batch())["kl"]
    fixed.set_target(
        GeneratorTarget.of(
            make_classifier(),
            gaussians((0, 1, 2), spread=0.6),
            gaussians(),
            np.array([0, 2]),
            num_classes=NUM_CLASSES,
        )
    )
    assert doubled.item() == pytest.approx(step(fixed, make_batch())["kl"].item(), rel=1e-5)


def test_a_fixed_sigma_is_no_weight():
    module, target = make_vtc(), make_target(gaussians())
    module.set_target(target)
    step(module, make_batch())["loss"].backward()
    assert not target.local_std_CD.requires_grad
    assert {name.split(".")[0] for name, _ in module.named_parameters()} == {"decoder"}


def test_the_frozen_classifier_gets_no_gradient_and_is_no_part_of_the_generator():
    module, classifier = make_vtc(), make_classifier()
    names = set(module.state_dict())
    module.set_target(make_target(gaussians(), classifier=classifier))
    step(module, make_batch())["loss"].backward()
    assert all(weight.grad is None for weight in classifier.parameters())
    assert all(weight.grad is not None for weight in module.parameters())
    assert set(module.state_dict()) == names
    assert list(module.modules()).count(classifier) == 0
    module.train()
    assert not classifier.training


def test_shared_weights_survive_read_only_arrays_without_sigma():
    sender, receiver = make_vtc(learn_sigma=True), make_vtc(learn_sigma=True)
    with torch.no_grad():
        for weight in sender.parameters():
            weight.normal_()
        receiver.log_factor_D.fill_(0.5)
    arrays = weights_of(sender.decoder)
    assert set(arrays) == set(sender.decoder.state_dict())
    assert not any("factor" in name for name in arrays)
    for array in arrays.values():
        array.flags.writeable = False
    load_weights(receiver.decoder, arrays)
    for name, weight in receiver.decoder.state_dict().items():
        assert torch.equal(weight, sender.decoder.state_dict()[name])
    assert receiver.log_factor_D.tolist() == [0.5] * D


def test_shared_weights_are_a_copy_both_ways():
    module = make_vtc()
    arrays = weights_of(module.decoder)
    load_weights(module.decoder, arrays)
    arrays["0.bias"][:] = 99.0
    assert module.decoder[0].bias.max() < 99.0
    assert weights_of(module.decoder)["0.bias"].max() < 99.0


@pytest.fixture
def loader():
    """12 images whose features are their brightness."""
    labels = torch.arange(12) % NUM_CLASSES
    brightness = (labels.float() - 1) / 2
    images = brightness.view(-1, 1, 1, 1).expand(-1, 1, SIZE, SIZE).contiguous()
    return DataLoader(TensorDataset(images, labels, brightness[:, None].expand(-1, D).contiguous()), batch_size=4)


def test_a_trainer_runs_it_unchanged(loader, quiet):
    module = make_vtc(learn_sigma=True)
    module.set_target(make_target(gaussians()))
    before = weights_of(module.decoder)
    trainer = Trainer(fast_dev_run=True, **quiet)
    trainer.fit(module, loader)
    assert set(trainer.callback_metrics) == {
        "loss/loss",
        "loss/reconstruction",
        "loss/kl",
        "loss/distribution_matching",
    }
    after = weights_of(module.decoder)
    assert not any(np.array_equal(before[name], after[name]) for name in before)
    assert module.log_factor_D.abs().min() > 0


def test_a_trainer_brings_the_reconstruction_down(loader, quiet):
    module = make_vtc(optimizer=OptimizerConfig(lr=0.01))
    module.set_target(make_target())
    losses = []
    for _ in range(2):
        trainer = Trainer(max_epochs=10, log_every_n_steps=1, **quiet)
        trainer.fit(module, loader)
        losses.append(trainer.callback_metrics["loss/reconstruction"].item())
    assert losses[1] < losses[0] < 16.0
    assert losses[1] < 8.0

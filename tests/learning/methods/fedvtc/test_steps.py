"""FedVTC's own training steps on a client."""

import numpy as np
import pytest
import torch

from fedvtc.config.schema import DataConfig, OptimizerConfig
from fedvtc.errors import ClientError
from fedvtc.learning.client.loop import weights_digest
from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.methods.fedvtc import steps
from fedvtc.learning.methods.fedvtc.generator import GeneratorTarget
from fedvtc.learning.methods.fedvtc.images import LazyImages
from fedvtc.learning.methods.fedvtc.steps import finetune, generator_of, train_generator


@pytest.fixture
def make_generating(make_client, tiny_fedvtc):
    """Makes a client with a generator."""

    def make(number=0, *, generator=(), **keys):
        return make_client(number, method=tiny_fedvtc(generator=generator), **keys)

    return make


def target_of(client):
    """A target with the client's own Gaussians as the server's."""
    local = ClassGaussians.of(client.statistics("client_diagonal"), sigma_floor=0.05, prior_count=1.0)
    return GeneratorTarget.of(client.classifier, local, local, local.classes_K, num_classes=client.num_classes)


@pytest.mark.parametrize("indices", [[4], [4, 8]])
def test_fewer_images_than_a_batch_are_trained_on(make_generating, indices):
    client = make_generating(0, indices=indices)
    classifier, generator = weights_digest(client.classifier), weights_digest(generator_of(client))
    client.train()
    train_generator(client, target_of(client), epochs=1, batch_size=8)
    assert weights_digest(client.classifier) != classifier
    assert weights_digest(generator_of(client)) != generator
    for module in (client.classifier, generator_of(client)):
        assert all(weight.isfinite().all() for weight in module.parameters())
    assert np.isfinite(list(client.scalars.values())).all()


def test_training_does_not_change_the_global_random_state(make_generating):
    client = make_generating(0)
    state = torch.random.get_rng_state()
    client.train()
    train_generator(client, target_of(client), epochs=1, batch_size=4)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_classifier_is_untouched_while_the_generator_trains(make_generating):
    client = make_generating(0)
    client.train()
    digest = weights_digest(client.classifier)
    gradients = [weight.grad.clone() for weight in client.classifier.parameters()]
    generator = weights_digest(generator_of(client))
    train_generator(client, target_of(client), epochs=2, batch_size=4)
    assert weights_digest(generator_of(client)) != generator
    assert weights_digest(client.classifier) == digest
    for weight, gradient in zip(client.classifier.parameters(), gradients, strict=True):
        assert torch.equal(weight.grad, gradient)
        assert weight.requires_grad
    assert not client.classifier.training
    client.train()
    assert client.classifier.training
    assert weights_digest(client.classifier) != digest


def test_the_generators_losses_are_recorded_by_name(make_generating):
    client = make_generating(0)
    train_generator(client, target_of(client), epochs=1, batch_size=4)
    names = {name for name in client.scalars if name.startswith("loss/")}
    assert names == {"loss/generator", "loss/reconstruction", "loss/kl", "loss/distribution_matching"}
    weights = {
        "reconstruction": 1.0,
        "kl": generator_of(client).beta,
        "distribution_matching": generator_of(client).gamma,
    }
    whole = sum(weight * client.scalars[f"loss/{name}"] for name, weight in weights.items())
    assert client.scalars["loss/generator"] == pytest.approx(whole, rel=1e-6)


def finetune_white_and_black(client, epochs=2, lr=0.01, **keys):
    """Fine-tunes on white images of class 0 and black images of class 2; returns one random number per draw."""
    calls = []

    def draw_pass():
        calls.append(torch.rand(1).item())
        images = torch.cat([torch.ones(4, 1, 8, 8), -torch.ones(4, 1, 8, 8)])
        return LazyImages(torch.tensor([0] * 4 + [2] * 4), images.__getitem__)

    finetune(client, draw_pass, epochs=epochs, batch_size=3, optimizer=OptimizerConfig(lr=lr), **keys)
    return calls


def test_finetuning_draws_new_images_for_each_epoch_and_learns(make_client):
    client = make_client(0)
    calls = finetune_white_and_black(client, epochs=15)
    assert len(set(calls)) == 15
    client.classifier.eval()
    with torch.no_grad():
        assert client.classifier(torch.ones(1, 1, 8, 8)).argmax() == 0
        assert client.classifier(-torch.ones(1, 1, 8, 8)).argmax() == 2
    assert set(client.scalars) - {"memory/finetune"} == {
        "time/finetune",
        "cpu/finetune",
        "flops/finetune",
        "loss/finetune",
    }


def test_finetuning_has_no_pull_towards_prototypes_and_later_training_has(make_client):
    plain, pulled = make_client(0), make_client(0)
    prototypes = ClassGaussians(np.arange(3), np.ones(3, dtype=np.int64), np.ones((3, 6), np.float32), np.float32(1.0))
    pulled.set_prototypes(prototypes, 5.0)
    finetune_white_and_black(plain)
    finetune_white_and_black(pulled)
    assert plain.weights_digest() == pulled.weights_digest()
    pulled.train()
    plain.train()
    assert plain.weights_digest() != pulled.weights_digest()


def test_a_cosine_ends_with_steps_of_almost_nothing(make_client, monkeypatch):
    rates = []
    build = steps.build_optimizer

    def watched(parameters, config):
        optimizer = build(parameters, config)
        optimizer.register_step_pre_hook(lambda stepper, *_: rates.append(stepper.param_groups[0]["lr"]))
        return optimizer

    monkeypatch.setattr(steps, "build_optimizer", watched)
    finetune_white_and_black(make_client(0), epochs=4, schedule="cosine")
    # Four passes of three steps: 0.01 * (1 + cos(pi * step / 12)) / 2.
    assert rates == pytest.approx([0.005 * (1 + np.cos(np.pi * step / 12)) for step in range(12)])


def test_finetuning_ends_with_the_mean_of_the_weights_over_all_steps(make_client, monkeypatch):
    client, weights = make_client(0), []
    start = [weight.detach().clone() for weight in client.classifier.parameters()]
    build = steps.build_optimizer

    def watched(parameters, config):
        optimizer = build(parameters, config)
        optimizer.register_step_post_hook(
            lambda *_: weights.append([weight.detach().clone() for weight in client.classifier.parameters()])
        )
        return optimizer

    monkeypatch.setattr(steps, "build_optimizer", watched)
    finetune_white_and_black(client, epochs=3, averaging=0.6)
    assert len(weights) == 9
    means = start
    for number, step in enumerate(weights, start=1):
        decay = min(0.6, number / (number + 9))
        means = [decay * mean + (1 - decay) * weight for mean, weight in zip(means, step, strict=True)]
    for weight, mean in zip(client.classifier.parameters(), means, strict=True):
        torch.testing.assert_close(weight.detach(), mean)


@pytest.mark.parametrize("augment", ["none", "shift_flip"])
def test_finetuning_in_windows_makes_few_images_at_once_and_gives_the_same_classifier(
    make_client, monkeypatch, augment
):
    digests, largest = set(), {}
    for num_images in (1000, 7, 1):
        client = make_client(0, data=DataConfig(augment=augment))
        monkeypatch.setattr(steps, "WINDOW_BYTES", num_images * client.images.image_bytes)
        made = []

        def draw_pass(made=made, own=client.images):
            images = torch.rand(9, 1, 8, 8)
            drawn = LazyImages(torch.arange(9) % 3, lambda index_M: made.append(len(index_M)) or images[index_M])
            return drawn.then(LazyImages(own.labels_N, own.draw_augmented()))

        finetune(client, draw_pass, epochs=2, batch_size=3, optimizer=OptimizerConfig())
        digests.add(client.weights_digest())
        largest[num_images] = max(made)
        # The first window is made twice, to count its operations.
        assert sum(made[1:]) == 2 * 9
    assert largest[1000] == 9
    assert largest[7] <= 6
    assert largest[1] <= 3
    assert len(digests) == 1


def test_finetuning_does_not_change_the_training_optimizer(make_client):
    client = make_client(0)
    client.train()
    before = client.state_dict()["classifier"]["optimizer"]["state"]
    steps = [state["step"].item() for state in before.values()]
    finetune_white_and_black(client)
    after = client.state_dict()["classifier"]["optimizer"]["state"]
    assert [state["step"].item() for state in after.values()] == steps == [3.0] * len(steps)


def test_a_loss_that_is_not_finite_names_client_round_and_phase(make_generating):
    client = make_generating(2)
    target = target_of(client)
    client.begin_round(4)
    with torch.no_grad():
        generator_of(client).decoder[0].weight[0, 0] = float("nan")

    def failed(step):
        with pytest.raises(ClientError) as caught:
            step()
        return caught.value.client, caught.value.round, caught.value.phase, caught.value.reason

    found = failed(lambda: train_generator(client, target, epochs=1, batch_size=4))
    assert found == (2, 4, "generator", "loss is nan")
    assert all(weight.requires_grad for weight in client.classifier.parameters())
    with torch.no_grad():
        client.classifier.head.weight[0, 0] = float("nan")
    assert failed(client.train) == (2, 4, "train", "loss is nan")
    assert failed(lambda: finetune_white_and_black(client)) == (2, 4, "finetune", "loss is nan")

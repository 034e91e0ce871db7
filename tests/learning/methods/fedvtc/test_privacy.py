"""FedVTC with noise on its messages: keyed noise, the private generator, and epsilon in the record."""

from dataclasses import replace

import numpy as np
import pytest

from fedvtc.config.schema import Config
from fedvtc.learning.client.loop import weights_digest
from fedvtc.learning.exchange.accounting import GaussianUse, epsilon
from fedvtc.learning.exchange.privacy import PrivacyConfig
from fedvtc.learning.methods.fedvtc import FedVTCConfig, FinetuneConfig, GeneratorConfig
from fedvtc.learning.methods.fedvtc.releases import statistics_to_send
from fedvtc.learning.server import Server

PLUS = {
    "upload": "once",
    "generator": {"training": "joint", "aggregation": "exchange", "batch_size": 4},
    "finetune": {"latents": "client_mixture"},
    "statistics": {"covariance": "class_full"},
}
NOISE = PrivacyConfig(noise_multiplier=0.2, training_noise=0.8)


def run(federation, num_rounds=2):
    """Rounds, the closing exchange and fine-tuning; returns uploads by round, closing uploads and the last scalars."""
    method, state, broadcast, rounds = federation.method, {}, None, []
    for _ in range(num_rounds):
        uploads, state, broadcast = federation.round(state, broadcast) if broadcast else federation.round()
        rounds.append(uploads)
    server, closing = Server(0, num_rounds + 1), []
    for client in federation.clients:
        client.begin_round(num_rounds + 1)
        closing.append(method.closing_upload(client, broadcast))
    broadcast = method.closing_server(state, closing, server)
    for client in federation.clients:
        method.finish(client, broadcast)
    return rounds, closing, server.scalars


def test_noise_is_keyed_by_client_and_round_and_training_is_noised(tiny_federation, tiny_fedvtc):
    first, second = (run(tiny_federation(tiny_fedvtc(privacy=NOISE, **PLUS))) for _ in range(2))
    uploads = [upload for part in (*first[0], first[1]) for upload in part]
    again = [upload for part in (*second[0], second[1]) for upload in part]
    for upload, same in zip(uploads, again, strict=True):
        for kind, arrays in upload.payload.items():
            for name, array in arrays.items():
                assert np.array_equal(array, same.payload[kind][name]), (kind, name)
    clean = [upload for part in run(tiny_federation(tiny_fedvtc(**PLUS)))[0] for upload in part]
    for noised, exact in zip(uploads, clean, strict=False):
        assert set(noised.payload) == set(exact.payload)
        assert not np.array_equal(noised.payload["covariance"]["scatter"], exact.payload["covariance"]["scatter"])


def test_noise_depends_on_client_round_and_purpose_alone(tiny_federation, tiny_fedvtc):
    config = tiny_fedvtc(privacy=PrivacyConfig(noise_multiplier=1.0), **PLUS)
    # All clients have the same images, and no features change.
    clients = tiny_federation(config, indices=range(6)).clients
    for client in clients[1:]:
        client.classifier.load_state_dict(clients[0].classifier.state_dict())
    method = tiny_federation(config).method
    found = []
    for client in clients[:2]:
        for round in (1, 2):
            client.begin_round(round)
            for purpose in ("privacy", "privacy/closing"):
                means = [
                    statistics_to_send(client, config, method.task, "scalar", purpose).mean_KD.tobytes() for _ in "ab"
                ]
                assert means[0] == means[1]
                found.append(means[0])
    assert len(set(found)) == 8


def test_training_has_the_noise_the_clip_and_the_batches_of_the_config(tiny_federation, tiny_fedvtc, monkeypatch):
    from fedvtc.learning.methods.fedvtc import steps

    found, wrap = [], steps.private_optimizer

    def watched(optimizer, sampling, **keys):
        private = wrap(optimizer, sampling, **keys)
        found.append((private.noise_multiplier, private.max_grad_norm, private.expected_batch_size, []))
        optimizer.register_step_pre_hook(lambda *_: found[-1][3].append(1))
        return private

    monkeypatch.setattr(steps, "private_optimizer", watched)
    privacy = PrivacyConfig(noise_multiplier=2.0, training_noise=0.5, training_clip=0.25)
    config = tiny_fedvtc(privacy=privacy, **PLUS | {"generator": {**PLUS["generator"], "epochs": 3}})
    federation = tiny_federation(config)
    (upload, *_), _, _ = federation.round(participants=(0,))
    ((noise, clip, batch_size, num_steps),) = found
    assert (noise, clip, batch_size) == (0.5, 0.25, min(4, upload.num_images))
    # The accountant has as many steps: three passes in batches of 4.
    assert len(num_steps) == 3 * -(-upload.num_images // 4)
    server = Server(0, 1)
    federation.method.server_round({}, [upload], server)
    rate = min(1.0, 4 / upload.num_images)
    expected = epsilon([GaussianUse(2.0, 1.0, 1), GaussianUse(0.5, rate, len(num_steps))], 1e-5)
    assert server.scalars["privacy/epsilon"] == pytest.approx(expected)


def test_training_noise_changes_the_weights_and_leaves_the_optimizer_in_the_state(tiny_federation, tiny_fedvtc):
    digests = set()
    for privacy in (PrivacyConfig(noise_multiplier=1.0), PrivacyConfig(noise_multiplier=1.0, training_noise=0.5)):
        federation = tiny_federation(tiny_fedvtc(privacy=privacy, **PLUS))
        federation.round()
        client = federation.clients[0]
        digests.add(weights_digest(client.classifier))
        assert client.state_dict()["generator"]["optimizer"]["state"]
        assert not [
            weight for weight in client.classifier.parameters() if getattr(weight, "grad_sample", None) is not None
        ]
    assert len(digests) == 2


def test_the_record_has_the_epsilon_of_all_messages_so_far(tiny_federation, tiny_fedvtc):
    federation = tiny_federation(tiny_fedvtc(privacy=NOISE, **PLUS))
    _, closing, scalars = run(federation)
    # Two rounds of one pass in batches of 4, and three releases of statistics.
    by_size = [
        epsilon([GaussianUse(0.2, 1.0, 3), GaussianUse(0.8, min(1.0, 4 / num), 2 * -(-num // 4))], 1e-5)
        for num in (upload.num_images for upload in closing)
    ]
    assert scalars["privacy/epsilon"] == pytest.approx(max(by_size))
    method = tiny_federation(tiny_fedvtc(privacy=PrivacyConfig(noise_multiplier=2.0), **PLUS)).method
    server = Server(0, 1)
    method.server_round({}, [method.largest_upload()], server)
    assert server.scalars == {"privacy/epsilon_statistics": pytest.approx(epsilon([GaussianUse(2.0, 1.0, 1)], 1e-5))}
    whole = method.privacy_loss([5, 9])
    assert whole.epsilon == pytest.approx(epsilon([GaussianUse(2.0, 1.0, method.task.num_rounds + 1)], 1e-5))
    assert tiny_federation(tiny_fedvtc(**PLUS)).method.privacy_loss([5]) is None


def test_the_epsilon_of_the_record_covers_clients_of_earlier_rounds(tiny_federation, tiny_fedvtc):
    method = tiny_federation(tiny_fedvtc(privacy=NOISE, **PLUS)).method
    few, many = (replace(method.largest_upload(), num_images=num) for num in (4, 400))
    state, _ = method.server_round({}, [few, many], Server(0, 1))
    second = Server(0, 2)
    method.server_round(state, [replace(many, round=2)], second)
    expected = epsilon([GaussianUse(0.2, 1.0, 2), GaussianUse(0.8, 1.0, 2)], 1e-5)
    assert second.scalars["privacy/epsilon"] == pytest.approx(expected)


def test_training_without_noise_beside_noised_steps_is_refused(golden):
    found = FedVTCConfig(
        privacy=PrivacyConfig(noise_multiplier=1.0, training_noise=1.0),
        generator=GeneratorConfig(closing_epochs=1),
        finetune=FinetuneConfig(when="both", real_data="mixed"),
    ).problems(Config())
    golden("\n".join(found))
    joint = FedVTCConfig(
        privacy=PrivacyConfig(noise_multiplier=1.0, training_noise=1.0),
        generator=GeneratorConfig(training="joint"),
        finetune=FinetuneConfig(when="every_round"),
    )
    assert joint.problems(Config()) == []

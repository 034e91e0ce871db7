import numpy as np
import pytest
import torch

from fedvtc.config.schema import RunConfig
from fedvtc.learning.exchange.messages import Broadcast, Upload, bytes_by_kind
from fedvtc.learning.methods import Task, build
from fedvtc.learning.methods.gefl import GeFLConfig, GeneratorConfig
from fedvtc.learning.models.weights import weights_of
from fedvtc.learning.server import Server

GENERATOR = GeneratorConfig(latent_size=4, width=4, epochs=1, batch_size=8)


def small(**keys):
    return GeFLConfig(generator=GENERATOR, **keys)


def num_floats(module):
    return sum(tensor.numel() for tensor in module.state_dict().values())


def test_plain_means_touch_no_other_group_by_hand():
    task = Task(num_classes=3, num_channels=1, image_size=8, feature_size=6, seed=0)
    method = build(small(), task)
    uploads = [
        Upload(
            client,
            1,
            num_images,
            {
                "labels": {"count": np.array(counts, np.int32)},
                "generator": {"w": np.array([generator], np.float32)},
                "model": {"w": np.array(model, np.float32)},
            },
            backbone="aba"[client],
        )
        for client, (num_images, counts, generator, model) in enumerate(
            [(90, [1, 0, 0], 0.0, [2.0]), (10, [0, 0, 5], 3.0, [7.0, 7.0]), (10, [2, 0, 0], 9.0, [4.0])]
        )
    ]
    state, broadcast = method.server_round({}, iter(uploads), Server(0, 1))
    assert broadcast.payload["generator"]["w"].tolist() == [4.0]
    assert broadcast.payload["labels"]["held"].tolist() == [True, False, True]
    assert {name: group["model"]["w"].tolist() for name, group in broadcast.groups.items()} == {
        "a": [3.0],
        "b": [7.0, 7.0],
    }
    # Group a has no participant in round 2 and keeps its mean; held classes stay held.
    _, broadcast = method.server_round(state, iter(uploads[1:2]), Server(0, 2))
    assert broadcast.payload["labels"]["held"].tolist() == [True, False, True]
    assert broadcast.groups["a"]["model"]["w"].tolist() == [3.0]


@pytest.mark.parametrize("groups", ["architecture", "none"])
def test_bytes_are_those_of_the_formula(tiny_federation, groups):
    federation = tiny_federation(small(groups=groups))
    uploads, _, broadcast = federation.round()
    client = federation.clients[0]
    expected = {"labels": 4 * 3, "generator": 4 * num_floats(client.modules["generator"])}
    if groups == "architecture":
        expected["model"] = 4 * num_floats(client.classifier)
    assert [bytes_by_kind(upload.payload) for upload in uploads] == [expected] * 3
    assert bytes_by_kind(federation.method.largest_upload().payload) == expected
    assert bytes_by_kind(broadcast.payload) == {"labels": 3, "generator": expected["generator"]}
    assert set(broadcast.groups) == ({"cnn_2x8"} if groups == "architecture" else set())


def test_the_generator_that_is_trained_is_the_one_that_is_sent(tiny_federation):
    federation = tiny_federation(small())
    _, _, broadcast = federation.round()
    client = federation.clients[0]
    federation.method.receive(client, broadcast)
    received = weights_of(client.modules["generator"])
    upload = federation.upload(0, Broadcast(1, {**broadcast.payload, **broadcast.groups["cnn_2x8"]}))
    trained = weights_of(client.modules["generator"])
    assert all(np.array_equal(upload.payload["generator"][name], trained[name]) for name in trained)
    assert any(not np.array_equal(received[name], trained[name]) for name in trained)
    assert np.array_equal(upload.payload["model"]["head.bias"], weights_of(client.classifier)["head.bias"])


@pytest.mark.parametrize("order", ["synthetic_first", "mixed", "synthetic_last"])
def test_generated_images_train_the_classifier_from_round_two(tiny_federation, monkeypatch, order):
    federation = tiny_federation(small(groups="none", order=order))
    uploads, _, broadcast = federation.round()
    assert "time/synthetic" not in uploads[0].scalars
    fitted, client = [], federation.clients[0]
    fit = type(client).fit

    def watched(self, name, batches, **keys):
        kept = list(batches)
        fitted.append((name, self.phase_name, kept))
        return fit(self, name, kept, **keys)

    monkeypatch.setattr(type(client), "fit", watched)
    federation.upload(0, broadcast)
    phases = [phase for _, phase, _ in fitted]
    expected = {
        "synthetic_first": ["synthetic", "train", "generator"],
        "mixed": ["train", "generator"],
        "synthetic_last": ["train", "synthetic", "generator"],
    }
    assert phases == expected[order]
    labels_N = torch.cat([labels for _, phase, batches in fitted for _, labels in batches if phase != "generator"])
    # As many generated images as the ten real ones, of all three classes; the client holds two.
    assert len(labels_N) == 20
    assert set(labels_N.tolist()) == {0, 1, 2}


def test_a_generator_of_the_first_rounds_is_frozen_later(tiny_federation, tiny_config):
    config = small(schedule="first", generator_rounds=1)
    federation = tiny_federation(config)
    uploads, state, broadcast = federation.round()
    assert [set(upload.payload) for upload in uploads] == [{"labels", "generator"}] * 3
    uploads, state, later = federation.round(state, broadcast)
    assert [set(upload.payload) for upload in uploads] == [{"labels", "model"}] * 3
    assert later.payload["generator"] == broadcast.payload["generator"]
    assert "time/synthetic" in uploads[0].scalars
    run = RunConfig(rounds=1)
    (problem,) = config.problems(tiny_config(config, run=run))
    assert problem.startswith("generator_rounds: ")
    assert config.problems(tiny_config(config)) == []


def test_samples_are_drawn_by_the_mean_generator(tiny_federation):
    federation = tiny_federation(small())
    client = federation.clients[2]
    assert federation.method.samples(client, Broadcast(), num_per_class=2) is None
    _, _, broadcast = federation.round()
    before = client.weights_digest()
    images, labels_N = federation.method.samples(client, broadcast, num_per_class=2)
    again, _ = federation.method.samples(client, broadcast, num_per_class=2)
    assert labels_N.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.shape == (6, 1, 8, 8)
    assert torch.equal(images, again)
    assert client.weights_digest() == before


def test_a_client_of_one_image_ends_rounds_with_finite_weights(tiny_federation):
    federation = tiny_federation(small(), indices=[4])
    _, state, broadcast = federation.round()
    federation.round(state, broadcast)
    for module in federation.clients[0].modules.values():
        assert all(weight.isfinite().all() for weight in module.parameters())

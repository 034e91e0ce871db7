import math

import numpy as np
import pytest
import torch

from fedvtc.learning.client.loop import weights_digest
from fedvtc.learning.data.generated import GeneratedImages, to_pixels
from fedvtc.learning.exchange.messages import Broadcast, bytes_by_kind
from fedvtc.learning.methods.dense import DENSEConfig, DistillationConfig, GenerationConfig
from fedvtc.learning.methods.dense.invention import invention_loss, teacher_of
from fedvtc.learning.server import Server

GENERATION = GenerationConfig(batches=2, batch_size=6, steps=2, latent_size=8, width=4)


def small(**keys):
    return DENSEConfig(generation=GENERATION, finetune=DistillationConfig(epochs=1, batch_size=8), **keys)


def closed(federation):
    uploads = []
    for client in federation.clients:
        client.begin_round(2)
        uploads.append(federation.method.closing_upload(client, Broadcast(1)))
    return uploads, federation.method.closing_server({}, iter(uploads), Server(0, 2))


def test_the_loss_of_invented_images_by_hand():
    answer_BC = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(3.0)]])
    labels_B = torch.tensor([0, 1])
    classification = -math.log(0.75)
    # The student names the same classes: no adversarial term.
    assert invention_loss(answer_BC, 2 * answer_BC, labels_B, 1.0).item() == pytest.approx(classification, abs=1e-6)
    # The student errs on the second image: KL((1/4, 3/4) || (3/4, 1/4)) = ln 3 / 2, half of it as a mean over two.
    student_BC = answer_BC[[0, 0]]
    expected = classification - 0.5 * math.log(3.0) / 2
    assert invention_loss(answer_BC, student_BC, labels_B, 1.0).item() == pytest.approx(expected, abs=1e-6)
    assert invention_loss(answer_BC, student_BC, labels_B, 0.0).item() == pytest.approx(classification, abs=1e-6)


def test_answers_are_means_of_the_clients_and_weighted_ones_are_of_holders(tiny_federation):
    images, labels_B = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    for ensemble in ("mean", "label_weighted"):
        federation = tiny_federation(small(ensemble=ensemble))
        uploads, _ = closed(federation)
        with torch.no_grad():
            answer_BC = teacher_of(federation.method.task, iter(uploads))(images, labels_B)
            logits = [client.classifier.eval()(images) for client in federation.clients]
        if ensemble == "mean":
            expected = torch.stack(logits).mean(dim=0)
        else:
            # Class 0: clients 0 and 1 hold five images each; class 2: clients 1 and 2 hold four and three.
            expected = torch.stack([(logits[0] + logits[1])[0] / 2, (4 * logits[1] + 3 * logits[2])[1] / 7])
        assert answer_BC.numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_bytes_are_those_of_the_formula(tiny_federation):
    federation = tiny_federation(small())
    uploads, broadcast = closed(federation)
    num_floats = sum(tensor.numel() for tensor in federation.clients[0].classifier.state_dict().values())
    assert [bytes_by_kind(upload.payload) for upload in uploads] == [{"model": 4 * num_floats}] * 3
    weighted = tiny_federation(small(ensemble="label_weighted"))
    assert bytes_by_kind(closed(weighted)[0][0].payload) == {"model": 4 * num_floats, "labels": 4 * 3}
    assert bytes_by_kind(broadcast.payload) == {"images": 2 * 6 * (8 * 8 + 4 * 3)}


def test_clients_learn_the_answers_and_the_key_gives_the_bits(tiny_federation):
    federation = tiny_federation(small())
    uploads, broadcast = closed(federation)
    again = federation.method.closing_server({}, iter(uploads), Server(0, 2))
    assert np.array_equal(again.payload["images"]["pixels"], broadcast.payload["images"]["pixels"])
    client = federation.clients[0]
    before = weights_digest(client.classifier)
    federation.method.finish(client, broadcast)
    assert weights_digest(client.classifier) != before
    assert np.isfinite(client.scalars["loss/finetune"])


def test_samples_of_a_rare_class_shorten_the_rows_of_all_classes():
    pixels_NCHW = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    images, labels_N = GeneratedImages(pixels_NCHW, np.array([0, 0, 2, 0, 2])).first(8)
    assert to_pixels(images).flatten().tolist() == [0, 1, 2, 4]
    assert labels_N.tolist() == [0, 0, 2, 2]


def test_samples_are_invented_images(tiny_federation):
    federation = tiny_federation(small())
    assert federation.method.samples(federation.clients[0], Broadcast(1), num_per_class=1) is None
    _, broadcast = closed(federation)
    images, labels_N = federation.method.samples(federation.clients[0], broadcast, num_per_class=1)
    row = int(np.flatnonzero(broadcast.payload["images"]["logits"].argmax(axis=1) == labels_N[0].item())[0])
    assert np.array_equal(to_pixels(images[:1]), broadcast.payload["images"]["pixels"][row : row + 1])

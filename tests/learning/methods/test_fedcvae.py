import numpy as np
import pytest
import torch

from fedvtc.learning.client.loop import weights_digest
from fedvtc.learning.data.generated import GeneratedImages, to_pixels
from fedvtc.learning.data.module import to_input
from fedvtc.learning.exchange.messages import Broadcast, Upload, bytes_by_kind
from fedvtc.learning.methods import Task, build
from fedvtc.learning.methods.fedcvae import DecoderConfig, FedCVAEConfig, SetTrainingConfig, set_shares
from fedvtc.learning.models.weights import weights_of
from fedvtc.learning.server import Server

TASK = Task(num_classes=3, num_channels=1, image_size=8, feature_size=6, seed=0)
DECODER = DecoderConfig(latent_size=4, width=4, epochs=2, batch_size=4)


def small(**keys):
    finetune = SetTrainingConfig(epochs=1, batch_size=8, **keys.pop("finetune", {}))
    return FedCVAEConfig(decoder=DECODER, finetune=finetune, **({"num_images": 24} | keys))


def closed(federation, round=1):
    """The uploads of the closing exchange and its broadcast."""
    uploads = []
    for client in federation.clients:
        client.begin_round(round + 1)
        uploads.append(federation.method.closing_upload(client, Broadcast(round)))
    return uploads, federation.method.closing_server({}, iter(uploads), Server(0, round + 1))


def test_shares_of_the_set_by_hand():
    assert set_shares([3, 1], 10) == [7, 3]
    assert set_shares([1, 1, 1], 2) == [0, 0, 2]
    assert set_shares([5], 7) == [7]


def test_labels_of_the_set_are_those_of_the_client_whose_decoder_drew():
    method = build(small(num_images=40), TASK)
    decoder = weights_of(method._new_generator().decoder)
    uploads = [
        Upload(client, 1, num_images, {"generator": decoder, "labels": {"count": np.array(counts, np.int32)}})
        for client, (num_images, counts) in enumerate([(30, [30, 0, 0]), (10, [0, 4, 6])])
    ]
    broadcast = method.closing_server({}, iter(uploads), Server(0, 5))
    generated = GeneratedImages.from_arrays(broadcast.payload["images"])
    assert broadcast.round == 5
    assert generated.pixels_NCHW.shape == (40, 1, 8, 8)
    assert generated.labels_N[:30].tolist() == [0] * 30
    assert set(generated.labels_N[30:]) == {1, 2}
    # The draws depend on the key alone.
    again = method.closing_server({}, iter(uploads), Server(0, 5)).payload["images"]
    other = method.closing_server({}, iter(uploads), Server(0, 6)).payload["images"]
    assert np.array_equal(again["pixels"], generated.pixels_NCHW)
    assert not np.array_equal(other["pixels"], generated.pixels_NCHW)


def test_pixels_and_inputs_are_inverse():
    pixels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_pixels(to_input(torch.from_numpy(pixels))), pixels)


def test_bytes_are_those_of_the_formula(tiny_federation):
    federation = tiny_federation(small())
    uploads, broadcast = closed(federation)
    num_weights = sum(weight.numel() for weight in federation.clients[0].modules["generator"].decoder.parameters())
    expected = {"generator": 4 * num_weights, "labels": 4 * 3}
    assert [bytes_by_kind(upload.payload) for upload in uploads] == [expected] * 3
    assert bytes_by_kind(broadcast.payload) == {"images": 24 * (8 * 8 + 1)}
    assert [upload.payload["labels"]["count"].tolist() for upload in uploads] == [[5, 5, 0], [5, 5, 4], [0, 0, 3]]


def test_rounds_are_local_and_the_closing_step_trains_the_decoder_that_is_sent(tiny_federation, make_client):
    federation = tiny_federation(small())
    upload = federation.upload(0, Broadcast())
    assert upload.payload == {}
    alone, client = make_client(0), federation.clients[0]
    alone.train()
    assert weights_digest(client.classifier) == weights_digest(alone.classifier)
    before = weights_of(client.modules["generator"].decoder)
    uploads, _ = closed(federation)
    trained = weights_of(client.modules["generator"].decoder)
    assert all(np.array_equal(uploads[0].payload["generator"][name], trained[name]) for name in trained)
    assert any(not np.array_equal(before[name], trained[name]) for name in trained)
    assert weights_digest(client.classifier) == weights_digest(alone.classifier)
    assert {"loss/generator", "loss/reconstruction", "loss/kl"} <= set(uploads[0].scalars)


@pytest.mark.parametrize("start", ["fresh", "trained"])
def test_a_fresh_start_forgets_the_rounds(tiny_federation, start):
    federations = [tiny_federation(small(finetune={"start": start})) for _ in range(2)]
    federations[0].upload(0, Broadcast())
    _, broadcast = closed(federations[1])
    digests = set()
    for federation in federations:
        client = federation.clients[0]
        client.begin_round(3)
        federation.method.finish(client, broadcast)
        digests.add(weights_digest(client.classifier))
    assert len(digests) == (1 if start == "fresh" else 2)


def test_own_images_may_be_mixed_into_the_set(tiny_federation):
    federation = tiny_federation(small(finetune={"real_data": "mixed"}))
    _, broadcast = closed(federation)
    generated, client = GeneratedImages.from_arrays(broadcast.payload["images"]), federation.clients[2]
    with client.phase("finetune"):
        batches = list(federation.method._set_batches(client, generated))
    images, labels_N = (torch.cat(part) for part in zip(*batches, strict=True))
    assert len(images) == 24 + 3
    assert torch.bincount(labels_N, minlength=3).sum() == 27
    for own in client.images.inputs():
        assert any(torch.equal(own, image) for image in images)


def test_samples_are_images_of_the_set_and_absent_before(tiny_federation):
    federation = tiny_federation(small())
    assert federation.method.samples(federation.clients[0], Broadcast(1), num_per_class=2) is None
    _, broadcast = closed(federation)
    images, labels_N = federation.method.samples(federation.clients[0], broadcast, num_per_class=2)
    assert labels_N.tolist() == sorted(labels_N.tolist())
    generated = GeneratedImages.from_arrays(broadcast.payload["images"])
    row = int(np.flatnonzero(generated.labels_N == 0)[0])
    assert np.array_equal(to_pixels(images[:1]), generated.pixels_NCHW[row : row + 1])


def test_a_client_of_one_image_ends_with_finite_weights(tiny_federation):
    federation = tiny_federation(small(), indices=[4])
    _, broadcast = closed(federation)
    federation.method.finish(federation.clients[0], broadcast)
    assert all(
        weight.isfinite().all() for module in federation.clients[0].modules.values() for weight in module.parameters()
    )

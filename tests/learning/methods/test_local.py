import numpy as np
import pytest

from fedvtc.config.schema import TrainingConfig
from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods.local import LocalConfig
from fedvtc.learning.server import Server


def test_clients_train_alone_and_send_nothing(tiny_federation, make_client):
    federation = tiny_federation(LocalConfig())
    uploads, state, broadcast = federation.round()
    assert state == {}
    assert broadcast == Broadcast(round=1)
    for upload, num_images in zip(uploads, (10, 14, 3), strict=True):
        assert upload.payload == {}
        assert (upload.round, upload.num_images) == (1, num_images)
        assert set(upload.scalars) - {"memory/train"} == {
            "time/train",
            "cpu/train",
            "flops/train",
            "loss/train",
            "loss/classification",
        }
    alone = make_client(0)
    alone.train()
    assert federation.clients[0].weights_digest() == alone.weights_digest()


def test_a_client_learns_the_classes_that_it_holds(tiny_federation, tiny_dataset):
    federation = tiny_federation(LocalConfig(), training=TrainingConfig(epochs=5, batch_size=4))
    state, broadcast = {}, Broadcast()
    for _ in range(3):
        _, state, broadcast = federation.round(state, broadcast)
    confusion_CC = federation.clients[0].confusions(tiny_dataset.test, {"head": federation.clients[0].classifier})[
        "head"
    ]
    # Classes 0 and 1 are its own; it has never seen class 2.
    assert np.diagonal(confusion_CC)[:2].sum() >= 9
    assert confusion_CC[2, 2] == 0


@pytest.mark.parametrize("rounds", [(4,), (4, 4)])
def test_the_round_is_that_of_the_uploads(tiny_federation, rounds):
    uploads = [Upload(client, round, 5) for client, round in enumerate(rounds)]
    assert tiny_federation(LocalConfig()).method.server_round({}, iter(uploads), Server(0, 1)) == ({}, Broadcast(4))

import numpy as np
import pytest

from fedvtc.learning.exchange.messages import Upload
from fedvtc.learning.methods import Task, build
from fedvtc.learning.methods.fedre import FedREConfig, mixed
from fedvtc.learning.server import Server

TASK = Task(num_classes=2, num_channels=1, image_size=8, feature_size=1, seed=0)


def head(bias):
    return {"weight": np.zeros((2, 1), dtype=np.float32), "bias": np.array(bias, dtype=np.float32)}


def test_a_mix_by_hand():
    mix = mixed(np.array([[0.0], [4.0]]), np.array([3, 7]), np.array([0.2, 0.6]))
    assert mix["classes"].tolist() == [3, 7]
    assert mix["weights"].tolist() == pytest.approx([0.25, 0.75])
    assert mix["mean"].tolist() == [3.0]


@pytest.mark.parametrize(("bias", "loss"), [([0.0, 0.0], np.log(2)), ([0.0, np.log(3)], 0.5623)])
def test_the_loss_of_the_head_by_hand(bias, loss):
    method = build(FedREConfig(server_lr=0.1), TASK)
    mix = mixed(np.array([[0.0], [4.0]]), np.array([0, 1]), np.array([0.25, 0.75]))
    server = Server(0, 2)
    state, broadcast = method.server_round({"head": head(bias)}, [Upload(0, 2, 9, {"mix": mix})], server)
    assert server.scalars["loss/server/head"] == pytest.approx(loss, abs=1e-4)
    # The gradient of the bias is softmax(z) - w: 0 where the head predicts the weights of the mix.
    step = 0.1 * (np.array([0.25, 0.75]) - np.exp(bias) / np.exp(bias).sum())
    assert broadcast.payload["head"]["bias"] == pytest.approx(np.array(bias) + step, abs=1e-6)
    assert broadcast.payload["head"]["weight"].ravel() == pytest.approx(3 * step, abs=1e-6)
    assert state == broadcast.payload


def test_clients_upload_one_mix_of_the_trained_model_with_new_weights_each_round(tiny_federation):
    federation = tiny_federation(FedREConfig())
    state, broadcast = federation.method.start()
    seen = []
    for _ in range(2):
        uploads, state, broadcast = federation.round(state, broadcast)
        for client, upload in zip(federation.clients, uploads, strict=True):
            mix, statistics = upload.payload["mix"], client.statistics("scalar")
            assert np.array_equal(mix["classes"], statistics.classes_K)
            assert mix["weights"].sum() == pytest.approx(1)
            assert (mix["weights"] > 0).all()
            assert mix["mean"] == pytest.approx(mix["weights"] @ statistics.mean_KD, abs=1e-5)
            assert {array.dtype for array in mix.values()} == {np.dtype("int64"), np.dtype("float32")}
        seen += [tuple(upload.payload["mix"]["weights"]) for upload in uploads[:2]]
    assert len(set(seen)) == 4
    # The third client holds one class.
    assert uploads[2].payload["mix"]["weights"].tolist() == [1.0]


def test_clients_receive_the_trained_head(tiny_federation):
    federation = tiny_federation(FedREConfig(server_lr=0.5))
    state, first = federation.method.start()
    _, _, broadcast = federation.round(state, first)
    client = federation.clients[0]
    federation.method.receive(client, broadcast)
    assert np.array_equal(client.classifier.head.bias.detach().numpy(), broadcast.payload["head"]["bias"])
    assert not np.allclose(broadcast.payload["head"]["bias"], first.payload["head"]["bias"], atol=1e-3)

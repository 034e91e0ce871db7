import numpy as np

from fedvtc.learning.client.loop import weights_digest
from fedvtc.learning.exchange.messages import Upload
from fedvtc.learning.methods import Task, build
from fedvtc.learning.methods.lg_fedavg import LGFedAvgConfig
from fedvtc.learning.models.weights import weights_of
from fedvtc.learning.server import Server


def test_heads_are_averaged_by_images():
    method = build(LGFedAvgConfig(), Task(num_classes=2, num_channels=1, image_size=8, feature_size=1, seed=0))
    heads = [(20, [0.0, 4.0]), (10, [3.0, 1.0])]
    uploads = [
        Upload(client, 5, num_images, {"head": {"bias": np.float32(bias)}})
        for client, (num_images, bias) in enumerate(heads)
    ]
    _, broadcast = method.server_round({}, uploads, Server(0, 5))
    assert broadcast.round == 5
    assert broadcast.payload["head"]["bias"].tolist() == [1.0, 3.0]
    assert broadcast.payload["head"]["bias"].dtype == np.float32


def test_every_client_starts_from_the_received_head_and_keeps_its_backbone(tiny_federation):
    federation = tiny_federation(LGFedAvgConfig())
    _, _, broadcast = federation.round()
    head = broadcast.payload["head"]
    for client in federation.clients:
        classifier = client.classifier
        trained, backbone = weights_of(classifier.head), weights_digest(classifier.backbone)
        federation.method.receive(client, broadcast)
        assert all(np.array_equal(array, head[name]) for name, array in weights_of(classifier.head).items())
        assert not np.array_equal(trained["weight"], head["weight"])
        assert weights_digest(classifier.backbone) == backbone
    # One bias and one weight for each of 6 features, for 3 classes.
    assert sum(array.nbytes for array in head.values()) == 4 * 7 * 3

"""The method's arithmetic, with numbers worked out by hand: `python -m pytest`."""

import numpy as np
from fedvtc.config import load
from fedvtc.learning.exchange.messages import Upload
from fedvtc.learning.methods import Task, build, config_classes
from fedvtc.learning.server import Server
from fedvtc.testing import check_method

from shared_head import SharedHead, SharedHeadConfig, mixed


def test_the_mean_head_weighs_clients_by_images() -> None:
    config = SharedHeadConfig(name="shared_head:SharedHead")
    method = build(config, Task(num_classes=2, num_channels=1, image_size=8, feature_size=4, seed=0))
    heads = [(20, [0.0, 4.0]), (10, [3.0, 1.0])]
    uploads = [
        Upload(client, 1, num_images, {"head": {"bias": np.array(bias)}})
        for client, (num_images, bias) in enumerate(heads)
    ]

    _, broadcast = method.server_round({}, uploads, Server(seed=0, round=1))

    assert broadcast.round == 1
    assert broadcast.payload["head"]["bias"].tolist() == [1.0, 3.0]


def test_a_client_starts_with_a_mix_of_its_head_and_the_mean() -> None:
    own, mean = {"bias": np.array([0.0, 4.0])}, {"bias": np.array([4.0, 0.0])}

    assert mixed(own, mean, 0.25)["bias"].tolist() == [1.0, 3.0]


def test_what_holds_for_every_method() -> None:
    """A resume, and another number of processes, change no bit; docs/adding-a-method.md of fedvtc lists the checks."""
    check_method(SharedHead, SharedHeadConfig(name="shared_head:SharedHead"))


def test_the_experiment_uses_the_method() -> None:
    config = load(["experiment.yaml"], [], methods=config_classes())

    assert config.method == SharedHeadConfig(name="shared_head:SharedHead", label="Shared head", mix=0.5)

"""`check_method` finds the faults that methods have: each class here has one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fedvtc.config.schema import MethodConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Broadcast, Upload, WeightedMean
from fedvtc.learning.methods import Method
from fedvtc.learning.models.weights import load_weights, weights_of
from fedvtc.testing import check_method


class SharedProbe(Method[MethodConfig]):
    """Right: clients average a probe on their features, the server trains a scale, and the last probe is received."""

    def prepare(self, client):
        with self.task.shared_randomness("probe"):
            probe = nn.Linear(6, 3)
        client.attach("probe", probe, torch.optim.SGD(probe.parameters(), lr=0.1))

    def receive(self, client, broadcast):
        if broadcast.payload:
            load_weights(client.modules["probe"], broadcast.payload["probe"])

    def client_round(self, client, broadcast):
        client.train()
        with client.phase("probe"):
            client.fit("probe", client.batches(), loss=self.loss(client))
        return self.upload(client)

    def loss(self, client):
        probe = client.modules["probe"]
        return lambda x, y: functional.cross_entropy(probe(self.features(client, x)), y)

    def features(self, client, images):
        return client.classifier.features(images).detach()

    def upload(self, client):
        means = client.statistics("scalar").to_arrays()["prototypes"]
        payload = {"probe": weights_of(client.modules["probe"]), "prototypes": means}
        return client.upload(payload)

    def server_round(self, state, uploads, server):
        mean, means = WeightedMean(), dict(state.get("prototypes", {}))
        for upload in uploads:
            mean.add(upload.payload["probe"], upload.num_images)
            prototypes = upload.payload["prototypes"]
            means |= {str(label): row for label, row in zip(prototypes["classes"], prototypes["mean"], strict=True)}
        scale, one = nn.Linear(1, 1), {"weight": np.ones((1, 1), np.float32), "bias": np.zeros(1, np.float32)}
        load_weights(scale, state.get("scale", one))
        optimizer = torch.optim.SGD(scale.parameters(), lr=0.1)
        with server.phase("scale"):
            server.fit(scale, [(torch.rand(4, 1),)], lambda rows: scale(rows).square().mean(), optimizer)
        state = {"prototypes": means, "scale": self.stored(state, scale)}
        classes = np.array(sorted(map(int, means)))
        rows = {"classes": classes, "mean": np.stack([means[str(label)] for label in classes])}
        return state, Broadcast(server.round, {"probe": mean.value(), "prototypes": rows, "scale": state["scale"]})

    def stored(self, state, scale):
        return weights_of(scale)

    def largest_upload(self):
        probe = {"weight": np.zeros((3, 6), np.float32), "bias": np.zeros(3, np.float32)}
        means = {"classes": np.arange(3), "count": np.arange(3), "mean": np.zeros((3, 6))}
        return Upload(0, 1, 3, {"probe": probe, "prototypes": means})


class Stale(SharedProbe):
    """Uploads class means of the model before this round's training."""

    def client_round(self, client, broadcast):
        means = client.statistics("scalar").to_arrays()["prototypes"]
        upload = super().client_round(client, broadcast)
        return client.upload({**upload.payload, "prototypes": means})


class Forgetful(SharedProbe):
    """The server trains a scale that is never stored, as HtFLlib's FedGen does with its generator."""

    def stored(self, state, scale):
        return {"weight": np.ones((1, 1), np.float32), "bias": np.zeros(1, np.float32)}


class Leaky(SharedProbe):
    """The probe's loss reaches the backbone."""

    def features(self, client, images):
        return client.classifier.features(images)


class Untracked(SharedProbe):
    """Counts rounds where a resume does not find the number."""

    def client_round(self, client, broadcast):
        client.images.rounds = getattr(client.images, "rounds", 0) + 1
        upload = super().client_round(client, broadcast)
        payload = {**upload.payload, "count": {"rounds": np.array([client.images.rounds])}}
        return client.upload(payload)

    def largest_upload(self):
        upload = super().largest_upload()
        return Upload(0, 1, 3, {**upload.payload, "count": {"rounds": np.array([0])}})


class Unkeyed(SharedProbe):
    """Draws without a key."""

    def client_round(self, client, broadcast):
        upload = super().client_round(client, broadcast)
        payload = {**upload.payload, "noise": {"noise": torch.rand(1).numpy()}}
        return client.upload(payload)

    def largest_upload(self):
        upload = super().largest_upload()
        return Upload(0, 1, 3, {**upload.payload, "noise": {"noise": np.zeros(1, np.float32)}})


class InPlace(SharedProbe):
    """Changes an upload."""

    def server_round(self, state, uploads, server):
        def doubled():
            for upload in uploads:
                upload.payload["prototypes"]["mean"] *= 2
                yield upload

        return super().server_round(state, doubled(), server)


class Dropping(SharedProbe):
    """Broadcasts the classes of this round alone."""

    def server_round(self, state, uploads, server):
        return super().server_round({**state, "prototypes": {}}, uploads, server)


class Larger(SharedProbe):
    """Plans fewer bytes than it sends."""

    def largest_upload(self):
        return Upload(0, 1, 3, {"probe": super().largest_upload().payload["probe"]} | {"prototypes": {}})

    def server_round(self, state, uploads, server):
        return state, Broadcast(server.round)


class Twice(SharedProbe):
    """Adds to the weights at every call of `receive`."""

    def receive(self, client, broadcast):
        if broadcast.payload:
            own = weights_of(client.modules["probe"])
            load_weights(client.modules["probe"], {name: own[name] + 1 for name in own})


class Named(SharedProbe):
    """Names a predictor like another metric."""

    def predictors(self, client, broadcast):
        return {"head": client.classifier, "missing": client.classifier}


class Unshaped(SharedProbe):
    """Predicts classes instead of scores."""

    def predictors(self, client, broadcast):
        return {"head": lambda images: client.classifier(images).argmax(dim=1)}


def test_a_right_method_passes_and_has_the_same_digest_again():
    assert check_method(SharedProbe) == check_method(SharedProbe)


class Turned(SharedProbe):
    """Right: keeps an array in another order than that of a restored array, and sums it."""

    def server_round(self, state, uploads, server):
        turned = state.get("turned", np.zeros((70, 300), np.float32))
        following, broadcast = super().server_round(state, uploads, server)
        turned_again = np.random.default_rng(3).standard_normal((300, 70), np.float32).T
        payload = {**broadcast.payload, "total": {"sum": np.asarray(turned.sum())}}
        return {**following, "turned": turned_again}, Broadcast(broadcast.round, payload)


def test_the_order_of_an_array_in_memory_changes_no_bit():
    check_method(Turned)


@section
class EpochsConfig(MethodConfig):
    """A config that leaves out a key of the rounds."""

    weight: float = 2.0

    def of_rounds(self):
        return EpochsConfig(name=self.name)


class Weighted(SharedProbe):
    """The rounds depend on a key of which the config says that the rounds do not depend on it."""

    config_class = EpochsConfig

    def loss(self, client):
        loss, weight = super().loss(client), self.config.weight
        return lambda x, y: weight * loss(x, y)


def test_keys_that_the_rounds_depend_on_cannot_be_left_out(golden):
    check_method(Weighted)
    with pytest.raises(AssertionError) as fault:
        check_method(Weighted, EpochsConfig(weight=1.0))
    golden(str(fault.value).partition("\nassert")[0])


@pytest.mark.parametrize(
    "method",
    [Stale, Forgetful, Leaky, Untracked, Unkeyed, InPlace, Dropping, Larger, Twice, Named, Unshaped],
    ids=lambda method: method.__name__,
)
def test_a_fault_is_named(method, golden):
    with pytest.raises(AssertionError) as fault:
        check_method(method)
    golden(str(fault.value).partition("\nassert")[0])


def test_the_checks_need_no_test_framework():
    source = Path(check_method.__code__.co_filename).parent
    assert not [path for path in source.glob("*.py") if "pytest" in path.read_text()]

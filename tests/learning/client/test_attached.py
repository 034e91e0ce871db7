"""Modules and values that a method gives a client: they train, and a resumed client has them again."""

import io

import numpy as np
import pytest
import torch
from lightning import LightningModule
from torch import nn
from torch.nn import functional

from fedvtc.config.schema import MethodConfig
from fedvtc.errors import CheckpointError, ClientError
from fedvtc.learning.client.client import FederatedClient
from fedvtc.learning.client.loop import weights_digest
from fedvtc.learning.exchange.messages import Broadcast, WeightedMean
from fedvtc.learning.methods import Method, Task
from fedvtc.learning.models.weights import load_weights, weights_of
from fedvtc.learning.server import Server
from fedvtc.storage.checkpoints.trees import read_tree, write_tree


class Scale(LightningModule):
    """A logit per class: the mean pixel times a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, images):
        return images.flatten(1).mean(dim=1, keepdim=True) * self.weight

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


@pytest.fixture
def make_bare(tiny_config, tiny_dataset, tiny_specs):
    """Makes a client before its first round, prepared by nothing."""

    def make(number=0):
        return FederatedClient(tiny_specs[number], tiny_config(), tiny_dataset, torch.device("cpu"))

    return make


def test_an_attached_module_is_known_by_its_name(make_bare):
    client, module = make_bare(), Scale()
    client.attach("scale", module)
    assert dict(client.modules) == {"classifier": client.classifier, "scale": module}
    with pytest.raises(TypeError):
        client.modules["other"] = module


@pytest.mark.parametrize("name", ["classifier", "scale", "memory"])
def test_a_name_is_attached_once(make_bare, golden, name):
    client = make_bare()
    client.attach("scale", Scale())
    with pytest.raises(ValueError, match="in use") as caught:
        client.attach(name, Scale())
    golden(caught.value)


def test_a_module_is_named_in_the_refusal_of_another(make_bare, golden):
    client = make_bare()
    with pytest.raises(TypeError) as refused:
        client.attach("scale", None)
    golden(str(refused.value))
    client.attach("scale", Scale())
    client.begin_round(1)
    with client.phase("scale"), pytest.raises(ValueError, match="Attached: classifier, scale"):
        client.fit("other", [])


def test_a_module_is_attached_before_the_first_round(make_bare, golden):
    client = make_bare()
    client.begin_round(2)
    with pytest.raises(ValueError, match=r"Method\.prepare") as caught:
        client.attach("scale", Scale())
    golden(caught.value)


@pytest.mark.parametrize("name", ["counter", "classifier", "memory", "id"])
def test_an_attribute_set_on_a_client_is_refused(make_bare, golden, name):
    client = make_bare()
    before = getattr(client, name, None)
    with pytest.raises(AttributeError) as caught:
        setattr(client, name, 1)
    assert getattr(client, name, None) is before
    golden(caught.value)


def test_fit_steps_by_the_modules_training_step_and_keeps_its_optimizer(make_bare):
    client, bare = make_bare(), Scale()
    client.attach("scale", Scale())
    optimizer = bare.configure_optimizers()
    for round in (1, 2):
        client.begin_round(round)
        with client.phase("scaling"):
            batches = list(client.batches())
        with client.phase("scaling"):
            terms = client.fit("scale", client.batches())
        losses = []
        for batch in batches:
            optimizer.zero_grad()
            loss = bare.training_step(batch, 0)
            loss.backward()
            optimizer.step()
            losses.append(loss.item() * len(batch[0]))
        assert weights_digest(client.modules["scale"]) == weights_digest(bare)
        assert terms == {"loss": client.scalars["loss/scaling"]}
        assert terms["loss"] == pytest.approx(sum(losses) / 10)
        # Linux alone tells the peak of a phase.
        assert set(client.scalars) - {"memory/scaling"} == {
            "time/scaling",
            "cpu/scaling",
            "flops/scaling",
            "loss/scaling",
        }


def test_fit_takes_a_loss_and_an_optimizer_of_the_methods_own(make_bare):
    client, probe = make_bare(), nn.Linear(6, 3)
    before = weights_of(probe)
    client.attach("probe", probe, torch.optim.SGD(probe.parameters(), lr=0.5))
    client.begin_round(1)
    classifier = weights_digest(client.classifier)

    def loss(images, labels_B):
        with torch.no_grad():
            features_BD = client.classifier.features(images)
        whole = functional.cross_entropy(probe(features_BD), labels_B)
        return {"loss": whole, "half": whole / 2}

    with client.phase("probe"):
        client.fit("probe", client.batches(99), loss=loss)
        after = weights_of(probe)
        client.fit("probe", client.batches(99), loss=loss, record_terms=False)
    assert weights_digest(client.classifier) == classifier
    assert not np.array_equal(after["bias"], before["bias"])
    # The mean over classes of softmax minus one-hot, times the learning rate, moves the biases by a sum of zero.
    assert (after["bias"] - before["bias"]).sum() == pytest.approx(0, abs=1e-6)
    assert client.scalars["loss/probe"] < 2 * client.scalars["loss/half"]
    kept = client.state_dict()["probe"]["optimizer"]
    other = torch.optim.Adam(probe.parameters())
    with client.phase("probe"):
        client.fit("probe", client.batches(99), loss=loss, optimizer=other)
    assert len(other.state) == 2
    assert client.state_dict()["probe"]["optimizer"] == kept


def test_fit_without_a_loss_or_an_optimizer_names_the_lacking_one(make_bare, golden):
    client = make_bare()
    client.attach("still", nn.Linear(2, 2))
    client.attach("plain", plain := nn.Linear(2, 2), torch.optim.SGD(plain.parameters(), lr=1.0))
    client.begin_round(1)
    for name, loss in (("still", lambda images, labels_B: images.sum()), ("plain", None)):
        with pytest.raises(ValueError, match="fit needs") as caught, client.phase("steps"):
            client.fit(name, client.batches(), loss=loss)
        golden(caught.value)


def test_draws_need_an_open_phase(make_bare, golden):
    client = make_bare()
    client.begin_round(1)
    for step in (lambda: next(client.batches()), lambda: client.index_batches(2), lambda: client.fit("classifier", [])):
        with pytest.raises(RuntimeError) as caught:
            step()
        golden(caught.value)


def test_a_given_loss_that_is_not_finite_names_the_phase(make_bare):
    client = make_bare()
    client.begin_round(3)
    with pytest.raises(ClientError) as caught, client.phase("mine"):
        client.fit("classifier", client.batches(), loss=lambda images, labels_B: client.classifier(images).sum() / 0)
    assert (caught.value.client, caught.value.round, caught.value.phase) == (0, 3, "mine")
    client.begin_round(4)
    assert client.phase_name == ""


def test_prototypes_end_with_the_round(make_client, tiny_fedvtc, tiny_federation):
    federation = tiny_federation(tiny_fedvtc())
    _, _, broadcast = federation.round()
    client = federation.clients[0]
    federation.upload(0, broadcast)
    assert "loss/prototype" in client.scalars
    client.begin_round(3)
    client.train()
    assert "loss/prototype" not in client.scalars


class Counting(Method[MethodConfig]):
    """Averages an attached module; each client's steps grow with the rounds in which it took part."""

    def prepare(self, client):
        with self.task.shared_randomness("probe"):
            probe = nn.Linear(6, 3)
        client.attach("probe", probe, torch.optim.Adam(probe.parameters(), lr=0.01))

    def client_round(self, client, broadcast):
        probe = client.modules["probe"]
        if broadcast.payload:
            load_weights(probe, broadcast.payload["probe"])
        client.memory["rounds"] = client.memory.get("rounds", 0) + 1
        seen = client.memory.setdefault("seen", np.zeros(3))
        seen += client.memory["rounds"] * np.eye(3)[0]
        client.train()

        def loss(images, labels_B):
            return functional.cross_entropy(probe(client.classifier.features(images).detach()), labels_B)

        with client.phase("probe"):
            for _ in range(client.memory["rounds"]):
                client.fit("probe", client.batches(), loss=loss)
        return client.upload({"probe": weights_of(probe)})

    def server_round(self, state, uploads, server):
        mean, round = WeightedMean(), 0
        for upload in uploads:
            mean.add(upload.payload["probe"], upload.num_images)
            round = upload.round
        return state, Broadcast(round, {"probe": mean.value()})


@pytest.fixture
def make_clients(make_bare, tiny_config, tiny_dataset):
    def make():
        method = Counting(MethodConfig(), Task.of(tiny_config(), tiny_dataset))
        clients = [make_bare(number) for number in range(3)]
        for client in clients:
            method.prepare(client)
        return method, clients

    return make


def rounds_of(method, clients, broadcast, numbers):
    for number in numbers:
        uploads = []
        # Client 2 takes part in every other round.
        for client in clients[: 2 + number % 2]:
            client.begin_round(number)
            uploads.append(method.client_round(client, broadcast))
        _, broadcast = method.server_round({}, uploads, Server(0, 1))
    return broadcast


def through_a_checkpoint(state):
    write_tree(state, file := io.BytesIO())
    return read_tree(file.getvalue())


def test_a_method_that_counts_in_memory_is_resumed_with_the_same_bits(make_clients):
    method, undisturbed = make_clients()
    broadcast = rounds_of(method, undisturbed, Broadcast(), [1, 2])
    states = [through_a_checkpoint(client.state_dict()) for client in undisturbed]
    forgetful = [{**state, "memory": {}} for state in states]
    expected = rounds_of(method, undisturbed, broadcast, [3, 4])
    assert [client.memory["rounds"] for client in undisturbed] == [4, 4, 2]
    assert [client.memory["seen"][0] for client in undisturbed] == [10.0, 10.0, 3.0]

    results = []
    for saved in (states, forgetful):
        method, resumed = make_clients()
        for client, state in zip(resumed, saved, strict=True):
            client.load_state_dict(state)
        found = rounds_of(method, resumed, broadcast, [3, 4])
        digests = [client.weights_digest() for client in resumed]
        results.append((digests, {name: array.tobytes() for name, array in found.payload["probe"].items()}))

    digests = [client.weights_digest() for client in undisturbed]
    assert results[0] == (digests, {name: array.tobytes() for name, array in expected.payload["probe"].items()})
    assert results[1] != results[0]


def test_modules_made_in_shared_randomness_start_equal_and_others_do_not(make_clients):
    _, clients = make_clients()
    assert len({weights_digest(client.modules["probe"]) for client in clients}) == 1
    assert len({weights_digest(client.classifier) for client in clients}) == 3


def test_the_state_has_a_memory_only_where_something_is_remembered(make_clients):
    _, (client, *_) = make_clients()
    assert set(client.state_dict()) == {"classifier", "probe"}
    before = client.weights_digest()
    client.memory["n"] = 1
    assert set(client.state_dict()) == {"classifier", "probe", "memory"}
    assert client.weights_digest() != before


def test_a_state_of_other_modules_is_refused(make_bare, make_clients, golden):
    _, (attached, *_) = make_clients()
    for client, state in ((make_bare(), attached.state_dict()), (attached, make_bare().state_dict())):
        with pytest.raises(CheckpointError) as caught:
            client.load_state_dict(state)
        golden(caught.value)


def test_a_loss_that_counts_its_steps_in_memory_counts_each_once(make_bare):
    client, module = make_bare(), Scale()
    client.attach("scale", module)
    client.memory["num_steps"] = 0

    def loss(images, labels_B):
        client.memory["num_steps"] += 1
        return functional.cross_entropy(module(images), labels_B)

    with client.phase("train"):
        batches = list(client.batches())
        client.fit("scale", batches, loss=loss)
    assert client.memory["num_steps"] == len(batches)

import os
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedvtc.config.operation import PlacementConfig
from fedvtc.config.schema import EvaluateConfig, MethodConfig, OptimizerConfig, TrainingConfig
from fedvtc.errors import ClientError
from fedvtc.learning.client.evaluation import accuracies, checked_predictors, confusions
from fedvtc.learning.data.generated import drawn_pixels
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.methods.fedproto import FedProtoConfig
from fedvtc.learning.methods.lg_fedavg import LGFedAvgConfig
from fedvtc.learning.metrics import ROUND_METRICS
from fedvtc.learning.models.backbones import Backbone
from fedvtc.learning.peak_memory import peak_memory_bytes
from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.inline_pool import InlinePool

LOCAL = MethodConfig(name="local")


@pytest.fixture
def make_host(tiny_config, tiny_dataset, tiny_specs):
    def make(method=LOCAL, numbers=(0, 1, 2), **sections):
        specs = [tiny_specs[number] for number in numbers]
        return ClientHost(tiny_config(method, **sections), tiny_dataset, specs, torch.device("cpu"))

    return make


def test_a_client_runs_the_round_after_the_broadcast(make_host):
    host = make_host()
    upload = host.run_round(1, Broadcast(round=4))
    assert (upload.client, upload.round, upload.num_images) == (1, 5, 14)
    assert 0 < upload.scalars["time/train"] <= upload.scalars["time/client"]
    assert 0 < upload.scalars["cpu/train"] <= upload.scalars["cpu/client"]
    assert upload.scalars["flops/train"] > 0
    assert upload.scalars["memory/peak_bytes"] >= 50e6
    assert upload.scalars["loss/train"] > 0


def test_results_of_a_client_do_not_depend_on_other_clients_of_the_host(make_host):
    together, alone = make_host(), make_host(numbers=[2])
    for number in (0, 1, 2):
        together.run_round(number, Broadcast())
    alone.run_round(2, Broadcast())
    assert together.digest(2) == alone.digest(2)
    assert together.digest(2) != together.digest(1)
    assert re.fullmatch("[0-9a-f]{64}", alone.digest(2))


def test_a_client_that_another_host_takes_has_its_state_and_its_round(make_host):
    former, stayed = make_host(), make_host()
    for host in (former, stayed):
        for round in range(2):
            host.run_round(1, Broadcast(round))
    other = make_host()
    other.take(1, former.give(1))
    assert other._clients.use(1).round == 2
    assert other.digest(1) == stayed.digest(1)
    # The next step needs the state of the optimizer too.
    other.run_round(1, Broadcast(2))
    stayed.run_round(1, Broadcast(2))
    assert other.digest(1) == stayed.digest(1)
    with pytest.raises(KeyError):
        former.run_round(1, Broadcast(2))


def test_an_evaluation_runs_a_backbone_once_for_all_predictors(make_host, monkeypatch):
    host = make_host(
        FedProtoConfig(name="fedproto", prediction="prototype"), evaluate=EvaluateConfig(batch_size=4, ensemble=True)
    )
    upload = host.run_round(1, Broadcast())
    num_images = []
    run = Backbone.forward

    def counted(backbone, images):
        num_images.append(len(images))
        return run(backbone, images)

    monkeypatch.setattr(Backbone, "forward", counted)
    found = host.evaluate(1, Broadcast(1, {"prototypes": upload.payload["prototypes"]}))
    assert len(found.confusions) == 2
    assert found.probabilities_NC.shape == (15, 3)
    assert num_images == [4, 4, 4, 3]
    # Outside of an evaluation, weights may change between two calls.
    classifier, images = host._clients.use(1).classifier, torch.zeros(2, 1, 8, 8)
    assert classifier.features(images) is not classifier.features(images)


def test_evaluation_covers_the_whole_test_set_and_changes_nothing(make_host):
    host = make_host()
    digest = host.digest(0)
    ((name, confusion_CC),) = host.evaluate(0, Broadcast(1)).confusions.items()
    assert (name, confusion_CC.shape) == ("head", (3, 3))
    assert confusion_CC.sum() == 15
    assert host.digest(0) == digest


def test_an_evaluation_receives_the_broadcast_and_the_next_round_has_the_same_bits(make_host, tiny_federation):
    hosts = [make_host(LGFedAvgConfig()) for _ in range(2)]
    (_, first), (_, _, broadcast) = (
        tiny_federation(LGFedAvgConfig()).method.start(),
        tiny_federation(LGFedAvgConfig()).round(),
    )
    for host in hosts:
        host.run_round(0, first)
    # A head that names class 2 alone.
    head = {"weight": np.zeros((3, 6), np.float32), "bias": np.float32([0, 0, 1])}
    found = hosts[1].evaluate(0, Broadcast(1, {"head": head})).confusions
    assert list(found) == ["head", "trained"]
    assert found["head"].sum(axis=0).tolist() == [0, 0, 15]
    assert found["trained"].sum(axis=0).tolist() != [0, 0, 15]
    # Received for good, the head predicts without a second call.
    uploads = [host.run_round(0, broadcast) for host in hosts]
    assert hosts[0].digest(0) == hosts[1].digest(0)
    assert all(
        np.array_equal(array, uploads[1].payload["head"][name]) for name, array in uploads[0].payload["head"].items()
    )
    hosts[1].finish(0, Broadcast(2, {"head": head}))
    assert hosts[1].evaluate(0, Broadcast(2, {"head": head}), True).confusions["head"].sum(axis=0).tolist() == [
        0,
        0,
        15,
    ]


def test_an_image_of_both_validation_sets_is_classified_once():
    classified = []

    def num_correct(numbers):
        classified.extend(numbers)
        return len({0, 14, 18} & set(numbers))

    assert accuracies(num_correct, np.array([11, 14, 17, 18]), np.array([0, 14, 17])) == [2 / 4, 2 / 3]
    assert sorted(classified) == [0, 11, 14, 17, 18]
    assert accuracies(num_correct, np.array([], dtype=int), np.array([0])) == [None, 1.0]


@pytest.mark.parametrize(
    "found",
    [
        None,
        {},
        {"h": lambda x: x.new_zeros(len(x))},
        {"h": lambda x: x.new_zeros(len(x), 2)},
        {"h": lambda x: x.numpy()},
    ],
    ids=["none", "empty", "vector", "narrow", "numpy"],
)
def test_predictors_of_another_kind_name_the_fault(found, golden, tiny_dataset):
    device = torch.device("cpu")
    with pytest.raises(TypeError) as refused:
        confusions(tiny_dataset.test, checked_predictors(found), num_classes=3, batch_size=500, device=device)
    golden(str(refused.value))


def test_samples_of_another_kind_are_refused(tiny_dataset):
    images, labels_N = torch.zeros(3, 1, 8, 8), torch.arange(3)
    assert drawn_pixels((images, labels_N), tiny_dataset)[1] == [0, 1, 2]
    for wrong in (
        images,
        (images[:0], labels_N[:0]),
        (images, labels_N + 1),
        (images[..., 1:], labels_N),
        (images, [0]),
    ):
        with pytest.raises(TypeError, match=r"images \(N, 1, 8, 8\) and of classes \(N,\) below 3"):
            drawn_pixels(wrong, tiny_dataset)


def test_validation_images_and_probabilities_belong_to_an_evaluation_if_asked_for(
    tiny_config, tiny_dataset, tiny_specs
):
    spec = replace(tiny_specs[2], validation_M=np.array([11, 14, 17, 18]))
    config = tiny_config(LOCAL, evaluate=EvaluateConfig(batch_size=4, ensemble=True))
    dataset = replace(tiny_dataset, validation_M=np.array([0, 14, 17]))
    host = ClientHost(config, dataset, [spec], torch.device("cpu"))
    assert host.run_round(2, Broadcast()).num_images == 3
    # Three of the client's four validation images have class 2, and two of the three of all clients.
    for bias, accuracy, of_all in (([0.0, 99.0, 0.0], 0.0, 0.0), ([0.0, 0.0, 99.0], 0.75, 2 / 3)):
        host._clients.use(2).classifier.head.bias.data = torch.tensor(bias)
        found = host.evaluate(2, Broadcast(1))
        assert (found.validation_accuracy, found.global_validation_accuracy) == (accuracy, of_all)
    assert found.probabilities_NC.shape == (15, 3)
    assert found.probabilities_NC.sum(axis=1) == pytest.approx(np.ones(15))
    counts = np.bincount(found.probabilities_NC.argmax(axis=1), minlength=3)
    assert counts.tolist() == found.confusions["head"].sum(axis=0).tolist()


def test_an_upload_that_is_not_finite_is_refused(make_host, golden):
    # One huge step: the loss before the step is finite, the features after the step are not.
    training = TrainingConfig(epochs=1, batch_size=99, optimizer=OptimizerConfig(name="sgd", lr=1e38))
    host = make_host(FedProtoConfig(), training=training)
    with pytest.raises(ClientError) as raised:
        host.run_round(1, Broadcast(round=2))
    assert (raised.value.client, raised.value.round, raised.value.phase) == (1, 3, "upload")
    golden(raised.value)


def test_a_model_whose_outputs_are_not_finite_is_refused(make_host, golden):
    training = TrainingConfig(epochs=1, batch_size=99, optimizer=OptimizerConfig(name="sgd", lr=1e38))
    host = make_host(training=training)
    with pytest.raises(ClientError) as raised:
        host.run_round(1, Broadcast(round=2))
    assert (raised.value.client, raised.value.round, raised.value.phase) == (1, 3, "outputs")
    golden(raised.value)
    with pytest.raises(ClientError) as raised:
        host.finish(1, Broadcast(round=3))
    assert (raised.value.client, raised.value.round, raised.value.phase) == (1, 4, "outputs")


def test_clients_of_local_have_no_samples_and_no_last_step(make_host):
    host = make_host()
    host.run_round(0, Broadcast())
    digest = host.digest(0)
    assert host.samples(0, Broadcast(1), 2) is None
    assert set(host.finish(0, Broadcast(1))) == {"time/client", "cpu/client", "memory/peak_bytes"}
    assert host.digest(0) == digest


def test_samples_are_pixels_with_labels_and_leave_the_client_unchanged(make_host, tiny_fedvtc, tiny_federation):
    _, _, broadcast = tiny_federation(tiny_fedvtc()).round()
    host = make_host(tiny_fedvtc())
    images, labels = host.samples(0, broadcast, 2)
    assert images.shape == (6, 1, 8, 8)
    assert images.dtype == np.uint8
    assert 0 < images.mean() < 255
    assert labels == [0, 0, 1, 1, 2, 2]
    again, _ = host.samples(0, broadcast, 2)
    assert np.array_equal(images, again)


def test_the_last_step_is_keyed_as_the_round_after_the_last(make_host, tiny_fedvtc, tiny_federation):
    _, _, broadcast = tiny_federation(tiny_fedvtc()).round()
    first, second = make_host(tiny_fedvtc()), make_host(tiny_fedvtc())
    scalars = first.finish(0, broadcast)
    assert {"loss/finetune", "time/finetune"} < set(scalars)
    second.finish(0, Broadcast(5, broadcast.payload))
    assert first.digest(0) != second.digest(0)


def test_every_measurement_of_a_client_is_documented(make_host, tiny_fedvtc, tiny_federation):
    method = tiny_fedvtc(finetune={"when": "both", "real_data": "after"})
    _, _, broadcast = tiny_federation(method).round()
    host = make_host(method)
    scalars = {*host.run_round(0, broadcast).scalars, *host.finish(0, broadcast)}
    named = {re.sub(r"^(cpu|flops|memory)/(?!client$|peak_bytes$).*", r"\1/<phase>", name) for name in scalars}
    assert {"cpu/<phase>", "flops/<phase>", "cpu/client", "memory/peak_bytes"} <= named
    assert named <= set(ROUND_METRICS)


def test_a_host_lives_in_this_process(make_host):
    assert make_host(numbers=[0]).process_id(0) == os.getpid()
    assert 50e6 < peak_memory_bytes() < 64e9


def test_the_inline_pool_keeps_the_order_of_clients_and_restores_threads(tiny_config, tiny_dataset, tiny_specs):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        config = tiny_config(LOCAL, placement=PlacementConfig(pool="inline", threads_per_actor=1))
        with InlinePool(config, tiny_dataset, tiny_specs) as pool:
            assert torch.get_num_threads() == 1
            uploads = list(pool.map(ClientHost.run_round, [2, 0], Broadcast()))
            assert [upload.client for upload in uploads] == [2, 0]
            digests = list(pool.map(ClientHost.digest, [0, 1, 2]))
            assert len(set(digests)) == 3
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_inline_pool_runs_a_client_when_its_result_is_asked_for(tiny_config, tiny_dataset, tiny_specs):
    with InlinePool(tiny_config(LOCAL), tiny_dataset, tiny_specs) as pool:
        before = list(pool.map(ClientHost.digest, [0, 1, 2]))
        next(pool.map(ClientHost.run_round, [0, 1, 2], Broadcast()))
        after = list(pool.map(ClientHost.digest, [0, 1, 2]))
    assert before[0] != after[0]
    assert before[1:] == after[1:]

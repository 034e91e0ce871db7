import os
import re

import numpy as np
import pytest
import torch

from fedvtc.config.operation import PlacementConfig
from fedvtc.config.schema import MethodConfig, OptimizerConfig, TrainingConfig
from fedvtc.errors import ClientError
from fedvtc.learning.exchange.messages import Broadcast
from fedvtc.learning.methods.fedproto import FedProtoConfig
from fedvtc.learning.metrics import ROUND_METRICS
from fedvtc.runtime.host import ClientHost, peak_memory_bytes
from fedvtc.runtime.inline_pool import InlinePool

LOCAL = MethodConfig(name="local")


@pytest.fixture
def make_host(tiny_config, tiny_dataset, tiny_specs):
    def make(method=LOCAL, numbers=(0, 1, 2), **sections):
        specs = [tiny_specs[number] for number in numbers]
        return ClientHost(tiny_config(method, **sections), tiny_dataset, specs, torch.device("cpu"))

    return make


def test_a_round_is_the_one_after_the_broadcast(make_host):
    host = make_host()
    upload = host.run_round(1, Broadcast(round=4))
    assert (upload.client, upload.round, upload.num_images) == (1, 5, 14)
    assert 0 < upload.scalars["time/train"] <= upload.scalars["time/client"]
    assert upload.scalars["memory/peak_bytes"] >= 50e6
    assert upload.scalars["loss/train"] > 0


def test_a_client_works_alike_whoever_it_is_hosted_with(make_host):
    together, alone = make_host(), make_host(numbers=[2])
    for number in (0, 1, 2):
        together.run_round(number, Broadcast())
    alone.run_round(2, Broadcast())
    assert together.digest(2) == alone.digest(2)
    assert together.digest(2) != together.digest(1)
    assert re.fullmatch("[0-9a-f]{64}", alone.digest(2))


def test_evaluation_covers_the_whole_test_set_and_changes_nothing(make_host):
    host = make_host()
    digest = host.digest(0)
    confusion_CC = host.evaluate(0)
    assert confusion_CC.shape == (3, 3)
    assert confusion_CC.sum() == 15
    assert host.digest(0) == digest


def test_an_upload_that_is_not_finite_is_refused_by_name(make_host):
    # One step of an absurd size: the loss before it is finite, the features after it are not.
    training = TrainingConfig(epochs=1, batch_size=99, optimizer=OptimizerConfig(name="sgd", lr=1e38))
    host = make_host(FedProtoConfig(), training=training)
    with pytest.raises(ClientError, match=r"^client 1, round 3, upload: prototypes/mean is not finite$"):
        host.run_round(1, Broadcast(round=2))


def test_a_model_that_its_last_step_broke_is_refused_by_name(make_host):
    training = TrainingConfig(epochs=1, batch_size=99, optimizer=OptimizerConfig(name="sgd", lr=1e38))
    host = make_host(training=training)
    with pytest.raises(ClientError, match=r"^client 1, round 3, outputs: the logits of its own images are not finite$"):
        host.run_round(1, Broadcast(round=2))
    with pytest.raises(ClientError, match=r"^client 1, round 4, outputs: "):
        host.finish(1, Broadcast(round=3))


def test_local_clients_have_nothing_to_show_or_to_finish(make_host):
    host = make_host()
    host.run_round(0, Broadcast())
    digest = host.digest(0)
    assert host.samples(0, Broadcast(1), 2) is None
    assert set(host.finish(0, Broadcast(1))) == {"memory/peak_bytes"}
    assert host.digest(0) == digest


def test_samples_are_pixels_with_labels_and_change_no_classifier(make_host, tiny_fedvtc, tiny_federation):
    _, _, broadcast = tiny_federation(tiny_fedvtc()).round()
    host = make_host(tiny_fedvtc())
    images, labels = host.samples(0, broadcast, 2)
    assert images.shape == (6, 1, 8, 8)
    assert images.dtype == np.uint8
    assert 0 < images.mean() < 255
    assert labels == [0, 0, 1, 1, 2, 2]
    again, _ = host.samples(0, broadcast, 2)
    assert np.array_equal(images, again)


def test_finishing_is_keyed_as_the_round_after_the_last(make_host, tiny_fedvtc, tiny_federation):
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
    assert len(scalars) == 16
    assert scalars <= set(ROUND_METRICS)


def test_it_lives_in_this_process(make_host):
    assert make_host(numbers=[0]).process_id(0) == os.getpid()
    assert 50e6 < peak_memory_bytes() < 64e9


def test_the_inline_pool_gives_results_in_order_and_the_threads_back(tiny_config, tiny_dataset, tiny_specs):
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


def test_the_inline_pool_does_one_task_after_the_other_when_asked(tiny_config, tiny_dataset, tiny_specs):
    with InlinePool(tiny_config(LOCAL), tiny_dataset, tiny_specs) as pool:
        before = list(pool.map(ClientHost.digest, [0, 1, 2]))
        next(pool.map(ClientHost.run_round, [0, 1, 2], Broadcast()))
        after = list(pool.map(ClientHost.digest, [0, 1, 2]))
    assert before[0] != after[0]
    assert before[1:] == after[1:]

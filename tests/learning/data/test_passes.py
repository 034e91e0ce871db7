import pytest
import torch

from fedvtc.config.schema import TrainingConfig
from fedvtc.learning.data.module import epoch_batches
from fedvtc.learning.data.passes import images_in_round, pass_lengths


@pytest.mark.parametrize(
    ("num_images", "training", "lengths", "images"),
    [
        # Batches of 4, 4 and 2.
        (10, {"epochs": 2}, [3, 3], 20),
        (10, {"steps": 2}, [2], 8),
        (10, {"steps": 3}, [3], 10),
        (10, {"steps": 7}, [3, 3, 1], 24),
        (1, {"steps": 3}, [1, 1, 1], 3),
        (0, {"steps": 3}, [], 0),
    ],
)
def test_steps_go_on_through_as_many_passes_as_they_need(num_images, training, lengths, images):
    training = TrainingConfig(batch_size=4, **training)
    assert pass_lengths(num_images, training) == lengths
    assert images_in_round(num_images, training) == images


def test_the_passes_of_a_round_are_whole_shuffled_orders_but_for_the_last(make_client):
    client = make_client(0, training=TrainingConfig(steps=7, batch_size=4))
    with client.phase("train"):
        passes = [torch.cat(list(batches)).tolist() for batches in client.index_passes()]
    assert [len(order) for order in passes] == [10, 10, 4]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(10))
    assert passes[0] != passes[1]
    # As an epoch of the same key, so that steps that fill a pass have its bits.
    with client.phase("train"):
        assert torch.cat(list(epoch_batches(10, 4, torch.default_generator))).tolist() == passes[0]


def test_the_images_are_those_of_the_passes(make_client):
    client = make_client(0, training=TrainingConfig(steps=4, batch_size=4))
    with client.phase("train"):
        index = torch.cat([index_B for batches in client.index_passes() for index_B in batches])
    with client.phase("train"):
        labels = torch.cat([labels_B for batches in client.passes() for _, labels_B in batches])
    assert torch.equal(labels, client.images.labels_N[index])

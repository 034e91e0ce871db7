import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional

from fedvtc.config.schema import DataConfig, MethodConfig, TrainingConfig
from fedvtc.errors import ClientError
from fedvtc.learning.client.loop import keyed_randomness, weights_digest
from fedvtc.learning.data.module import epoch_batches, to_input
from fedvtc.learning.exchange.statistics import FeatureStatistics


def inputs_of(dataset, indices):
    return to_input(torch.tensor(dataset.train.images_NCHW[indices])), torch.tensor(dataset.train.labels_N[indices])


def test_a_client_is_made_from_its_key_alone(make_client):
    torch.manual_seed(1)
    first = make_client(0)
    torch.manual_seed(2)
    assert make_client(0).weights_digest() == first.weights_digest()
    assert make_client(1).weights_digest() != first.weights_digest()


def test_training_is_a_bare_loop_over_its_own_images_bit_for_bit(make_client, tiny_dataset, tiny_specs):
    client, bare = make_client(0, training=TrainingConfig(epochs=2, batch_size=4)), make_client(0).classifier
    images, labels = inputs_of(tiny_dataset, tiny_specs[0].indices_N)
    optimizer = torch.optim.Adam(bare.parameters(), lr=1e-3)
    losses = []
    with keyed_randomness(3, round=1, client=0, purpose="train"):
        for _ in range(2):
            for index_B in epoch_batches(10, 4, torch.default_generator):
                optimizer.zero_grad()
                loss = functional.cross_entropy(bare(images[index_B]), labels[index_B])
                loss.backward()
                optimizer.step()
                losses.append((loss.item(), len(index_B)))
    client.train()
    assert client.weights_digest() == weights_digest(bare)
    # The record is of the last epoch, a mean over images: batches of 4, 4 and 2.
    assert [size for _, size in losses] == [4, 4, 2] * 2
    expected = sum(loss * size for loss, size in losses[3:]) / 10
    assert client.scalars["loss/classification"] == client.scalars["loss/train"] == pytest.approx(expected)
    assert client.scalars["time/train"] > 0


def test_the_optimizer_is_kept_from_round_to_round(make_client):
    kept, forgetful = make_client(0), make_client(0)
    kept.train()
    forgetful.train()
    forgetful._state.learners["classifier"].optimizer.state.clear()
    for client in (kept, forgetful):
        client.begin_round(2)
        client.train()
    assert kept.weights_digest() != forgetful.weights_digest()


def test_draws_depend_on_the_round_and_not_on_what_was_drawn_before(make_client):
    first, second, later = make_client(0), make_client(0), make_client(0)
    torch.rand(100)
    with second.randomness("other"):
        torch.rand(3)
    later.begin_round(2)
    for client in (first, second, later):
        client.train()
    assert first.weights_digest() == second.weights_digest() != later.weights_digest()


def test_augmentation_changes_training_but_not_statistics(make_client):
    plain, shifted = make_client(0), make_client(0, data=DataConfig(augment="shift"))
    assert np.array_equal(plain.statistics("scalar").mean_KD, shifted.statistics("scalar").mean_KD)
    plain.train()
    shifted.train()
    assert plain.weights_digest() != shifted.weights_digest()


@pytest.mark.parametrize("form", ["scalar", "client_diagonal", "class_diagonal", "class_full"])
def test_statistics_are_of_the_trained_model_on_its_own_images(make_client, tiny_dataset, tiny_specs, form):
    client = make_client(0)
    client.train()
    statistics = client.statistics(form)
    images, labels = inputs_of(tiny_dataset, tiny_specs[0].indices_N)
    with torch.no_grad():
        expected = FeatureStatistics.of(client.classifier.features(images).numpy(), labels.numpy(), form)
    assert statistics.classes_K.tolist() == [0, 1]
    assert statistics.count_K.tolist() == [5, 5]
    np.testing.assert_allclose(statistics.mean_KD, expected.mean_KD, atol=1e-6)
    np.testing.assert_allclose(statistics.scatter, expected.scatter, rtol=1e-4, atol=1e-5)


def test_statistics_are_of_eval_mode(make_client, tiny_dataset, tiny_specs):
    client = make_client(0)
    client.classifier.backbone.trunk.append(torch.nn.Dropout(0.5))
    client.train()
    assert client.classifier.training
    mean_D = client.statistics("scalar").mean_KD[0]
    images, labels = inputs_of(tiny_dataset, tiny_specs[0].indices_N)
    with torch.no_grad():
        measured, dropped = (client.classifier.train(mode).features(images[labels == 0]) for mode in (False, True))
    np.testing.assert_allclose(mean_D, measured.mean(dim=0), atol=1e-6)
    assert not np.allclose(mean_D, dropped.mean(dim=0), atol=1e-2)


def test_a_confusion_matrix_counts_every_test_image_once(make_client, tiny_dataset):
    client = make_client(1)
    client.train()
    confusion_CC = client.confusions(tiny_dataset.test, {"head": client.classifier})["head"]
    assert confusion_CC.sum() == 15
    assert confusion_CC.sum(axis=1).tolist() == [5, 5, 5]
    with torch.no_grad():
        inputs = to_input(torch.tensor(tiny_dataset.test.images_NCHW))
        predicted_N = client.classifier.eval()(inputs).argmax(dim=1).numpy()
    for label, predicted in np.ndindex(3, 3):
        both = (tiny_dataset.test.labels_N == label) & (predicted_N == predicted)
        assert confusion_CC[label, predicted] == both.sum()


def test_training_after_evaluation_works_and_is_in_train_mode(make_client, tiny_dataset):
    client = make_client(1)
    client.confusions(tiny_dataset.test, {"head": client.classifier})["head"]
    assert not client.classifier.training
    before = client.weights_digest()
    client.train()
    assert client.classifier.training
    assert client.weights_digest() != before


def test_further_training_does_not_overwrite_the_record_of_local_training(make_client):
    client = make_client(0)
    client.train()
    before = client.scalars["loss/classification"]
    client.train(phase="finetune_real")
    assert client.scalars["loss/classification"] == before
    assert client.scalars["loss/finetune_real"] < before


def test_a_client_error_survives_pickling():
    error = pickle.loads(pickle.dumps(ClientError(7, 3, "train", "loss is nan")))
    assert (error.client, error.round, error.phase, error.reason) == (7, 3, "train", "loss is nan")
    assert str(error) == "client 7, round 3, train: loss is nan"


def test_a_new_round_starts_with_an_empty_record(make_client):
    client = make_client(0, method=MethodConfig(name="local"))
    client.train()
    client.begin_round(2)
    assert client.scalars == {}
    assert client.round == 2

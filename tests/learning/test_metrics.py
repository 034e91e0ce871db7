import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from fedvtc.learning.metrics import (
    CLIENT_METRICS,
    FURTHER_METRICS,
    ROUND_METRICS,
    TEST_METRICS,
    aggregate,
    evaluate_confusion,
)


def test_hand_worked_client():
    # 10 test images of each class; the client trained on 3 of class 0 and 1 of class 1, and never predicts class 2.
    confusion_CC = np.array([[8, 2, 0], [5, 5, 0], [7, 3, 0]])
    metrics = evaluate_confusion(confusion_CC, np.array([3, 1, 0]))
    assert metrics == pytest.approx(
        {
            "accuracy": 13 / 30,
            "accuracy/held": 13 / 20,
            "accuracy/missing": 0.0,
            "accuracy/personalised": 0.75 * 0.8 + 0.25 * 0.5,
            "recall/worst": 0.0,
            "precision": (8 / 20 + 5 / 10 + 0) / 3,
            "recall": (0.8 + 0.5 + 0.0) / 3,
            "f1": (16 / 30 + 10 / 20 + 0) / 3,
        }
    )
    assert list(metrics) == list(CLIENT_METRICS)


def test_an_undefined_metric_is_none():
    confusion_CC = np.array([[4, 1], [2, 3]])
    every_class = evaluate_confusion(confusion_CC, np.array([1, 1]))
    assert every_class["accuracy/missing"] is None
    assert every_class["accuracy/held"] == every_class["accuracy"] == 0.7
    no_image = evaluate_confusion(confusion_CC, np.array([0, 0]))
    assert no_image["accuracy/held"] is None
    assert no_image["accuracy/personalised"] is None
    assert no_image["accuracy/missing"] == 0.7


def test_held_accuracy_weighs_test_images_not_classes():
    metrics = evaluate_confusion(np.array([[90, 10, 0], [10, 0, 0], [0, 0, 5]]), np.array([1, 1, 0]))
    assert metrics["accuracy/held"] == pytest.approx(90 / 110)
    assert metrics["accuracy/missing"] == 1.0


def test_classes_without_a_test_image_are_left_out():
    metrics = evaluate_confusion(np.array([[6, 0, 4], [0, 0, 0], [0, 0, 10]]), np.array([5, 5, 0]))
    assert metrics["recall/worst"] == 0.6
    assert metrics["recall"] == pytest.approx(0.8)
    assert metrics["accuracy/personalised"] == pytest.approx(0.6)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_classes=st.integers(2, 7), num_images=st.integers(1, 60))
def test_macro_metrics_agree_with_scikit_learn(seed, num_classes, num_images):
    rng = np.random.default_rng(seed)
    true_N = rng.integers(num_classes, size=num_images)
    predicted_N = np.where(rng.random(num_images) < 0.5, true_N, rng.integers(num_classes, size=num_images))
    confusion_CC = confusion_matrix(true_N, predicted_N, labels=range(num_classes))
    metrics = evaluate_confusion(confusion_CC, np.ones(num_classes))
    expected = precision_recall_fscore_support(
        true_N, predicted_N, labels=np.unique(true_N), average="macro", zero_division=0
    )[:3]
    assert [metrics["precision"], metrics["recall"], metrics["f1"]] == pytest.approx(list(expected), abs=1e-12)
    assert metrics["accuracy"] == pytest.approx((true_N == predicted_N).mean())


def test_personalised_accuracy_is_the_accuracy_on_a_test_set_like_the_clients_data():
    rng = np.random.default_rng(0)
    confusion_CC, train_counts_C = rng.integers(1, 50, size=(4, 4)), np.array([30, 0, 10, 60])
    # Test images drawn anew in the client's own mix, each right with its class's recall.
    recall_C = np.diagonal(confusion_CC) / confusion_CC.sum(axis=1)
    labels_N = rng.choice(4, size=200_000, p=train_counts_C / 100)
    simulated = (rng.random(len(labels_N)) < recall_C[labels_N]).mean()
    metrics = evaluate_confusion(confusion_CC, train_counts_C)
    assert metrics["accuracy/personalised"] == pytest.approx(simulated, abs=0.005)


def test_impossible_confusions_are_refused():
    with pytest.raises(ValueError, match="does not fit"):
        evaluate_confusion(np.ones((2, 3)), np.ones(2))
    with pytest.raises(ValueError, match="does not fit"):
        evaluate_confusion(np.ones((2, 2)), np.ones(3))
    with pytest.raises(ValueError, match="no test image"):
        evaluate_confusion(np.zeros((2, 2)), np.ones(2))


def test_hand_worked_aggregate():
    clients = [{"accuracy": 0.2, "accuracy/missing": None}, {"accuracy": 0.6, "accuracy/missing": 0.5}]
    assert aggregate(clients) == pytest.approx(
        {
            "test/accuracy/mean": 0.4,
            "test/accuracy/std": 0.2,
            "test/accuracy/min": 0.2,
            "test/accuracy/worst10": 0.2,
            "test/accuracy/missing/mean": 0.5,
        }
    )


@pytest.mark.parametrize(("num_clients", "num_worst"), [(1, 1), (9, 1), (10, 1), (11, 2), (30, 3), (200, 20)])
def test_the_worst_tenth_is_rounded_up(num_clients, num_worst):
    clients = [{"accuracy": rank / num_clients} for rank in reversed(range(num_clients))]
    expected = np.mean([rank / num_clients for rank in range(num_worst)])
    assert aggregate(clients)["test/accuracy/worst10"] == pytest.approx(expected)


def test_no_client_is_refused():
    with pytest.raises(ValueError, match="no client"):
        aggregate([])


def test_a_whole_evaluation_has_every_name_of_the_table():
    clients = [evaluate_confusion(np.array([[3, 1], [2, 2]]), np.array([1, 0])) for _ in range(3)]
    assert aggregate(clients).keys() == TEST_METRICS.keys()


def test_docs_and_tables_name_the_same_metrics():
    page = (Path(__file__).parents[2] / "docs/metrics.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", page, flags=re.MULTILINE))
    assert documented == CLIENT_METRICS | TEST_METRICS | FURTHER_METRICS | ROUND_METRICS

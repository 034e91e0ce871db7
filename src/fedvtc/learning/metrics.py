"""Metrics of clients and rounds, and their names in records.

All accuracies come from one confusion matrix per client: rows are true classes, columns predicted ones.
Generalization accuracy is the accuracy of a client's own model on the whole global test set; the measure of a
federation is its mean over clients.

Shape suffix: C classes of the data set.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.learning.privacy.memorisation import MEMORISATION

INCIDENTS = {
    "processes_lost": "processes that died, hung or ran out of memory; their clients were rebuilt",
    "steps_retried": "steps of clients that were retried after an error",
    "clients_skipped": "clients that were skipped in a round after an error",
    "checkpoints_failed": "checkpoints that could not be written",
    "checkpoints_damaged": "damaged checkpoints that were skipped",
    "disk_errors": "records or pictures that could not be written at once",
}
"""Meaning of each kind of incident."""

CLIENT_METRICS = {
    "accuracy": "generalization accuracy: share of all test images that the client's model classifies correctly",
    "accuracy/held": "accuracy on test images of classes that the client has training images of",
    "accuracy/missing": "accuracy on test images of classes that the client has no training image of",
    "accuracy/personalised": "class recalls weighted by the client's training labels: accuracy on that class mix",
    "recall/worst": "lowest recall of any class",
    "precision": "precision, mean over the classes of the test set; 0 for a class that is never predicted",
    "recall": "recall, mean over the classes of the test set",
    "f1": "F1, mean over the classes of the test set; 0 for a class without a correct prediction",
}
"""Meaning of the metric columns of clients.csv, in order; all values are in [0, 1]."""

SPREAD_METRICS = {
    "test/accuracy/std": "standard deviation of generalization accuracy over clients (population form)",
    "test/accuracy/min": "generalization accuracy of the worst client",
    "test/accuracy/worst10": "mean generalization accuracy of the worst tenth of the clients, rounded up",
}

TEST_METRICS = {f"test/{name}/mean": f"mean over clients: {meaning}" for name, meaning in CLIENT_METRICS.items()}
TEST_METRICS |= SPREAD_METRICS
"""Meaning of the keys of an evaluation record."""

FURTHER_METRICS = {
    "accuracy/<predictor>": "generalization accuracy of another way to predict: `trained` is the model before it"
    " received the newest broadcast; a method's page names others, such as `prototype`",
    "validation/accuracy": "share of the client's validation images that are classified correctly; with"
    " `evaluate.validation_share`",
    "validation/global/accuracy": "share of the validation images of all clients that the client classifies correctly;"
    " with `evaluate.validation_share`",
}
"""Further columns of clients.csv."""
VALIDATION = ("validation/accuracy/mean", "validation/global/accuracy/mean")
"""Names of the records' metrics of validation images."""
EVALUATED_CLIENTS = "test/clients"
"""Name of the number of evaluated clients, in the records of a run with a sample."""
FURTHER_METRICS |= {
    EVALUATED_CLIENTS: "number of evaluated clients, over which all means of the record are; with a sample of"
    " `evaluate.clients`",
    "test/accuracy/<predictor>/mean": f"mean over clients: {FURTHER_METRICS['accuracy/<predictor>']}",
    **{name: f"mean over clients: {FURTHER_METRICS[name.removesuffix('/mean')]}" for name in VALIDATION},
    "test/ensemble/mean": "accuracy of the mean of all clients' probabilities; with `evaluate.ensemble`",
    "test/ensemble/vote": "accuracy of the class that most clients name, on a tie that of the highest mean probability;"
    " with `evaluate.ensemble`",
}
FURTHER_METRICS |= MEMORISATION
"""Meaning of the keys that some methods or settings add; `<predictor>` stands for the name of a predictor."""

HEADLINE_METRICS = {
    "accuracy": "test/accuracy/mean",
    "worst": "test/accuracy/min",
    "held": "test/accuracy/held/mean",
    "missing": "test/accuracy/missing/mean",
}
"""Metrics of one-line summaries: key of an evaluation record by column heading, in order."""

ROUND_METRICS = {
    "loss/train": "whole loss of local training, its terms weighted",
    "loss/classification": "cross-entropy on the client's own images",
    "loss/prototype": "squared distance of features from the global prototypes, unweighted",
    "loss/proximal": "squared distance of all weights from the received weights, unweighted",
    "loss/target": "squared distance of logits or features from the targets of their class, unweighted",
    "loss/quiz": "cross-entropy on the quiz after a step towards the targets",
    "loss/generated": "cross-entropy of the head on generated features, unweighted",
    "loss/distillation": "divergence of predictions from those of a teacher, unweighted",
    "loss/generator": "whole loss of the generator, its terms weighted",
    "loss/reconstruction": "squared error of generated images against real ones, summed over pixels",
    "loss/kl": "divergence of a client's latents from their prior, unweighted",
    "loss/distribution_matching": "squared distance of generated images' mean features from the prototypes, unweighted",
    "loss/synthetic": "cross-entropy on generated images in a round",
    "loss/finetune": "cross-entropy of fine-tuning on generated images",
    "loss/finetune_real": "whole loss of training on real images after fine-tuning",
    "loss/soft_labels": "cross-entropy with the mean predictions of the other clients, unweighted",
    "loss/mutual": "divergence of the client's predictions from those of its proxy, unweighted",
    "loss/hidden": "squared distance of the client's features from those of its proxy, unweighted",
    "loss/ranking": "excess of logits outside the proxy's sets of labels over logits inside, unweighted",
    "loss/anchor_logits": "cross-entropy with the softmax of mean logits of the image's class",
    "loss/anchor_features": "squared distance of features from mean features of the image's class",
    "loss/proxy_<term>": "a term of the proxy's loss, such as classification",
    "loss/proxy": "whole loss of a proxy that trains in a phase of its own",
    "loss/zones": "whole loss of training on mixed images",
    "loss/server/<phase>": "whole loss of the server's training in a phase",
    "bytes/up/<kind>": "bytes that all participants together sent, by payload kind, such as prototypes or generator",
    "bytes/down/<kind>": "bytes that all participants together received, by payload kind",
    "bytes/up/closing/<kind>": "bytes that all clients together sent in the closing exchange, after the last round",
    "bytes/down/closing/<kind>": "bytes that all clients together received at the end of the closing exchange",
    "privacy/epsilon": "largest epsilon of a client's messages so far; needs `method.privacy.training_noise`",
    "privacy/epsilon_statistics": "epsilon of a client's statistics alone, no guarantee for the run",
    "time/train": "seconds of local training, summed over participants",
    "time/statistics": "seconds of feature statistics, summed over participants",
    "time/targets": "seconds of gradients of targets, summed over participants",
    "time/generator": "seconds of generator training, summed over participants",
    "time/synthetic": "seconds of training on generated images in a round, summed over participants",
    "time/finetune": "seconds of fine-tuning, summed over participants",
    "time/finetune_real": "seconds of training on real images after fine-tuning, summed over participants",
    "time/<phase>": "seconds of a method's own phase, such as proxy or search, summed over participants",
    "time/client": "seconds of a client's whole round, summed over participants",
    "time/server/<phase>": "seconds of a phase of the server",
    "time/evaluate": "seconds of evaluation, wall clock",
    "time/round": "seconds of the whole round, wall clock",
    "time/makespan": "seconds of all clients of the busiest process",
    "time/makespan/predicted": "prediction of time/makespan from earlier rounds; absent in the first round",
    "cpu/<phase>": "CPU seconds of a phase of the clients, summed over participants",
    "cpu/client": "CPU seconds of a client's whole round, summed over participants",
    "cpu/server/<phase>": "CPU seconds of a phase of the server",
    "cpu/server": "CPU seconds of the server's whole half of the round, without those of clients in its process",
    "flops/<phase>": "floating-point operations of a phase of the clients, summed over participants",
    "flops/server/<phase>": "floating-point operations of a phase of the server",
    "placement/actors": "processes that host clients",
    "memory/peak_bytes": "largest resident memory of any process that hosts clients",
    "memory/gpu_peak_bytes": "largest memory that PyTorch took on the GPU of any process that hosts clients",
    "memory/coordinator_peak_bytes": "largest resident memory of the coordinator's process",
    "memory/<phase>": "largest resident memory during a phase of any process that hosts clients",
    "memory/server/<phase>": "largest resident memory of the coordinator's process during a phase of the server",
    "memory/evaluate": "largest resident memory during an evaluation of any process that hosts clients",
    "memory/gpu/<phase>": "largest memory that PyTorch took on a GPU during a phase or an evaluation",
    "clients/participating": "clients whose upload entered the round; in the final record, clients after a last step",
}
ROUND_METRICS |= {f"incidents/{kind}": meaning for kind, meaning in INCIDENTS.items()}
"""Meaning of the keys of a round's record; `<kind>` stands for any payload kind, `<phase>` for a method's phase,
`<term>` for a term of a loss."""

MEASURED = ("time/", "cpu/", "flops/", "memory/", "placement/")
"""Starts of the keys of costs, which may differ between two runs of one config."""
SUMMED = ("time/", "cpu/", "flops/")
"""Starts of the keys of costs that add up over clients."""


def evaluate_confusion(confusion_CC: NDArray[Any], train_counts_C: NDArray[Any]) -> dict[str, float | None]:
    """Computes all metrics of one client.

    Classes without a test image are left out of every metric, so a test set need not hold every class.

    Args:
        confusion_CC: test images by true class (row) and predicted class (column).
        train_counts_C: the client's training images by class.

    Returns:
        One value per name of `CLIENT_METRICS`; None for an undefined metric, such as `accuracy/missing` of a client
        that holds every class.

    Raises:
        ValueError: the shapes do not fit, or there is no test image.
    """
    confusion_CC = np.asarray(confusion_CC, dtype=np.float64)
    train_counts_C = np.asarray(train_counts_C, dtype=np.float64)
    if confusion_CC.ndim != 2 or confusion_CC.shape != train_counts_C.shape * 2:
        raise ValueError(f"a confusion matrix of {confusion_CC.shape} does not fit {train_counts_C.shape} class counts")
    right_C = np.diagonal(confusion_CC)
    true_C, predicted_C = confusion_CC.sum(axis=1), confusion_CC.sum(axis=0)
    tested_C = true_C > 0
    if not tested_C.any():
        raise ValueError("the confusion matrix holds no test image")
    held_C = train_counts_C > 0
    recall_C = _ratio(right_C, true_C)
    precision_C = _ratio(right_C, predicted_C)
    f1_C = _ratio(2 * right_C, true_C + predicted_C)
    return {
        "accuracy": float(right_C.sum() / true_C.sum()),
        "accuracy/held": _weighted_mean(recall_C, true_C * held_C),
        "accuracy/missing": _weighted_mean(recall_C, true_C * ~held_C),
        "accuracy/personalised": _weighted_mean(recall_C, train_counts_C * tested_C),
        "recall/worst": float(recall_C[tested_C].min()),
        "precision": float(precision_C[tested_C].mean()),
        "recall": float(recall_C[tested_C].mean()),
        "f1": float(f1_C[tested_C].mean()),
    }


def aggregate(per_client: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """Computes the record of one evaluation: means over clients, and the spread of generalization accuracy.

    Args:
        per_client: values of `evaluate_confusion` for each client, `accuracy/NAME` of further predictors, and
            `validation/...`; other keys are ignored.

    Returns:
        Values by the names of `TEST_METRICS` and `FURTHER_METRICS`. A value of None is skipped, and a metric that no
        client has is absent.

    Raises:
        ValueError: there is no client.
    """
    if not per_client:
        raise ValueError("no client to aggregate over")
    record: dict[str, float] = {}
    others = [name for name in per_client[0] if name.startswith("accuracy/") and name not in CLIENT_METRICS]
    for name in (*CLIENT_METRICS, *others):
        values = [value for metrics in per_client if (value := metrics.get(name)) is not None]
        if values:
            record[f"test/{name}/mean"] = float(np.mean(values))
        if values and name == "accuracy":
            ascending = np.sort(values)
            record["test/accuracy/std"] = float(ascending.std())
            record["test/accuracy/min"] = float(ascending[0])
            record["test/accuracy/worst10"] = float(ascending[: -(-len(ascending) // 10)].mean())
    for name in VALIDATION:
        column = name.removesuffix("/mean")
        if validated := [value for metrics in per_client if (value := metrics.get(column)) is not None]:
            record[name] = float(np.mean(validated))
    return record


def _ratio(numerator_C: NDArray[np.float64], denominator_C: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(numerator_C, denominator_C, out=np.zeros_like(numerator_C), where=denominator_C > 0)


def _weighted_mean(values_C: NDArray[np.float64], weights_C: NDArray[np.float64]) -> float | None:
    total = weights_C.sum()
    return float((values_C * weights_C).sum() / total) if total > 0 else None

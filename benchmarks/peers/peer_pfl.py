"""The work of `work.py` through pfl: users as tensors in memory, one process, the sum of updates formed in place.

pfl builds a new optimizer for each user, and walks through fixed batches of views: it does not shuffle.
"""

from functools import partial

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch.nn import functional
from work import BATCH_SIZE, LEARNING_RATE, MOMENTUM, PARTICIPANTS, Cnn, Turns, clients, new_model

MANY_ROUNDS = 1_000_000


class Module(torch.nn.Module):
    """The model with the two functions that pfl calls."""

    def __init__(self, model: Cnn) -> None:
        super().__init__()
        self.model = model

    def loss(self, images, labels):
        return functional.cross_entropy(self.model(images), labels)

    def metrics(self, images, labels):
        return {"loss": Weighted(float(self.loss(images, labels)) * len(labels), len(labels))}


class RoundsOnCommand(TrainingProcessCallback):
    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_train_begin(self, *, model):
        self.turns.wait()
        return Metrics()

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        return not self.turns.wait(), Metrics()


def main() -> None:
    turns = Turns()
    users = {user: PyTorchTensorDataset(tensors, user_id=user) for user, tensors in enumerate(clients())}
    sampler = get_user_sampler("minimize_reuse", list(users))
    dataset = FederatedDataset(users.__getitem__, sampler)
    backend = SimulatedBackend(training_data=dataset, val_data=dataset, postprocessors=[WeightByDatapoints()])
    module = Module(new_model())
    local_optimizer = partial(torch.optim.SGD, momentum=MOMENTUM)
    model = PyTorchModel(module, local_optimizer, torch.optim.SGD(module.parameters(), lr=1.0))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=MANY_ROUNDS,
            evaluation_frequency=MANY_ROUNDS,
            train_cohort_size=PARTICIPANTS,
            val_cohort_size=None,
        ),
        backend=backend,
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=LEARNING_RATE, local_batch_size=BATCH_SIZE
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[RoundsOnCommand(turns)],
        send_metrics_to_platform=False,
    )
    turns.end([weight.detach().numpy() for weight in module.parameters()])


if __name__ == "__main__":
    main()

"""FedL2G: the server learns a target for the logits of each class, by the gradient through a step of the clients.

Source: J. Zhang et al., "FedL2G: Learning to Guide Local Training in Heterogeneous Federated Learning", 2024
(arXiv 2410.06490).

Shapes: B images, C classes, K classes of a batch, D entries of a target: logits or features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from fedvtc.config.schema import MethodConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Arrays, Broadcast, Upload
from fedvtc.learning.methods.base import Method, ServerState
from fedvtc.learning.seeding import SERVER, numpy_generator

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.models.lookahead import Outputs, Weights
    from fedvtc.learning.server import Server

_LARGEST_NORM = 100.0
"""The server scales a larger gradient of all targets down to this norm, as the published code does."""


@section
class FedL2GConfig(MethodConfig):
    """The keys of FedL2G."""

    name: str = "fedl2g"
    target: Literal["logits", "features"] = "logits"
    """The targets guide `logits` (FedL2G-l) or `features` (FedL2G-f)."""
    server_lr: Annotated[float | None, Field(gt=0)] = None
    """Rate of the server's steps on the targets; null takes 0.1 for logits and 100 for features."""
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the rounds, rounded down, in which the server learns targets and no client trains."""

    def warm_up_rounds(self, num_rounds: int) -> int:
        """Returns the number of rounds of the warm-up."""
        # The decimal share: as a float, 0.29 of 100 rounds is a little less than 29.
        return int(Fraction(str(self.warm_up)) * num_rounds)


class FedL2G(Method[FedL2GConfig]):
    """Uploads gradients of the targets, measured on held-out images of the client; broadcasts the targets."""

    config_class = FedL2GConfig

    def start(self) -> tuple[ServerState, Broadcast]:
        """Draws the targets from a standard normal distribution."""
        generator = numpy_generator(self.task.seed, round=0, client=SERVER, purpose="targets")
        targets_CD = generator.standard_normal((self.task.num_classes, self._target_size), dtype=np.float32)
        return _sent(targets_CD, round=0)

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Trains on CE + mean_j (f(x)_j - v_j^y)^2 after the warm-up, then measures the gradient of the targets.

        The quiz is a batch of own images, held out for the whole run; the study has the other images. A client with
        fewer images than two batches has all images in both.
        """
        import torch

        from fedvtc.learning.models.lookahead import guided_loss, target_gradients

        targets_CD = torch.tensor(broadcast.payload["targets"]["mean"], device=client.device)
        outputs = self._outputs(client)
        weights: dict[str, Tensor] = dict(client.classifier.named_parameters())
        study_N, quiz_N = self._split(client)

        def loss(images: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
            return guided_loss(*outputs(weights, images), labels_B, targets_CD)

        if client.round > self.config.warm_up_rounds(self.task.num_rounds):
            with client.phase("train"):
                for index_batches in client.index_passes(len(study_N)):
                    client.fit("classifier", _batches(client, study_N, index_batches), loss=loss)
        with client.phase("targets"):
            study = next(_batches(client, study_N, next(client.index_passes(len(study_N)))))
            quiz = _images(client, quiz_N)
            client.classifier.eval()
            fixed = {name: weight.detach() for name, weight in weights.items()}
            measure = partial(target_gradients, outputs, fixed, study, quiz, targets_CD, lr=self.task.optimizer.lr)
            gradient_BD, quiz_loss = client.counted("gradients", len(study[1]) + len(quiz[1]), measure)
        client.scalars["loss/quiz"] = quiz_loss
        gradients = _by_class(gradient_BD.cpu().numpy(), study[1].cpu().numpy())
        return client.upload({"gradients": gradients})

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Steps the targets: v^y <- v^y - eta_s * mean of the gradients of the clients that sent y."""
        targets_CD = state["targets"]["mean"]
        sum_CD, num_senders_C = np.zeros(targets_CD.shape), np.zeros(len(targets_CD))
        for upload in uploads:
            gradients = upload.payload["gradients"]
            sum_CD[gradients["classes"]] += gradients["gradient"]
            num_senders_C[gradients["classes"]] += 1
        gradient_CD = sum_CD / np.maximum(num_senders_C, 1)[:, None]
        gradient_CD *= min(1.0, _LARGEST_NORM / max(float(np.linalg.norm(gradient_CD)), 1e-12))
        return _sent((targets_CD - self._server_lr * gradient_CD).astype(np.float32), server.round)

    def largest_upload(self) -> Upload:
        """Builds an upload with gradients of all classes."""
        num_classes = self.task.num_classes
        gradients = _by_class(np.zeros((num_classes, self._target_size), dtype=np.float32), np.arange(num_classes))
        return replace(super().largest_upload(), payload={"gradients": gradients})

    @property
    def _target_size(self) -> int:
        return self.task.num_classes if self.config.target == "logits" else self.task.feature_size

    @property
    def _server_lr(self) -> float:
        defaults = {"logits": 0.1, "features": 100.0}
        return defaults[self.config.target] if self.config.server_lr is None else self.config.server_lr

    def _split(self, client: FederatedClient) -> tuple[Tensor, Tensor]:
        """Returns the indices of the study and of the quiz, equal in all rounds."""
        import torch

        if client.num_images < 2 * self.task.batch_size:
            return torch.arange(client.num_images), torch.arange(client.num_images)
        generator = numpy_generator(self.task.seed, round=0, client=client.id, purpose="quiz")
        order_N = torch.from_numpy(generator.permutation(client.num_images))
        return order_N[self.task.batch_size :], order_N[: self.task.batch_size]

    def _outputs(self, client: FederatedClient) -> Outputs:
        """Returns the client's model as a function of its weights and of images."""
        from torch.func import functional_call

        backbone, head = client.classifier.backbone, client.classifier.head

        def outputs(weights: Weights, images: Tensor) -> tuple[Tensor, Tensor]:
            features_BD = functional_call(backbone, _part(weights, "backbone."), (images,))
            logits_BC = functional_call(head, _part(weights, "head."), (features_BD,))
            return logits_BC, logits_BC if self.config.target == "logits" else features_BD

        return outputs


def _part(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}


def _batches(client: FederatedClient, index_N: Tensor, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields augmented images and labels of batches of places in `index_N`."""
    return client.images.batches(index_N[batch_B] for batch_B in batches)


def _images(client: FederatedClient, index_B: Tensor) -> tuple[Tensor, Tensor]:
    return client.images.inputs(index_B), client.images.labels_N[index_B]


def _by_class(gradient_BD: NDArray[np.float32], labels_B: NDArray[np.int64]) -> Arrays:
    """Sums the rows of each class."""
    classes_K, row_B = np.unique(labels_B, return_inverse=True)
    gradient_KD = np.zeros((len(classes_K), gradient_BD.shape[1]), dtype=np.float32)
    np.add.at(gradient_KD, row_B, gradient_BD)
    return {"classes": classes_K, "gradient": gradient_KD}


def _sent(targets_CD: NDArray[np.float32], round: int) -> tuple[ServerState, Broadcast]:
    payload = {"targets": {"mean": targets_CD}}
    return payload, Broadcast(round, payload)


METHOD = FedL2G

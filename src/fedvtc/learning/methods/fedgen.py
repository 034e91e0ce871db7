"""FedGen: the server trains a generator of features against the clients' heads; the generator teaches the clients.

Source: Z. Zhu et al., "Data-Free Knowledge Distillation for Heterogeneous Federated Learning", ICML 2021
(arXiv 2105.10056), in the setting of its Table 4: clients share the last layer alone.

Shapes: K clients, B rows of a batch, C classes, D features, L entries of a noise vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from fedvtc.config.schema import MethodConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Broadcast, Payload, Upload, WeightedMean
from fedvtc.learning.methods._shared_head import first_head, receive_head
from fedvtc.learning.methods.base import Method, ServerState

if TYPE_CHECKING:
    from torch import Tensor

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.models.feature_nets import FeatureGenerator
    from fedvtc.learning.server import Server

_DECAY = 0.98
"""Factor per round of the learning rate and of the weights of the generated terms."""
_GUIDED_PASSES = 20
"""Passes of a round with generated terms, as in the authors' code."""


@section
class FedGenConfig(MethodConfig):
    """The keys of FedGen."""

    name: str = "fedgen"
    terms: Literal["code", "paper"] = "code"
    """Generated terms of a client's loss. `paper`: cross-entropy of the head on generated features, with weight 1
    (equation 5). `code`: also the divergence of the model's predictions from those of the head on generated features
    of the image's class, both with weight 10 * 0.98^round."""
    ensemble: Literal["labels", "logits"] = "labels"
    """Teacher of the generator. `labels`: cross-entropy of each head, weighted by the client's share of the images of
    the class (the authors' code). `logits`: cross-entropy of the mean logits of all heads (equation 4)."""
    noise_size: Annotated[int, Field(ge=1)] = 32
    """Entries of a noise vector."""
    hidden_size: Annotated[int, Field(ge=1)] = 256
    """Width of the generator's hidden layer."""
    diversity: Annotated[float, Field(ge=0)] = 1.0
    """Weight eta of the diversity loss."""
    server_steps: Annotated[int, Field(ge=1)] = 50
    """Steps of the generator in a round."""
    server_batch_size: Annotated[int, Field(ge=1)] = 32
    """Generated features in a step of the generator."""
    server_lr: Annotated[float, Field(gt=0)] = 3e-4
    """Learning rate of the generator's Adam in the first round."""
    server_weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """L2 penalty of the generator."""


class FedGen(Method[FedGenConfig]):
    """Uploads heads and label counts; broadcasts the mean head, the generator and the mix of labels."""

    config_class = FedGenConfig

    def start(self) -> tuple[ServerState, Broadcast]:
        """Draws the head with which all clients start; no generator is sent before the server has trained one."""
        return {}, Broadcast(0, {"head": first_head(self.task)})

    def receive(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Replaces the client's head by the mean head."""
        receive_head(client, broadcast)

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Trains with the generated terms from round 2 on, and uploads the trained head and the label counts."""
        from fedvtc.learning.models.weights import weights_of

        if "generator" in broadcast.payload:
            loss = self._loss(client, broadcast)
            with client.phase("train"):
                for number, batches in enumerate(client.passes()):
                    client.fit("classifier", batches, loss=loss if number < _GUIDED_PASSES else None)
        else:
            client.train()
        count_C = client.images.counts_C(self.task.num_classes)
        payload: Payload = {"head": weights_of(client.classifier.head), "labels": {"count": count_C.astype(np.int32)}}
        return client.upload(payload)

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Averages the heads, weighted by images, and trains the generator on the heads as uploaded."""
        import torch

        from fedvtc.learning.models.weights import load_optimizer, load_weights, optimizer_arrays, weights_of

        mean, weights, biases, counts = WeightedMean(), [], [], []
        shares = dict(state.get("shares", {}))
        for upload in uploads:
            head = upload.payload["head"]
            mean.add(head, upload.num_images)
            weights.append(torch.tensor(head["weight"]))
            biases.append(torch.tensor(head["bias"]))
            counts.append(torch.tensor(upload.payload["labels"]["count"], dtype=torch.float32))
            shares[f"{upload.client:06d}"] = (counts[-1] / counts[-1].sum()).numpy()
        count_KC = torch.stack(counts)
        # Of all clients that have ever taken part: a client learns from the classes of the whole federation.
        mix_C = torch.tensor(np.stack([shares[client] for client in sorted(shares)])).mean(dim=0)
        # A class that no participant of this round holds has no teacher.
        taught_C = mix_C * (count_KC.sum(dim=0) > 0)

        generator = self._new_generator()
        rate = self.config.server_lr * _DECAY ** (server.round - 1)
        optimizer = torch.optim.Adam(generator.parameters(), lr=rate, weight_decay=self.config.server_weight_decay)
        if state:
            load_weights(generator, state["generator"])
            load_optimizer(optimizer, state["optimizer"])
        loss = self._generator_loss(generator, torch.stack(weights), torch.stack(biases), count_KC)
        with server.phase("generator"):
            server.fit(generator, self._draws(generator, taught_C), loss, optimizer)
        sent = {"generator": weights_of(generator), "labels": {"mix": mix_C.numpy()}}
        next_state = {"generator": sent["generator"], "optimizer": optimizer_arrays(optimizer), "shares": shares}
        return next_state, Broadcast(server.round, {"head": mean.value(), **sent})

    def largest_upload(self) -> Upload:
        """Builds an upload with a new head and one image of each class."""
        count_C = np.ones(self.task.num_classes, dtype=np.int32)
        return replace(super().largest_upload(), payload={"head": first_head(self.task), "labels": {"count": count_C}})

    def _loss(self, client: FederatedClient, broadcast: Broadcast) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
        """CE(f(x), y) + a CE(h(G(e, y')), y') + a KL(sg softmax h(G(e', y)) || softmax f(x)), y' ~ the label mix."""
        import torch
        from torch.nn import functional

        from fedvtc.learning.models.losses import distillation
        from fedvtc.learning.models.weights import load_weights

        generator = self._new_generator().to(client.device).eval().requires_grad_(False)
        load_weights(generator, broadcast.payload["generator"])
        mix_C = torch.tensor(broadcast.payload["labels"]["mix"], device=client.device)
        head = client.classifier.head
        is_paper = self.config.terms == "paper"
        weight = 1.0 if is_paper else max(1e-4, 10 * _DECAY**client.round)

        def loss(images: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
            logits_BC = client.classifier(images)
            drawn_B = torch.multinomial(mix_C, len(labels_B), replacement=True)
            drawn_BD = generator(generator.draw_noise(len(labels_B)), drawn_B)
            terms = {
                "classification": functional.cross_entropy(logits_BC, labels_B),
                "generated": functional.cross_entropy(head(drawn_BD), drawn_B),
            }
            whole = terms["classification"] + weight * terms["generated"]
            if not is_paper:
                teacher_BC = head(generator(generator.draw_noise(len(labels_B)), labels_B))
                terms["distillation"] = distillation(teacher_BC, logits_BC)
                whole = whole + weight * terms["distillation"]
            return {"loss": whole, **terms}

        return loss

    def _generator_loss(
        self, generator: FeatureGenerator, weight_KCD: Tensor, bias_KC: Tensor, count_KC: Tensor
    ) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
        """Returns the generator's loss: the teacher's cross-entropy + eta * diversity."""
        from fedvtc.learning.models import feature_losses

        def loss(noise_BL: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
            features_BD = generator(noise_BL, labels_B)
            logits_KBC = feature_losses.stacked_logits(features_BD, weight_KCD, bias_KC)
            if self.config.ensemble == "labels":
                teacher = feature_losses.label_weighted_loss(logits_KBC, labels_B, count_KC)
            else:
                teacher = feature_losses.mean_logits_loss(logits_KBC, labels_B)
            diversity = feature_losses.diversity_loss(noise_BL, features_BD)
            return {"loss": teacher + self.config.diversity * diversity, "teacher": teacher, "diversity": diversity}

        return loss

    def _draws(self, generator: FeatureGenerator, mix_C: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields noise and classes of the steps of a round; the open phase keys the draws."""
        import torch

        size = self.config.server_batch_size
        for _ in range(self.config.server_steps):
            yield generator.draw_noise(size), torch.multinomial(mix_C, size, replacement=True)

    def _new_generator(self) -> FeatureGenerator:
        from fedvtc.learning.models.feature_nets import FeatureGenerator

        config, task = self.config, self.task
        with task.shared_randomness("generator"):
            return FeatureGenerator(
                task.num_classes, task.feature_size, noise_size=config.noise_size, hidden_size=config.hidden_size
            )


METHOD = FedGen

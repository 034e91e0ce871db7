"""The client's half and the server's half of FedKWAZ.

Shapes: K classes held, C classes, D features or logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Arrays, Broadcast, Upload
from fedvtc.learning.exchange.statistics import FeatureStatistics
from fedvtc.learning.methods._class_means import class_means
from fedvtc.learning.methods._shared_proxy import ProxyConfig, new_pair, new_proxy, pair_bytes, pair_of
from fedvtc.learning.methods.base import Method, ServerState

if TYPE_CHECKING:
    from torch import Tensor

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.methods.base import Predictor
    from fedvtc.learning.methods.fedkwaz.terms import Anchors
    from fedvtc.learning.models.classifier import ClassifierModule
    from fedvtc.learning.models.proxy import Step
    from fedvtc.learning.server import Server

_CONCENTRATIONS = (0.1, 0.5, 1.0)
_ZONES = ("features", "private", "proxy")
"""Mixed images on which the features, the private model's and the proxy's predictions disagree most."""


@section
class FedKWAZConfig(ProxyConfig):
    """The keys of FedKWAZ."""

    name: str = "fedkwaz"
    temperature: Annotated[float, Field(gt=0)] = 4.0
    """Temperature tau of predictions in the second stage."""
    stage2_ce: bool = True
    """True adds the labels to the losses of the second stage, as the published code does."""
    search_every: Annotated[int, Field(ge=1)] | None = None
    """Rounds between searches for the mixed images on which both models disagree most; null takes a third of
    `run.rounds`."""


class FedKWAZ(Method[FedKWAZConfig]):
    """Uploads class means of both models' features and logits; broadcasts their means over clients."""

    config_class = FedKWAZConfig

    def prepare(self, client: FederatedClient) -> None:
        """Attaches the proxy, with equal initial weights on all clients, as half of a pair."""
        from fedvtc.learning.methods.fedkwaz.terms import anchored_terms

        client.attach("pair", new_pair(self.task, client.classifier, self._new_proxy(), anchored_terms))

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Trains both models on the anchors, then on images where both disagree; uploads the anchors of both."""
        from fedvtc.learning.methods.fedkwaz.terms import anchored_terms

        first = partial(anchored_terms, pair_of(client), anchors=self._anchors(client, broadcast))
        with client.phase("train"):
            for batches in client.passes():
                client.fit("pair", batches, loss=first)
        self._search(client)
        second = partial(self._second_stage(client.memory), pair_of(client))
        with client.phase("zones"):
            for batches in client.passes():
                client.fit("pair", batches, loss=second, record_terms=False)
        payload = {"anchors": self._own_anchors(client)}
        return client.upload(payload)

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Averages each anchor over the clients that hold its class; a class that nobody holds keeps its anchors."""
        num_classes = self.task.num_classes
        sums = {name: np.zeros((num_classes, size)) for name, size in self._sizes().items()}
        holders_C = np.zeros(num_classes, dtype=np.int64)
        for upload in uploads:
            own = upload.payload["anchors"]
            holders_C[own["classes"]] += 1
            for name, sum_CD in sums.items():
                sum_CD[own["classes"]] += own[name]
        means = {name: sum_CD / np.maximum(holders_C, 1)[:, None] for name, sum_CD in sums.items()}
        known_C = holders_C > 0
        if "anchors" in state:
            kept_K = np.setdiff1d(state["anchors"]["classes"], np.flatnonzero(known_C))
            rows_K = np.isin(state["anchors"]["classes"], kept_K)
            known_C[kept_K] = True
            for name, mean_CD in means.items():
                mean_CD[kept_K] = state["anchors"][name][rows_K]
        anchors: dict[str, NDArray[np.generic]] = {"classes": np.flatnonzero(known_C)}
        anchors |= {name: mean_CD[known_C].astype(np.float32) for name, mean_CD in means.items()}
        return {"anchors": anchors}, Broadcast(server.round, {"anchors": anchors})

    def predictors(self, client: FederatedClient, broadcast: Broadcast) -> Mapping[str, Predictor]:
        """Returns the private model, which is ranked, and the proxy."""
        return {"private": client.classifier, "proxy": pair_of(client).proxy}

    def largest_upload(self) -> Upload:
        """Builds an upload with anchors of all classes."""
        num_classes = self.task.num_classes
        anchors: dict[str, NDArray[np.generic]] = {"classes": np.arange(num_classes)}
        anchors |= {name: np.zeros((num_classes, size), np.float32) for name, size in self._sizes().items()}
        return replace(super().largest_upload(), payload={"anchors": anchors})

    def working_bytes(self, classifier: ClassifierModule, *, samples_per_class: int) -> Mapping[str, int]:
        """Returns the memory of a step of the second stage."""
        step = self._second_stage(dict.fromkeys(_ZONES, np.array([1.0, 4.0])))
        return pair_bytes(new_pair(self.task, classifier, self._new_proxy(), step), self.task)

    def _second_stage(self, memory: Mapping[str, Any]) -> Step:
        """Returns the loss of the second stage, with the (a, G) of each kind of mixed images in a memory."""
        from fedvtc.learning.methods.fedkwaz.terms import zone_terms

        return partial(
            zone_terms,
            zones={name: (float(memory[name][0]), int(memory[name][1])) for name in _ZONES},
            temperature=self.config.temperature,
            with_labels=self.config.stage2_ce,
        )

    def _search(self, client: FederatedClient) -> None:
        """Chooses, for each kind of mixed images, the (a, G) with the largest disagreement over the own images."""
        every = self.config.search_every or max(1, round(self.task.num_rounds / 3))
        if "searched" in client.memory and client.round - client.memory["searched"] < every:
            return
        client.memory["searched"] = client.round
        side = self.task.image_size
        finest = 49 if side % 7 == 0 and side % 8 else 64
        candidates = list(product(_CONCENTRATIONS, (finest, 16, 4)))
        with client.phase("search"):
            found = [self._disagreements(client, *candidate) for candidate in candidates]
        for name, totals in zip(_ZONES, np.array(found).T, strict=True):
            client.memory[name] = np.array(candidates[int(totals.argmax())])

    def _disagreements(self, client: FederatedClient, concentration: float, num_patches: int) -> NDArray[np.float64]:
        """Returns the sums of `disagreements` over the own images, mixed, in eval mode, in the order of `_ZONES`."""
        from fedvtc.learning.client.outputs import own_outputs
        from fedvtc.learning.methods.fedkwaz.mixing import mix_patches
        from fedvtc.learning.methods.fedkwaz.terms import disagreements

        pair = pair_of(client)

        def sums(images: Tensor) -> Tensor:
            outputs = pair(mix_patches(images, concentration, num_patches))
            return len(images) * disagreements(outputs, self.config.temperature)[None].double()

        return own_outputs(client, pair, sums).sum(dim=0).cpu().numpy()

    def _anchors(self, client: FederatedClient, broadcast: Broadcast) -> Anchors | None:
        """Returns the broadcast's anchors by class, and True for the classes that have anchors; None without any."""
        import torch

        if not broadcast.payload:
            return None
        arrays = broadcast.payload["anchors"]
        classes_K = torch.tensor(arrays["classes"], dtype=torch.int64)
        dense = {"held": torch.zeros(self.task.num_classes, dtype=torch.bool)}
        dense["held"][classes_K] = True
        for name, size in self._sizes().items():
            dense[name] = torch.zeros(self.task.num_classes, size)
            dense[name][classes_K] = torch.tensor(arrays[name])
        return {name: tensor.to(client.device) for name, tensor in dense.items()}

    def _own_anchors(self, client: FederatedClient) -> Arrays:
        """Returns class means of the features and logits of both trained models."""
        import torch

        from fedvtc.learning.client.outputs import own_outputs

        pair, sizes = pair_of(client), self._sizes()

        def outputs(images: Tensor) -> Tensor:
            found = pair(images)
            parts = [found.features_BD, found.logits_BC, found.proxy_features_BD, found.proxy_logits_BC]
            return torch.cat(parts, dim=1)

        with client.phase("statistics"):
            outputs_ND = own_outputs(client, pair, outputs).cpu().numpy()
            means = class_means(FeatureStatistics.of(outputs_ND, client.images.labels_N.cpu().numpy(), "scalar"))
        parts = np.split(means["mean"], np.cumsum(list(sizes.values()))[:-1], axis=1)
        anchors = {name: np.ascontiguousarray(part) for name, part in zip(sizes, parts, strict=True)}
        return {"classes": means["classes"], **anchors}

    def _sizes(self) -> dict[str, int]:
        features, classes = self.task.feature_size, self.task.num_classes
        sizes = {"features": features, "logits": classes}
        return {**sizes, **{f"proxy_{name}": size for name, size in sizes.items()}}

    def _new_proxy(self) -> ClassifierModule:
        return new_proxy(self.task, self.config.proxy)

"""The common half of methods in which clients share a proxy: a small model of one architecture on all clients."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from fedvtc.config.names import BACKBONES
from fedvtc.config.problems import did_you_mean
from fedvtc.config.schema import Config, MethodConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Broadcast, Upload, WeightedMean
from fedvtc.learning.methods.base import Method, ServerState, Task

if TYPE_CHECKING:
    from torch import nn

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.methods.base import Predictor
    from fedvtc.learning.models.classifier import ClassifierModule
    from fedvtc.learning.models.proxy import Pair, Step
    from fedvtc.learning.server import Server


@section
class ProxyConfig(MethodConfig):
    """The keys of every method with a proxy."""

    proxy: str = "cnn_2x16"
    """Backbone of the proxy: a built-in one of `fedvtc list backbones`."""

    def problems(self, config: Config) -> list[str]:
        """Returns one text for each conflict between keys."""
        if self.proxy in BACKBONES:
            return []
        return [f"proxy: {self.proxy} is no built-in backbone. {did_you_mean(self.proxy, BACKBONES)}"]


ProxyConfigT = TypeVar("ProxyConfigT", bound=ProxyConfig)


class SharedProxy(Method[ProxyConfigT]):
    """Uploads proxies; broadcasts their mean, weighted by images."""

    @abstractmethod
    def proxy_of(self, client: FederatedClient) -> ClassifierModule:
        """Returns the client's proxy."""

    def receive(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Installs the mean proxy."""
        from fedvtc.learning.models.weights import load_weights

        if broadcast.payload:
            load_weights(self.proxy_of(client), broadcast.payload["proxy"])

    def upload_of(self, client: FederatedClient) -> Upload:
        """Returns the upload of a trained proxy."""
        from fedvtc.learning.models.weights import weights_of

        payload = {"proxy": weights_of(self.proxy_of(client))}
        return client.upload(payload)

    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Averages proxies: sum_k w_k q_k / sum_k w_k over the participants, with the weights of `weight_of`."""
        mean = WeightedMean()
        for upload in uploads:
            mean.add(upload.payload["proxy"], self.weight_of(upload))
        return state, Broadcast(server.round, {"proxy": mean.value()})

    def weight_of(self, upload: Upload) -> float:
        """Returns the weight of a proxy in the mean: the client's images."""
        return upload.num_images

    def predictors(self, client: FederatedClient, broadcast: Broadcast) -> Mapping[str, Predictor]:
        """Returns the private model, which is ranked, and the proxy."""
        return {"private": client.classifier, "proxy": self.proxy_of(client)}

    def largest_upload(self) -> Upload:
        """Builds an upload with a new proxy."""
        from fedvtc.learning.models.weights import weights_of

        return replace(super().largest_upload(), payload={"proxy": weights_of(self.new_proxy())})

    def new_proxy(self) -> ClassifierModule:
        """Builds the proxy with the weights that all clients begin with."""
        return new_proxy(self.task, self.config.proxy)


class SharedPair(SharedProxy[ProxyConfigT]):
    """Private model and proxy take every training step together."""

    @abstractmethod
    def step(self) -> Step:
        """Returns the loss of a pair."""

    def new_projection(self) -> nn.Linear | None:
        """Builds the map between the features of both models; by default none."""
        return None

    def prepare(self, client: FederatedClient) -> None:
        """Attaches the proxy, with equal initial weights on all clients, as half of a pair."""
        client.attach("pair", self._pair(client.classifier))

    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Trains both models on each batch, and uploads the trained proxy."""
        train_pair(client)
        return self.upload_of(client)

    def proxy_of(self, client: FederatedClient) -> ClassifierModule:
        """Returns the client's proxy."""
        return pair_of(client).proxy

    def working_bytes(self, classifier: ClassifierModule, *, samples_per_class: int) -> Mapping[str, int]:
        """Returns the memory of a training step of the pair."""
        return pair_bytes(self._pair(classifier), self.task)

    def _pair(self, classifier: ClassifierModule) -> Pair:
        return new_pair(self.task, classifier, self.new_proxy(), self.step(), self.new_projection())


def new_proxy(task: Task, name: str, *, feature_size: int | None = None) -> ClassifierModule:
    """Builds a proxy with the weights that all clients begin with."""
    with task.shared_randomness("proxy"):
        return replace(task, feature_size=feature_size or task.feature_size).new_classifier(name)


def new_pair(
    task: Task,
    classifier: ClassifierModule,
    proxy: ClassifierModule,
    step: Step,
    projection: nn.Linear | None = None,
) -> Pair:
    """Builds a pair that trains with the federation's optimizer."""
    from fedvtc.learning.models.proxy import Pair

    return Pair(classifier, proxy, step, optimizer=task.optimizer, projection=projection)


def pair_of(client: FederatedClient) -> Pair:
    """Returns the client's pair."""
    from fedvtc.learning.models.proxy import Pair

    pair = client.modules["pair"]
    assert isinstance(pair, Pair)
    return pair


def train_pair(client: FederatedClient) -> None:
    """Trains both models of the client's pair on the client's own images."""
    with client.phase("train"):
        for batches in client.passes():
            client.fit("pair", batches)


def pair_bytes(pair: Pair, task: Task) -> dict[str, int]:
    """Returns the memory of a training step of a pair, by the config key that makes the step smaller.

    Args:
        pair: a pair whose classifier is on the device `meta`; moved to this device.
        task: sizes of the federation.
    """
    import torch

    from fedvtc.learning.models.live_bytes import peak_bytes

    pair.to("meta").train()
    shape = (task.batch_size, task.num_channels, task.image_size, task.image_size)

    def train() -> None:
        pair.training_step((torch.empty(shape), torch.zeros(task.batch_size, dtype=torch.int64)), 0)["loss"].backward()

    return {"training.batch_size": peak_bytes(train)}

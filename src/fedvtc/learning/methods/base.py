"""The contract of a method: what a client does in a round, and what the server makes of the uploads.

A new method is one file, or a folder, beside this one with a config and a class, and one file under conf/method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from fedvtc.config.schema import Config, MethodConfig
from fedvtc.learning.exchange.messages import Broadcast, Upload

if TYPE_CHECKING:  # The command line reads the configs of methods and must not wait for PyTorch.
    from torch import Tensor

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.data import Dataset

ConfigT = TypeVar("ConfigT", bound=MethodConfig)

ServerState = Mapping[str, Any]
"""Whatever a server keeps between rounds, of arrays, numbers, strings and mappings of these."""


@dataclass(frozen=True)
class Task:
    """The sizes that every part of a federation agrees on."""

    num_classes: int
    num_channels: int
    image_size: int
    feature_size: int
    seed: int

    @classmethod
    def of(cls, config: Config, dataset: Dataset) -> Self:
        """The sizes that config and data agree on."""
        return cls(
            num_classes=dataset.num_classes,
            num_channels=dataset.num_channels,
            image_size=dataset.image_size,
            feature_size=config.population.feature_size,
            seed=config.run.seed,
        )


class Method(ABC, Generic[ConfigT]):
    """Two pure halves: no method keeps anything between calls but its config.

    What a client remembers is in its modules, what the server remembers in its state, so that both can be saved.

    Args:
        config: of the method.
        task: sizes of the federation.
    """

    config_class: ClassVar[type[MethodConfig]] = MethodConfig
    """The config that `method.name` of this method's module is read with."""

    def __init__(self, config: ConfigT, task: Task) -> None:
        self.config, self.task = config, task

    def prepare(self, client: FederatedClient) -> None:
        """Gives a new client what the method needs of it; by default nothing."""

    def start(self) -> tuple[ServerState, Broadcast]:
        """The server's state and broadcast before the first round; by default both empty."""
        return {}, Broadcast()

    @abstractmethod
    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """One local round: trains, and uploads what the model shows after this round's training."""

    @abstractmethod
    def server_round(self, state: ServerState, uploads: Iterable[Upload]) -> tuple[ServerState, Broadcast]:
        """Merges the uploads, which come one at a time in client order, into what the next round starts from."""

    def last_broadcast(self, state: ServerState, broadcast: Broadcast) -> Broadcast:
        """What `finish` gets from the server; by default the last round's broadcast."""
        return broadcast

    def finish(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """What a client does once after the last round; by default nothing."""

    @property
    def has_finish(self) -> bool:
        """Whether `finish` changes clients, so that they are measured again after it."""
        return False

    def samples(
        self, client: FederatedClient, broadcast: Broadcast, *, num_per_class: int
    ) -> tuple[Tensor, Tensor] | None:
        """Generated images in [-1, 1], `num_per_class` of each class, and their labels; None where there are none."""
        return None

    def payload_bytes(self, num_clients: int) -> dict[str, dict[str, int]]:
        """Upper bounds of a message's bytes by kind: `up` of one upload, `down` of one broadcast; all classes held."""
        return {"up": {}, "down": {}}

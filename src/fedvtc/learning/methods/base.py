"""The contract of a method: a client's half of a round, and the server's half, which merges the uploads.

A new method is one file with a config and a class: beside this file, or in a project of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from fedvtc.config.schema import Config, MethodConfig, OptimizerConfig, PopulationConfig, RunConfig, TrainingConfig
from fedvtc.learning.exchange.accounting import PrivacyLoss
from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.seeding import SERVER

if TYPE_CHECKING:  # The command line reads the configs of methods without PyTorch, whose import takes seconds.
    from torch import Tensor

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.client.evaluation import Predictor as Predictor
    from fedvtc.learning.data import Dataset
    from fedvtc.learning.models.classifier import ClassifierModule
    from fedvtc.learning.server import Server

ConfigT = TypeVar("ConfigT", bound=MethodConfig)

ServerState = Mapping[str, Any]
"""The server's state between rounds: arrays, tensors, numbers and text, in mappings, lists or tuples."""


@dataclass(frozen=True)
class Task:
    """Facts that all parts of a federation share: sizes, the seed, and the training of a client in a round.

    Attributes:
        num_classes: classes C of the data set.
        num_channels: channels of the images, 1 or 3.
        image_size: side of the images in pixels.
        feature_size: features p of an image.
        seed: `run.seed`.
        num_rounds: `run.rounds`, which a resumed run may change.
        num_clients: `population.num_clients`.
        batch_size: `training.batch_size`.
        optimizer: `training.optimizer`.
        backbones: the backbones of the population, each once.
    """

    num_classes: int
    num_channels: int
    image_size: int
    feature_size: int
    seed: int
    num_rounds: int = RunConfig.rounds
    num_clients: int = PopulationConfig.num_clients
    batch_size: int = TrainingConfig.batch_size
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    backbones: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config, dataset: Dataset) -> Self:
        """Builds the task of a config and its data set."""
        return cls(
            num_classes=dataset.num_classes,
            num_channels=dataset.num_channels,
            image_size=dataset.image_size,
            feature_size=config.population.feature_size,
            seed=config.run.seed,
            num_rounds=config.run.rounds,
            num_clients=config.population.num_clients,
            batch_size=config.training.batch_size,
            optimizer=config.training.optimizer,
            backbones=tuple(dict.fromkeys(backbone.name for backbone in config.population.backbones)),
        )

    def new_classifier(self, backbone: str) -> ClassifierModule:
        """Builds a client's model with new weights, drawn from PyTorch's global generator.

        Args:
            backbone: name of the backbone, such as `client.backbone_name`.
        """
        from fedvtc.learning.models.classifier import build_classifier

        return build_classifier(
            backbone,
            num_channels=self.num_channels,
            image_size=self.image_size,
            feature_size=self.feature_size,
            num_classes=self.num_classes,
            optimizer=self.optimizer,
        )

    def shared_randomness(self, purpose: str) -> AbstractContextManager[None]:
        """Returns a context in which PyTorch draws the same numbers on every client.

        A module that is built in the context starts with equal weights on all clients.
        """
        from fedvtc.learning.client.loop import keyed_randomness

        return keyed_randomness(self.seed, round=0, client=SERVER, purpose=purpose)


class Method(ABC, Generic[ConfigT]):
    """A client's half and the server's half of a federated method; the object keeps nothing but its config and task.

    A client's state is in its modules and its memory, the server's in a `ServerState`; checkpoints hold both. After
    construction attributes of the method cannot be set, because a resume would lose them.

    Args:
        config: the method's config.
        task: sizes of the federation.
    """

    config_class: ClassVar[type[MethodConfig]] = MethodConfig
    """Section of the config with the keys of the method."""
    sends_in_rounds: ClassVar[bool] = True
    """False if uploads of a round have no payload, so that their bytes are known without `largest_upload`."""

    def __init__(self, config: ConfigT, task: Task) -> None:
        self.config, self.task = config, task

    def __setattr__(self, name: str, value: Any) -> None:
        if "_is_complete" in self.__dict__:
            raise AttributeError(
                f"method.{name} cannot be set: a resumed run would lack the value."
                " Keep values of a client in client.memory, and values of the server in the state of server_round."
            )
        super().__setattr__(name, value)

    def _complete(self) -> None:
        """Ends the construction: attributes cannot be set from now on."""
        self._is_complete = True

    def prepare(self, client: FederatedClient) -> None:
        """Attaches modules to a new client; by default none."""

    def start(self) -> tuple[ServerState, Broadcast]:
        """Returns the server's state and broadcast before the first round; by default both empty."""
        return {}, Broadcast()

    def receive(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Installs the shared parts of a broadcast in a client's modules, such as a head; by default nothing.

        Called before `client_round`, before `finish`, and before an evaluation, after which the client's own weights
        are restored. Without random draws; a second call changes nothing. The payload is empty before the first round.
        """

    @property
    def has_receive(self) -> bool:
        """True if the method defines `receive`: an evaluation receives, and measures the model before it as `trained`.

        Return False where nothing that predicts is received, such as a proxy that only teaches.
        """
        return type(self).receive is not Method.receive

    @abstractmethod
    def client_round(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Runs one local round after `receive`: trains, and uploads values of the trained model."""

    @abstractmethod
    def server_round(
        self, state: ServerState, uploads: Iterable[Upload], server: Server
    ) -> tuple[ServerState, Broadcast]:
        """Merges the uploads, which come one at a time in client order; returns the next state and broadcast.

        Args:
            state: the state after the round before; not changed.
            uploads: the uploads of the round.
            server: trains modules, keys random draws, and receives losses and seconds for the record.
        """

    def predictors(self, client: FederatedClient, broadcast: Broadcast) -> Mapping[str, Predictor]:
        """Returns functions from images to scores, by name; by default the client's model as `head`.

        The first function is ranked, and its results are the rows of clients.csv. The accuracies of the others are
        `test/accuracy/NAME/mean`. With `receive`, `trained` is the first function before the call. All modules are in
        eval mode.

        Args:
            client: the client, after `receive`, or after `finish`.
            broadcast: the newest broadcast, which has a payload if the method sends one.
        """
        return {"head": client.classifier}

    def last_broadcast(self, state: ServerState, broadcast: Broadcast) -> Broadcast:
        """Returns the broadcast after the last round, which `finish` or the closing exchange receives.

        By default the broadcast that the last `server_round` returned.
        """
        return broadcast

    def closing_upload(self, client: FederatedClient, broadcast: Broadcast) -> Upload | None:
        """Uploads once more after the last round and `receive`; every client, keyed as one round more."""
        return None

    def closing_server(self, state: ServerState, uploads: Iterable[Upload], server: Server) -> Broadcast:
        """Merges the closing uploads, in client order, into the broadcast that `finish` receives."""
        raise NotImplementedError(f"{type(self).__name__} defines closing_upload, and needs closing_server.")

    @property
    def has_closing(self) -> bool:
        """True if there is a closing exchange after the last round: the method defines `closing_upload`."""
        return type(self).closing_upload is not Method.closing_upload

    def finish(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Runs a client's step after the last round, the closing exchange and `receive`; by default nothing."""

    @property
    def has_finish(self) -> bool:
        """True if `finish` changes clients more than `receive`, so that the clients are evaluated again."""
        return False

    def samples(
        self, client: FederatedClient, broadcast: Broadcast, *, num_per_class: int
    ) -> tuple[Tensor, Tensor] | None:
        """Draws generated images in [-1, 1], `num_per_class` of each class, and their labels; None without a generator.

        The client does not change.
        """
        return None

    def largest_upload(self) -> Upload:
        """Builds the upload of a client that holds every class, with zeros as values; by default without payload.

        `fedvtc plan` counts the bytes of this upload and of the broadcast that `server_round` makes of such uploads.
        Build the upload with the functions that build real uploads.
        """
        return Upload(client=0, round=1, num_images=self.task.num_classes)

    def largest_closing(self) -> Upload:
        """Builds the closing upload of a client that holds every class, with zeros; by default without payload.

        `fedvtc plan` counts the bytes of this upload and of the broadcast of `closing_server`.
        """
        return Upload(client=0, round=1, num_images=self.task.num_classes)

    def privacy_loss(self, num_images: Iterable[int]) -> PrivacyLoss | None:
        """Returns the privacy loss of all messages of a client in the whole run, None if messages have no noise.

        Args:
            num_images: training images of each client; the loss is that of the client with the largest loss.
        """
        return None

    def working_bytes(self, classifier: ClassifierModule, *, samples_per_class: int) -> Mapping[str, int]:
        """Returns the memory of the method's own steps on a client, by the config key that makes a step smaller.

        `fedvtc plan` adds the largest step to the memory of a process; local training and evaluation are counted
        already. By default without steps. `fedvtc.learning.models.live_bytes.peak_bytes` measures a step.

        Args:
            classifier: a client's model on PyTorch's device `meta`, which keeps shapes only.
            samples_per_class: generated images of each class that `samples` draws.
        """
        return {}

"""One client: its images, modules, memory and the training steps that methods use.

No method and no Ray here. Shapes: N images of the client, B images of a batch, D features, C classes.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedvtc.config.schema import Config
from fedvtc.errors import ClientError
from fedvtc.learning.client.evaluation import Predictor, Scores, confusions
from fedvtc.learning.client.image_memory import ImageMemory
from fedvtc.learning.client.images import OwnImages
from fedvtc.learning.client.loop import Learner, Loss, keyed_randomness, make_fabric
from fedvtc.learning.client.own_batches import OwnBatches
from fedvtc.learning.client.state import ClientState
from fedvtc.learning.costs import FlopCounts, Result, measured
from fedvtc.learning.data import Dataset, ImageArrays
from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.exchange.messages import Payload, Upload
from fedvtc.learning.exchange.statistics import FeatureStatistics, Form
from fedvtc.learning.models.classifier import build_classifier
from fedvtc.learning.peak_memory import measured_memory
from fedvtc.learning.population import ClientSpec

_CHANGING = frozenset({"round", "phase_name", "scalars"})
"""Attributes that change after construction; all other state is in modules and in the memory."""


class FederatedClient(OwnBatches):
    """A client of a federation, from its first round to its last.

    A method attaches modules in `Method.prepare` and keeps arrays and numbers in `memory`. Both are part of
    `state_dict`, so a resumed client has both again. Other attributes cannot be set, because a resume would lose them.

    Args:
        spec: the client's number, backbone and image indices.
        config: the federation's config.
        dataset: the images of all clients; only read.
        device: device of the modules.
        flops: operations of steps, shared by the clients of a process; None counts anew.
        image_memory: memory for float images, shared by the clients of a process; None keeps no float images.

    Attributes:
        id: the client's number.
        round: the present round; 0 before the first round.
        scalars: seconds and losses of the present round, by metric name.
        classifier: the client's model.
        images: the client's own images and labels.
        memory: arrays and numbers that the method keeps from round to round.
    """

    def __init__(
        self,
        spec: ClientSpec,
        config: Config,
        dataset: Dataset,
        device: torch.device,
        flops: FlopCounts | None = None,
        image_memory: ImageMemory | None = None,
    ) -> None:
        self.id, self.backbone_name = spec.client, spec.backbone
        self.device, self.num_classes = device, dataset.num_classes
        images = OwnImages(dataset.train, spec.indices_N, config.data.augment, device, image_memory)
        super().__init__(images, config.training)
        self.round = 0
        self.scalars: dict[str, float] = {}
        self._config, self._flops = config, flops or FlopCounts(device)
        self._fabric = make_fabric(device, config.training.precision)
        with self.randomness("backbone"):
            self.classifier = build_classifier(
                spec.backbone,
                num_channels=dataset.num_channels,
                image_size=dataset.image_size,
                feature_size=config.population.feature_size,
                num_classes=dataset.num_classes,
                optimizer=config.training.optimizer,
            )
        self._state = ClientState(self.id)
        self._state.add("classifier", Learner(self._fabric, self.classifier))
        self.memory = self._state.memory
        self._is_complete = True

    def __setattr__(self, name: str, value: Any) -> None:
        if "_is_complete" in self.__dict__ and name not in _CHANGING:
            raise AttributeError(
                f"client.{name} cannot be set: a resumed client would lack the value."
                " Keep arrays and numbers in client.memory, and add modules with client.attach(NAME, module)."
            )
        super().__setattr__(name, value)

    def attach(self, name: str, module: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Gives the client a further module, saved and restored under this name; called in `Method.prepare`.

        Args:
            name: key in `modules`, in `fit` and in the checkpoint.
            module: a LightningModule, or any other module; moved to the client's device.
            optimizer: None takes the module's `configure_optimizers`, if the module has this method.

        Raises:
            TypeError: the module is none.
            ValueError: the name is in use, or the client has begun its first round.
        """
        if self.round:
            raise ValueError(
                f"client.attach({name!r}): round {self.round} has begun, and a resumed client would lack the module."
                " Attach modules in Method.prepare."
            )
        if not isinstance(module, nn.Module):
            raise TypeError(f"client.attach({name!r}): a {type(module).__name__} is no torch.nn.Module. Give a module.")
        self._state.add(name, Learner(self._fabric, module, optimizer))

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The classifier and all attached modules, by name."""
        return MappingProxyType(self._state.modules)

    def optimizer(self, name: str) -> torch.optim.Optimizer | None:
        """Returns the optimizer of a module, whose state is part of the client's; `name` as in `fit`."""
        return self._state.learners[name].optimizer

    def set_prototypes(self, gaussians: ClassGaussians, weight: float) -> None:
        """Pulls features towards class means in this round, with the weight lambda in units of their deviations."""
        dense = (torch.tensor(array, device=self.device) for array in gaussians.dense(self.num_classes))
        self.classifier.set_prototypes(*dense, weight=weight)

    def begin_round(self, round: int) -> None:
        """Starts a round: keys random draws by the round's number, empties `scalars` and removes prototypes.

        All modules are in eval mode until they train, whatever the client did before: an evaluation, or a resume.
        """
        self.round, self.phase_name, self.scalars = round, "", {}
        self.classifier.clear_prototypes()
        self.eval()

    def eval(self) -> None:
        """Sets all modules to eval mode."""
        for module in self.modules.values():
            module.eval()

    def randomness(self, purpose: str) -> AbstractContextManager[None]:
        """Returns a context in which the key (seed, round, client, purpose) seeds PyTorch's draws."""
        return keyed_randomness(
            self._config.run.seed, round=self.round, client=self.id, purpose=purpose, device=self.device
        )

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Opens a named part of a round: keys random draws, measures its costs, and names the phase of an error."""
        # Not reset by an error, because the caller names the phase in its message.
        self.phase_name = name
        with (
            measured(self.scalars, name),
            measured_memory(self.scalars, name, self.device),
            self.randomness(name),
        ):
            yield
        self.phase_name = ""

    def counted(self, what: str, num_images: int, step: Callable[[], Result]) -> Result:
        """Returns the result of a step on images, which may run twice; counts it in `flops/PHASE`, as `fit` does.

        `what` tells apart steps of one phase that do different things for an image.
        """
        return self._counter(what)(num_images, step) if self.phase_name else step()

    def _counter(self, what: str) -> Callable[[int, Callable[[], Result]], Result]:
        # Nothing was received before the first round.
        kind = (self.backbone_name, self.phase_name, what, self.round > 1)
        return self._flops.counter(self.scalars, self.phase_name, kind, self.restored)

    def train(self, phase: str = "train") -> None:
        """Trains the classifier on the client's own images, for all `passes` of a round.

        Args:
            phase: name of the phase. Only phase `train` records loss terms; later training does not overwrite them.
        """
        with self.phase(phase):
            for batches in self.passes():
                self.fit("classifier", batches, record_terms=phase == "train")

    def fit(
        self,
        name: str,
        batches: Iterable[Sequence[Tensor]],
        *,
        loss: Loss | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        record_terms: bool = True,
    ) -> dict[str, float]:
        """Steps a module once per batch, in train mode, inside a `phase`; records `loss/PHASE` and `loss/TERM`.

        Args:
            name: `classifier`, or the name of an attached module.
            batches: sequences of tensors whose first dimension is the images.
            loss: computes the loss from the tensors of a batch; None takes the module's `training_step`. Either returns
                a tensor, or a mapping of terms with the key `loss`.
            optimizer: replaces the module's optimizer in this call; the state of this optimizer is not saved.
            record_terms: False records `loss/PHASE` alone.

        Returns:
            Means over images of all terms; empty without a batch.

        Raises:
            ClientError: a loss is not finite.
            RuntimeError: no phase is open.
            ValueError: there is no such module, no optimizer, or neither a `loss` nor a `training_step`.
        """
        phase = self._open_phase("fit")
        if name not in self._state.learners:
            raise ValueError(f"client.fit({name!r}): no such module. Attached: {', '.join(self._state.learners)}.")
        counted = self._counter(f"{name} {getattr(loss, '__qualname__', '')}")
        terms = self._state.learners[name].fit(batches, loss, optimizer, counted=counted)
        for term, value in terms.items():
            if not np.isfinite(value):
                raise ClientError(self.id, self.round, phase, f"{term} is {value}")
            if term == "loss":
                self.scalars[f"loss/{phase}"] = value
            elif record_terms:
                self.scalars[f"loss/{term}"] = value
        return terms

    @torch.no_grad()
    def features(self) -> Tensor:
        """Returns the features (N, D) of the client's own images, in eval mode."""
        classifier = self.classifier.eval()
        chunks = torch.arange(self.num_images).split(self._config.evaluate.batch_size)

        def features() -> Tensor:
            return torch.cat([classifier.features(self.images.inputs(index_B)) for index_B in chunks])

        return self.counted("features", self.num_images, features)

    def statistics(self, form: Form) -> FeatureStatistics:
        """Returns the statistics of the features of the client's own images."""
        with self.phase("statistics"):
            return FeatureStatistics.of(self.features().cpu().numpy(), self.images.labels_N.cpu().numpy(), form)

    def confusions(
        self, images: ImageArrays, predictors: Mapping[str, Predictor], probabilities: Scores | None = None
    ) -> dict[str, NDArray[np.int64]]:
        """As `evaluation.confusions` with all modules in eval mode: image counts (C, C) of each predictor."""
        self.eval()
        sizes = {"num_classes": self.num_classes, "batch_size": self._config.evaluate.batch_size}
        with self.classifier.shared_features():
            return confusions(images, predictors, **sizes, device=self.device, probabilities=probabilities)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Restores modules, optimizers and memory at the end of the block to their bits before the block."""
        before = copy.deepcopy(self.state_dict())
        try:
            yield
        finally:
            self.load_state_dict(before)

    def upload(self, payload: Payload | None = None) -> Upload:
        """Returns the client's message to the server: values (kind -> name -> array), and the round's measurements."""
        return Upload(self.id, self.round, self.num_images, payload or {}, dict(self.scalars), self.backbone_name)

    def state_dict(self) -> dict[str, Any]:
        """Returns weights and optimizers by module name, and the memory if not empty, as tensors and plain values."""
        return self._state.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a `state_dict` on a client of the same spec and method.

        Raises:
            CheckpointError: the state has other modules.
        """
        self._state.load_state_dict(state)

    def weights_digest(self) -> str:
        """Returns the SHA-256 of the weights of all modules and of the memory."""
        return self._state.digest()

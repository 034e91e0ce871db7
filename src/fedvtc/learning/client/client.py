"""One client: its images by index, its model, its generator, and the steps that methods are composed of.

Plain Python: no Ray here. Shapes: N images of the client, B of a batch, D features, C classes.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning import Fabric
from torch import Tensor

from fedvtc.config.schema import Config, OptimizerConfig
from fedvtc.errors import ClientError
from fedvtc.learning.client.loop import Learner, keyed_randomness, make_fabric, weights_digest
from fedvtc.learning.data import Dataset, ImageArrays
from fedvtc.learning.data.module import augment, epoch_batches, to_input, to_tensor
from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.exchange.messages import Arrays
from fedvtc.learning.exchange.statistics import FeatureStatistics, Form
from fedvtc.learning.methods.fedvtc.generator import GeneratorTarget, VTCModule
from fedvtc.learning.models import build_backbone
from fedvtc.learning.models.classifier import ClassifierModule
from fedvtc.learning.models.optimizers import build_optimizer
from fedvtc.learning.population import ClientSpec

_NUM_PROBES = 2
"""Images that show whether a model is broken: weights that overflow do so for nearly all. Eight cost 4 % of a round."""


class FederatedClient:
    """The steps of a local round; each leaves its seconds and its losses in `scalars`.

    Args:
        spec: who it is.
        config: of the federation.
        dataset: shared by all clients of the process; never written to.
        device: where its modules live.
    """

    def __init__(self, spec: ClientSpec, config: Config, dataset: Dataset, device: torch.device) -> None:
        self.id, self.backbone_name = spec.client, spec.backbone
        self.num_classes, self.num_images = dataset.num_classes, len(spec.indices_N)
        self.device = device
        self.round = 0
        self.phase_name = ""
        self.scalars: dict[str, float] = {}
        self._config, self._data, self._indices_N = config, dataset, to_tensor(spec.indices_N)
        self._fabric: Fabric = make_fabric(device, config.training.precision)
        with self.randomness("backbone"):
            backbone = build_backbone(
                spec.backbone,
                num_channels=dataset.num_channels,
                image_size=dataset.image_size,
                feature_size=config.population.feature_size,
            )
            self.classifier = ClassifierModule(
                backbone,
                feature_size=config.population.feature_size,
                num_classes=dataset.num_classes,
                optimizer=config.training.optimizer,
            )
        # In this layout backbones take half the time on CPUs; the generator, few channels and many norms, takes more.
        self.classifier.to(memory_format=torch.channels_last)
        self._classifier_learner = Learner(self._fabric, self.classifier)
        self.generator: VTCModule | None = None
        self._generator_learner: Learner | None = None

    def set_generator(self, generator: VTCModule) -> None:
        """Gives the client its generator; done once, by the method."""
        self.generator = generator
        self._generator_learner = Learner(self._fabric, generator)

    def set_prototypes(self, gaussians: ClassGaussians) -> None:
        """From now on local training pulls features towards these."""
        dense = (torch.tensor(array, device=self.device) for array in gaussians.dense(self.num_classes))
        self.classifier.set_prototypes(*dense)

    def begin_round(self, round: int) -> None:
        """From now on random draws are keyed by this round, and `scalars` are empty."""
        self.round, self.scalars = round, {}

    def randomness(self, purpose: str) -> AbstractContextManager[None]:
        """A context in which PyTorch draws by (seed, this round, this client, purpose)."""
        return keyed_randomness(
            self._config.run.seed, round=self.round, client=self.id, purpose=purpose, device=self.device
        )

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measures a phase, keys its randomness, and names it in the error where something in it is not finite."""
        began_s = time.perf_counter()
        # Not reset by an error, so that whoever catches it can say where it happened.
        self.phase_name = name
        with self.randomness(name):
            yield
        self.phase_name = ""
        self.scalars[f"time/{name}"] = self.scalars.get(f"time/{name}", 0.0) + time.perf_counter() - began_s

    def train(self, phase: str = "train") -> None:
        """Trains the classifier for the config's local epochs on the client's own images."""
        with self.phase(phase):
            for _ in range(self._config.training.epochs):
                self._record(phase, self._classifier_learner.fit(self._real_batches(self._config.training.batch_size)))

    def statistics(self, form: Form) -> FeatureStatistics:
        """Statistics of the features of the client's own images, in eval mode."""
        with self.phase("statistics"):
            features_ND, labels_N = self._own_features()
            return FeatureStatistics.of(features_ND.cpu().numpy(), labels_N.cpu().numpy(), form)

    def train_generator(self, target: GeneratorTarget, *, epochs: int, batch_size: int) -> None:
        """Trains the generator against its target, the classifier frozen in eval mode.

        Features are computed once: the classifier does not change meanwhile.
        """
        assert self.generator is not None
        assert self._generator_learner is not None
        self.generator.set_target(target)
        with self.phase("generator"), _frozen(self.classifier):
            features_ND, labels_N = self._own_features()
            for _ in range(epochs):
                batches = (
                    (to_input(self._images(index_B)), labels_N[index_B], features_ND[index_B])
                    for index_B in epoch_batches(self.num_images, batch_size, torch.default_generator)
                )
                self._record("generator", self._generator_learner.fit(batches))

    def generator_weights(self) -> dict[str, npt.NDArray[np.generic]]:
        """What of the generator is shared."""
        assert self.generator is not None
        return self.generator.shared_weights()

    def load_generator_weights(self, arrays: Arrays) -> None:
        """Replaces what of the generator is shared."""
        assert self.generator is not None
        self.generator.load_shared_weights(arrays)

    def finetune(
        self,
        draw_epoch: Callable[[], tuple[Tensor, Tensor]],
        *,
        epochs: int,
        batch_size: int,
        optimizer: OptimizerConfig,
        mix_real: bool,
    ) -> None:
        """Trains the whole classifier by cross-entropy on drawn images, afresh for each epoch.

        Args:
            draw_epoch: gives the images (N, channels, side, side) and labels of one epoch.
            epochs: passes, each over images of its own.
            batch_size: images a step.
            optimizer: a new one for each call.
            mix_real: whether the client's own images are shuffled among the drawn ones.
        """
        weight, self.classifier.prototype_weight = self.classifier.prototype_weight, 0.0
        with self.phase("finetune"):
            learner = Learner(self._fabric, self.classifier, build_optimizer(self.classifier.parameters(), optimizer))
            for _ in range(epochs):
                images, labels = draw_epoch()
                if mix_real:
                    own_images, own_labels = self._own_inputs()
                    images, labels = torch.cat([images, own_images]), torch.cat([labels, own_labels])
                batches = (
                    (images[index_B], labels[index_B])
                    for index_B in epoch_batches(len(labels), batch_size, torch.default_generator)
                )
                self._record("finetune", learner.fit(batches))
        self.classifier.prototype_weight = weight

    @torch.inference_mode()
    def confusion(self, images: ImageArrays) -> npt.NDArray[np.int64]:
        """Counts (C, C) over all the images: row the true class, column the predicted one."""
        self.classifier.eval()
        counts = np.zeros((self.num_classes, self.num_classes), dtype=np.int64)
        size = self._config.evaluate.batch_size
        for start in range(0, len(images.labels_N), size):
            batch = to_tensor(images.images_NCHW[start : start + size]).to(self.device)
            predicted_B = self.classifier(to_input(batch)).argmax(dim=1).cpu().numpy()
            np.add.at(counts, (images.labels_N[start : start + size], predicted_B), 1)
        return counts

    @torch.inference_mode()
    def check_outputs(self) -> None:
        """Looks at what the model has become, for a step's loss is that of the weights before it.

        Raises:
            ClientError: its logits of some of the client's own images are not finite.
        """
        self.classifier.eval()
        logits_BC = self.classifier(to_input(self._images(torch.arange(min(_NUM_PROBES, self.num_images)))))
        if not logits_BC.isfinite().all():
            raise ClientError(self.id, self.round, "outputs", "the logits of its own images are not finite")

    def state_dict(self) -> dict[str, Any]:
        """All that a client remembers from round to round: weights and optimizers; of tensors and plain values."""
        learners = {"classifier": self._classifier_learner, "generator": self._generator_learner}
        return {name: learner.state_dict() for name, learner in learners.items() if learner is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, on a client of the same spec and method."""
        self._classifier_learner.load_state_dict(state["classifier"])
        if self._generator_learner is not None:
            self._generator_learner.load_state_dict(state["generator"])

    def weights_digest(self) -> str:
        """SHA-256 of the weights of its modules."""
        return weights_digest(*(module for module in (self.classifier, self.generator) if module is not None))

    def _real_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        labels_N = self._labels()
        for index_B in epoch_batches(self.num_images, batch_size, torch.default_generator):
            images = augment(to_input(self._images(index_B)), self._config.data.augment, torch.default_generator)
            yield images, labels_N[index_B]

    def _images(self, index_B: Tensor) -> Tensor:
        # Fancy indexing copies the batch out of the shared, read-only array; nothing else of it is copied.
        return torch.from_numpy(self._data.train.images_NCHW[self._indices_N[index_B].numpy()]).to(self.device)

    def _labels(self) -> Tensor:
        return torch.from_numpy(self._data.train.labels_N[self._indices_N.numpy()]).to(self.device)

    def _own_inputs(self) -> tuple[Tensor, Tensor]:
        inputs = to_input(self._images(torch.arange(self.num_images)))
        return augment(inputs, self._config.data.augment, torch.default_generator), self._labels()

    @torch.no_grad()
    def _own_features(self) -> tuple[Tensor, Tensor]:
        self.classifier.eval()
        size = self._config.evaluate.batch_size
        chunks: Sequence[Tensor] = torch.arange(self.num_images).split(size)
        features = [self.classifier.features(to_input(self._images(index_B))) for index_B in chunks]
        return torch.cat(features), self._labels()

    def _record(self, phase: str, terms: dict[str, float]) -> None:
        for name, value in terms.items():
            if not np.isfinite(value):
                raise ClientError(self.id, self.round, phase, f"{name} is {value}")
            key = f"loss/{phase}" if name == "loss" else f"loss/{name}"
            # Terms belong to local training and the generator; fine-tuning must not write over them.
            if name == "loss" or phase in ("train", "generator"):
                self.scalars[key] = value


@contextmanager
def _frozen(module: ClassifierModule) -> Iterator[None]:
    module.eval()
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)

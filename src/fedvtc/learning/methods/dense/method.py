"""The client's half of DENSE.

Shapes: B images of a batch, N images in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fedvtc.learning.exchange.messages import Arrays, Broadcast, Upload
from fedvtc.learning.methods.base import ServerState
from fedvtc.learning.methods.dense.config import DENSEConfig
from fedvtc.learning.methods.fedavg import largest_model
from fedvtc.learning.methods.local import LocalRounds

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from fedvtc.learning.client.client import FederatedClient
    from fedvtc.learning.data.generated import GeneratedImages
    from fedvtc.learning.models.classifier import ClassifierModule
    from fedvtc.learning.server import Server


class DENSE(LocalRounds[DENSEConfig]):
    """Trains as local; then uploads models once, and broadcasts invented images with the models' answers."""

    config_class = DENSEConfig

    def closing_upload(self, client: FederatedClient, broadcast: Broadcast) -> Upload:
        """Uploads the whole model, and for `label_weighted` the images of each class."""
        from fedvtc.learning.models.weights import weights_of

        counts_C = client.images.counts_C(self.task.num_classes)
        return client.upload({"model": weights_of(client.classifier), **self._labels(counts_C)})

    def closing_server(self, state: ServerState, uploads: Iterable[Upload], server: Server) -> Broadcast:
        """Invents batches of images; distils a model of the first backbone, which the next images shall confuse."""
        import torch

        from fedvtc.learning.data.generated import GeneratedImages
        from fedvtc.learning.methods.dense.invention import blank, invented, teacher_of

        if server.is_idle:
            pool = blank(self.config.generation, self.task)
        else:
            pool = invented(self.config, self.task, teacher_of(self.task, uploads), server)
        logits_NC = torch.cat([logits for _, logits in pool])
        images = GeneratedImages.of([batch for batch, _ in pool], [logits_NC.argmax(dim=1)]).to_arrays()
        return Broadcast(server.round, {"images": {"pixels": images["pixels"], "logits": logits_NC.numpy()}})

    @property
    def has_finish(self) -> bool:
        """True: every client learns from the images."""
        return True

    def finish(self, client: FederatedClient, broadcast: Broadcast) -> None:
        """Trains the client's model on T^2 KL(softmax(a / T) || softmax(f / T)), a the mean answer."""
        from fedvtc.learning.methods.dense.invention import answer_loss
        from fedvtc.learning.models.optimizers import build_optimizer

        stepper = build_optimizer(client.classifier.parameters(), self.config.finetune.optimizer)
        with client.phase("finetune"):
            for _ in range(self.config.finetune.epochs):
                batches = self._batches(client, broadcast)
                loss = answer_loss(client.classifier, self.config.temperature)
                client.fit("classifier", batches, loss=loss, optimizer=stepper, record_terms=False)

    def samples(
        self, client: FederatedClient, broadcast: Broadcast, *, num_per_class: int
    ) -> tuple[Tensor, Tensor] | None:
        """Returns the first images of each class in the answers; None before the images are invented."""
        if "images" not in broadcast.payload:
            return None
        return _read(broadcast).first(num_per_class)

    def largest_closing(self) -> Upload:
        """Builds the closing upload of the largest model."""
        counts_C = np.ones(self.task.num_classes, dtype=np.int64)
        return largest_model(replace(super().largest_closing(), payload=self._labels(counts_C)), self.task)

    def working_bytes(self, classifier: ClassifierModule, *, samples_per_class: int) -> Mapping[str, int]:
        """Returns the memory of a step on the images, which a client keeps as pixels and answers."""
        from fedvtc.learning.methods._step_bytes import classifier_bytes

        generation, task = self.config.generation, self.task
        num_bytes = task.num_channels * task.image_size**2 + 4 * task.num_classes
        step = classifier_bytes(classifier, task, self.config.finetune.batch_size, new_optimizer=True)
        return {"method.finetune.batch_size": generation.batches * generation.batch_size * num_bytes + step}

    def _labels(self, counts_C: NDArray[np.int64]) -> dict[str, Arrays]:
        is_sent = self.config.ensemble == "label_weighted"
        return {"labels": {"count": counts_C.astype(np.int32)}} if is_sent else {}

    def _batches(self, client: FederatedClient, broadcast: Broadcast) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields one shuffled epoch of images and answers."""
        import torch

        from fedvtc.learning.data.module import epoch_batches, to_tensor

        invented, logits_NC = _read(broadcast), to_tensor(broadcast.payload["images"]["logits"])
        for index_B in epoch_batches(len(invented), self.config.finetune.batch_size, torch.default_generator):
            yield invented.batch(index_B, client.device)[0], logits_NC[index_B].to(client.device)


def _read(broadcast: Broadcast) -> GeneratedImages:
    from fedvtc.learning.data.generated import GeneratedImages

    arrays = broadcast.payload["images"]
    return GeneratedImages.from_arrays({"pixels": arrays["pixels"], "labels": arrays["logits"].argmax(axis=1)})

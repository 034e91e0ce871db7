"""A bare PyTorch training loop of one client, without fedvtc: the reference of the benchmarks."""

import os

import torch
from torch.nn import functional

from fedvtc.config.schema import Config
from fedvtc.learning.data import Dataset
from fedvtc.learning.models import build_backbone
from fedvtc.learning.models.optimizers import build_optimizer
from fedvtc.learning.population import ClientSpec

# Lightning, which the imports above bring, sets this variable; a bare loop must not pay for Lightning.
os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)


def bare_model(backbone: str, config: Config, dataset: Dataset) -> torch.nn.Module:
    """A client's model, in the memory layout of clients in a federation."""
    size = config.population.feature_size
    trunk = build_backbone(
        backbone, num_channels=dataset.num_channels, image_size=dataset.image_size, feature_size=size
    )
    model = torch.nn.Sequential(trunk, torch.nn.Linear(size, dataset.num_classes))
    return model.to(memory_format=torch.channels_last)


class BareClient:
    """A minimal training loop: pixels in memory, batches by index, losses added up once an epoch."""

    def __init__(self, spec: ClientSpec, config: Config, dataset: Dataset, model: torch.nn.Module) -> None:
        self.model, self.batch_size = model, config.training.batch_size
        self.optimizer = build_optimizer(model.parameters(), config.training.optimizer)
        self.images = torch.from_numpy(dataset.train.images_NCHW[spec.indices_N])
        self.labels = torch.from_numpy(dataset.train.labels_N[spec.indices_N])

    def train(self) -> float:
        self.model.train()
        losses = []
        for index in torch.randperm(len(self.labels)).split(self.batch_size):
            self.optimizer.zero_grad()
            inputs = self.images[index].float() / 127.5 - 1.0
            loss = functional.cross_entropy(self.model(inputs), self.labels[index])
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

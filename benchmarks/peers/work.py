"""The work of every engine: its images, its model and its turns. Imports PyTorch and NumPy only.

Shapes: N images, B images in a batch, W weights.
"""

import json
import os
import sys

import numpy as np
import torch
from torch import Tensor, nn

CLIENTS, PARTICIPANTS, IMAGES_EACH = 100, 20, 600
BATCH_SIZE, LEARNING_RATE, MOMENTUM = 32, 0.01, 0.9
IMAGES = "PEERS_IMAGES"
"""Variable with the file of all images."""


class Cnn(nn.Module):
    """The layers of `cnn_2x8` and its classifier, with the defaults of `population.feature_size`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.GroupNorm(2, 8), nn.ReLU(inplace=True)),
            *(nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.GroupNorm(4, 16), nn.ReLU(inplace=True)),
            *(nn.AvgPool2d(2, ceil_mode=True), nn.Flatten(), nn.Linear(256, 64)),
            *(nn.LayerNorm(64, elementwise_affine=False), nn.Linear(64, 10)),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def new_model() -> Cnn:
    torch.manual_seed(0)
    return Cnn().to(memory_format=torch.channels_last)


def new_optimizer(model: nn.Module) -> torch.optim.SGD:
    """The optimizer of a client in a round."""
    return torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)


def clients() -> list[tuple[Tensor, Tensor]]:
    """Images (N, 1, 28, 28) in [-1, 1] and labels (N) of each client, from the file that `run.py` wrote."""
    with np.load(os.environ[IMAGES]) as arrays:
        images, labels, parts = arrays["images"], arrays["labels"], arrays["parts"]
    return [(torch.from_numpy(images[part]).float() / 127.5 - 1.0, torch.from_numpy(labels[part])) for part in parts]


def batches(images: Tensor, labels: Tensor):
    """Batches of a client in memory, in a new order; the last batch is smaller."""
    for index in torch.randperm(len(labels)).split(BATCH_SIZE):
        yield images[index], labels[index]


class Turns:
    """Rounds of an engine in its own process, each on a command of `run.py`. Made before anything can print."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        # Engines print on their own; all of that goes to the standard error.
        self._replies = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def wait(self) -> bool:
        """Reports that the last round is over, and waits for the command to run a round; False if there is no other."""
        self._say("ready")
        return sys.stdin.readline().strip() == "round"

    def end(self, weights: list[np.ndarray]) -> None:
        """Reports the mean model, in the order of the weights of `Cnn`."""
        self._say(json.dumps([weight.tolist() for weight in weights]))

    def _say(self, line: str) -> None:
        print(line, file=self._replies, flush=True)

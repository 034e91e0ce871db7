"""Measures the generated images of finished runs: right labels, variety, and closeness to training images.

    python benchmarks/generated_images.py RUN_FOLDER ... [--per-class 200] [--judge-epochs 2]

Draws images as fine-tuning does, from the Gaussians and generators of the last broadcast. A judge, a CNN that is
trained on all training images of the data set, gives labels and features.

* agreement: share of generated images that the judge gives the label of the draw.
* coverage: share of test images with a generated image nearer than their fifth nearest test image, in the judge's
  features (Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020). `real` is the
  coverage by as many training images.
* nearness: median over generated images of the distance to the nearest of the clients' training images, over the
  distance to the nearest of as many test images, in pixels. A value below 1 is a sign of memorisation.
  `nearer` is the share of generated images that are nearer to a training image.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fedvtc.federation.finished import FinishedRun, finished_run
from fedvtc.learning.data import ImageArrays
from fedvtc.learning.data.module import epoch_batches, to_input, to_tensor
from fedvtc.learning.population import Population

NEIGHBOURS = 5


def main() -> None:
    """Prints a line for each run folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN_FOLDER")
    parser.add_argument("--per-class", type=int, default=200, help="images of each class and each kind")
    parser.add_argument("--judge-epochs", type=int, default=2)
    words = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    judge: nn.Module | None = None
    for folder in words.folders:
        with finished_run(folder) as run:
            population = run.population
            if judge is None:
                judge = trained_judge(population, words.judge_epochs)
            images, labels_N = generated(run, words.per_class)
        print(folder.name, *measured(judge, population, images, labels_N, words.per_class), sep="  ", flush=True)


def trained_judge(population: Population, epochs: int) -> nn.Module:
    """Trains a CNN on all training images of the data set."""
    dataset = population.dataset
    judge = nn.Sequential(
        nn.LazyConv2d(32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, dataset.num_classes),
    )  # fmt: skip
    judge(torch.zeros(1, dataset.num_channels, dataset.image_size, dataset.image_size))
    optimizer = torch.optim.Adam(judge.parameters(), lr=1e-3)
    labels_N = to_tensor(dataset.train.labels_N)
    for _ in range(epochs):
        for index_B in epoch_batches(len(labels_N), 128, torch.default_generator):
            optimizer.zero_grad()
            inputs = to_input(to_tensor(dataset.train.images_NCHW[index_B.numpy()]))
            functional.cross_entropy(judge(inputs), labels_N[index_B]).backward()
            optimizer.step()
    return judge.eval()


def generated(run: FinishedRun, per_class: int) -> tuple[Tensor, Tensor]:
    """Draws images, and their labels, from the last broadcast of a run."""
    client = run.client(0)
    broadcast = run.broadcast.seen_by(client.backbone_name)
    drawn = run.method.samples(client, broadcast, num_per_class=per_class)
    if drawn is None:
        raise SystemExit(f"{run.folder.path}: the method draws no images.")
    return drawn


def measured(
    judge: nn.Module, population: Population, images: Tensor, labels_N: Tensor, per_class: int
) -> Sequence[str]:
    """Returns the figures as texts."""
    train, test = population.dataset.train, population.dataset.test
    held, tested = np.concatenate([spec.indices_N for spec in population.specs]), np.arange(len(test.labels_N))
    number = min(len(held), len(tested))
    rng = np.random.default_rng(0)
    seen, real = some_of(train, held, number, rng), some_of(train, held, min(number, len(images)), rng)
    new, tests = some_of(test, tested, number, rng), some_of(test, tested, min(2000, number), rng)
    with torch.no_grad():
        features = nn.Sequential(*list(judge)[:-1])
        agreement = (judge(images).argmax(dim=1) == labels_N).float().mean()
        tests_MD = features(tests)
        coverages = [coverage(tests_MD, features(part)) for part in (images, real)]
    nearest_seen, nearest_new = (
        torch.cat([torch.cdist(chunk, part.flatten(1)).amin(dim=1) for chunk in images.flatten(1).split(500)])
        for part in (seen, new)
    )
    ratio, share = (nearest_seen / nearest_new).median(), (nearest_seen < nearest_new).float().mean()
    return [
        f"agreement {agreement:.3f}",
        f"coverage {coverages[0]:.3f} (real {coverages[1]:.3f})",
        f"nearness {ratio:.3f} (nearer {share:.3f})",
    ]


def some_of(arrays: ImageArrays, indices: NDArray[np.int64], number: int, rng: np.random.Generator) -> Tensor:
    """Returns some of the images at the indices, drawn without repetition."""
    return to_input(to_tensor(arrays.images_NCHW[rng.choice(indices, number, replace=False)]))


def coverage(real_ND: Tensor, other_MD: Tensor) -> float:
    """Returns the share of real images with another image nearer than their fifth nearest real image."""
    radius_N = torch.cdist(real_ND, real_ND).kthvalue(NEIGHBOURS + 1, dim=1).values
    return (torch.cdist(real_ND, other_MD).amin(dim=1) < radius_N).float().mean().item()


if __name__ == "__main__":
    main()

"""Measures the generated images of finished runs: right labels, variety, and closeness to training images.

    python benchmarks/generated_images.py RUN_FOLDER ... [--per-class 200] [--judge-epochs 2]

Draws images as fine-tuning does, from the Gaussians and generators of the final clients. A judge, a CNN that is trained
on all training images of the data set, gives labels and features.

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

from fedvtc.config import load
from fedvtc.config.schema import Config
from fedvtc.learning.client.client import FederatedClient
from fedvtc.learning.data import ImageArrays
from fedvtc.learning.data.module import epoch_batches, to_input, to_tensor
from fedvtc.learning.exchange.gaussians import ClassGaussians
from fedvtc.learning.methods import Task, build, config_classes
from fedvtc.learning.methods.fedvtc.images import ImageSource
from fedvtc.learning.methods.fedvtc.steps import generator_of
from fedvtc.learning.models.weights import weights_of
from fedvtc.learning.population import Population
from fedvtc.storage.checkpoints.trees import read_tree

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
        config = load([folder / "config.yaml"], [], methods=config_classes())
        population = Population.of(config)
        if judge is None:
            judge = trained_judge(population, words.judge_epochs)
        images, labels_N = generated(config, population, folder, words.per_class)
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


def generated(config: Config, population: Population, folder: Path, per_class: int) -> tuple[Tensor, Tensor]:
    """Draws images from the final clients of a run.

    Fine-tuning has changed the backbones since the generators were trained, so the Gaussians come from the last
    checkpoint before fine-tuning.
    """
    method = build(config.method, Task.of(config, population.dataset))
    parts, generators = [], []
    for spec in population.specs:
        client = FederatedClient(spec, config, population.dataset, torch.device("cpu"))
        method.prepare(client)
        client.load_state_dict(read_tree(last_shard(folder, spec.client).read_bytes()))
        parts.append(method._gaussians(client.statistics(config.method.statistics.covariance)))
        generators.append(weights_of(generator_of(client).decoder))
    mixture = ClassGaussians.mixture(parts).to_payload()
    owner_K = np.repeat(np.arange(len(parts)), [len(part.classes_K) for part in parts])
    payload = {
        "mixture": {**mixture["prototypes"], **mixture["covariance"], "owner": owner_K},
        "generators": {name: np.stack([weights[name] for weights in generators]) for name in generators[0]},
    }
    decoder = generator_of(client).decoder
    drawn = ImageSource.of(payload, decoder, population.dataset.num_classes, client.device).draw(per_class)
    return drawn.all(), drawn.labels_N


def last_shard(folder: Path, client: int) -> Path:
    """Returns the state of a client in the newest checkpoint of a round."""
    return max((folder / "checkpoints").glob(f"round_*/client_{client:04d}*"))


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

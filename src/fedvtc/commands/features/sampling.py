"""Features of real and generated images by the models of clients, before and after the last step of a method.

Shapes: N images, P points, D features.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedvtc.federation.finished import FinishedRun
from fedvtc.learning.client.evaluation import features
from fedvtc.learning.data import ImageArrays
from fedvtc.learning.data.generated import to_pixels
from fedvtc.learning.seeding import SERVER, numpy_generator
from fedvtc.reporting.sample_grid import sample_grid

MAX_CLIENTS = 8
"""Most clients without a choice of clients."""
BEFORE, AFTER = "before", "after"
"""Models before and after the last step of the method; the final models of a method without a last step are `after`."""
REAL, GENERATED = "real", "generated"


class Sampled(NamedTuple):
    """Points in the space of features.

    Attributes:
        points: a mapping for each point: `client`, `backbone`, `models`, `images` and `class`.
        features_PD: features of each point.
    """

    points: list[dict[str, Any]]
    features_PD: NDArray[np.float32]


def sample(run: FinishedRun, *, clients: Sequence[int] | None = None, num_points: int) -> Sampled:
    """Returns features of the same images, as many of each class, by the models of several clients.

    Args:
        run: the finished run.
        clients: numbers of clients; None takes at most `MAX_CLIENTS`, evenly spaced.
        num_points: most points; at least one image of each class is taken.

    Raises:
        CheckpointError: a file of a checkpoint is damaged.
    """
    num_clients, dataset = len(run.population.specs), run.population.dataset
    numbers = _spaced(num_clients) if clients is None else clients
    stages = {BEFORE: run.before_last_step(), AFTER: run}
    num_models = sum(stage is not None for stage in stages.values()) * len(numbers)
    per_class = max(1, num_points // (2 * num_models * dataset.num_classes))
    generated = _generated(run, per_class)
    sets = {REAL: first_of_classes(_shuffled_test(run), per_class if generated else 2 * per_class)}
    if generated is not None:
        sets[GENERATED] = generated
    points: list[dict[str, Any]] = []
    parts = []
    for models, stage in stages.items():
        for client in stage.clients(numbers) if stage is not None else ():
            if models == BEFORE and stage is not None:
                run.method.receive(client, stage.broadcast.seen_by(client.backbone_name))
            about = {"client": client.id, "backbone": client.backbone_name, "models": models}
            for images, arrays in sets.items():
                parts.append(features(arrays, client.classifier, batch_size=run.config.evaluate.batch_size))
                names = (dataset.class_names[label] for label in arrays.labels_N)
                points += [{**about, "images": images, "class": name} for name in names]
    return Sampled(points, np.concatenate(parts))


def first_of_classes(images: ImageArrays, num_per_class: int) -> ImageArrays:
    """Returns the first images of each class, sorted by class; a class with fewer images has all of its images."""
    index_N = np.concatenate(
        [np.flatnonzero(images.labels_N == label)[:num_per_class] for label in np.unique(images.labels_N)]
    )
    return ImageArrays(images.images_NCHW[index_N], images.labels_N[index_N])


def save_real_images(run: FinishedRun, path: Path) -> None:
    """Draws real test images as samples are drawn: one row per class, equally many of each class."""
    images = _shuffled_test(run)
    present, counts = np.unique(images.labels_N, return_counts=True)
    shown = first_of_classes(images, min(run.config.evaluate.samples_per_class, *counts.tolist()))
    sample_grid(shown.images_NCHW, path, [run.population.dataset.class_names[label] for label in present])


def _spaced(num_clients: int) -> list[int]:
    return [round(number) for number in np.linspace(0, num_clients - 1, min(num_clients, MAX_CLIENTS))]


def _shuffled_test(run: FinishedRun) -> ImageArrays:
    test = run.population.dataset.test
    rng = numpy_generator(run.config.run.seed, round=0, client=SERVER, purpose="features")
    order_N = rng.permutation(len(test.labels_N))
    return ImageArrays(test.images_NCHW[order_N], test.labels_N[order_N])


def _generated(run: FinishedRun, num_per_class: int) -> ImageArrays | None:
    """Draws generated images as fine-tuning does; None if the method generates none."""
    client = run.client(0)
    broadcast = run.broadcast.seen_by(client.backbone_name)
    drawn = run.method.samples(client, broadcast, num_per_class=num_per_class)
    return drawn and ImageArrays(to_pixels(drawn[0]), drawn[1].cpu().numpy().astype(np.int64))

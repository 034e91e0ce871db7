"""Measures the privacy of a finished run, measure by measure.

Shapes: N generated images, K classes of a client, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fedvtc.federation.finished import FinishedRun
from fedvtc.learning.client.client import FederatedClient
from fedvtc.learning.data import ImageArrays
from fedvtc.learning.data.generated import to_pixels
from fedvtc.learning.privacy.inversion import invert
from fedvtc.learning.privacy.membership import membership_of
from fedvtc.learning.privacy.memorisation import MEMORISATION, Memorisation, RealImages, drawn_indices
from fedvtc.learning.privacy.neighbours import nearest
from fedvtc.learning.privacy.similarity import Similarity
from fedvtc.learning.seeding import SERVER, derive_seed, numpy_generator

MEASURES = {
    **MEMORISATION,
    "memorisation/ratio/unseen": "memorisation/ratio of real images that no client trained on, compared with the other"
    " unseen images; generated images that copy nothing have about this ratio",
    "memorisation/share/unseen": "memorisation/share of real images that no client trained on",
    "psnr/generated": "PSNR in dB of a generated image to its nearest training image, median; higher is nearer",
    "psnr/generated/max": "highest PSNR in dB of a generated image to its nearest training image; over 30 dB is a copy",
    "psnr/unseen": "PSNR in dB of an unseen real image to its nearest training image, median; a generator that copies"
    " nothing has about this value or less",
    "psnr/training": "PSNR in dB of a training image to the nearest other training image, median",
    "ssim/generated": "SSIM of a generated image to its nearest training image, median; 1 is equal",
    "ssim/generated/max": "highest SSIM of a generated image to its nearest training image",
    "ssim/unseen": "SSIM of an unseen real image to its nearest training image, median",
    "ssim/training": "SSIM of a training image to the nearest other training image, median",
    "membership/auc": "probability that a client's model has a lower loss on a training image than on an unseen image"
    " of the same classes, mean over clients; at 0.5 the attack learns nothing, at 1 all",
    "membership/auc/max": "membership/auc of the worst client",
    "membership/tpr": "share of a client's training images that the attack names while it is wrong on 1 % of the unseen"
    " images, mean over clients; 0.01 is safe",
    "membership/tpr/max": "membership/tpr of the worst client",
    "inversion/psnr": "PSNR in dB of an image reconstructed from a client's prototype to the client's nearest training"
    " image of the class, median over clients and classes",
    "inversion/psnr/max": "PSNR in dB of the best reconstruction; above 30 dB is a copy",
    "inversion/psnr/unseen": "PSNR in dB of an unseen real image to the client's nearest training image of the class,"
    " median; a reconstruction below this value reveals less than an unseen image does",
}
"""Meaning of every measure."""

IMAGES_PER_CLASS = 100
"""Generated images of each class that are measured by default."""
MAX_REFERENCES = 1000
"""Most real images whose neighbours are searched as a reference."""
MAX_UNSEEN_OF_CLASS = 50
"""Most unseen images of a class that are compared with a client's images of the class."""
NUM_WORST = 10


class Case(NamedTuple):
    """A row of a picture: a text, and images side by side."""

    text: str
    images: tuple[NDArray[np.uint8], ...]


@dataclass
class Privacy:
    """The measures of a run.

    Attributes:
        values: measures by the names of `MEASURES`; those that the run lacks are absent.
        clients: a row for each client.
        copies: the generated images with the lowest ratio, each with its nearest training and unseen image.
        inversions: the best reconstructions, each with the client's nearest training image of the class.
    """

    values: dict[str, float] = field(default_factory=dict)
    clients: list[dict[str, float | int | str | None]] = field(default_factory=list)
    copies: list[Case] = field(default_factory=list)
    inversions: list[Case] = field(default_factory=list)


def measure(
    run: FinishedRun, *, clients: Sequence[int] | None = None, images_per_class: int = IMAGES_PER_CLASS
) -> Privacy:
    """Measures generated images, and the models and prototypes of clients.

    Args:
        run: the finished run.
        clients: numbers of clients; None measures all clients.
        images_per_class: generated images of each class; a method without a generator has no measures of them.
    """
    found = Privacy()
    real = RealImages.of(run.population)
    unseen = real.unseen
    _measure_generated(run, found, real.training.images_NCHW, unseen, images_per_class)
    psnr: list[float] = []
    reference: list[float] = []
    inverted: list[tuple[float, Case]] = []
    for client in run.clients(clients):
        row: dict[str, float | int | str | None] = {"client": client.id, "backbone": client.backbone_name}
        row |= _membership(run, client, unseen)
        cases, unseen_psnr = _inversions(run, client, unseen)
        values = [value for value, _ in cases]
        row |= {"inversion/psnr": float(np.median(values)), "inversion/psnr/max": max(values)}
        found.clients.append(row)
        inverted += cases
        psnr += values
        reference += unseen_psnr
    for name in ("membership/auc", "membership/tpr"):
        attacked = [float(value) for row in found.clients if (value := row[name]) is not None]
        if attacked:
            found.values |= {name: float(np.mean(attacked)), f"{name}/max": max(attacked)}
    found.values |= {"inversion/psnr": float(np.median(psnr)), "inversion/psnr/max": max(psnr)}
    if reference:
        found.values["inversion/psnr/unseen"] = float(np.median(reference))
    inverted.sort(key=lambda case: -case[0])
    found.inversions = [case for _, case in inverted[:NUM_WORST]]
    return found


def _measure_generated(
    run: FinishedRun, found: Privacy, training: NDArray[np.uint8], unseen: ImageArrays, images_per_class: int
) -> None:
    client = run.client(0)
    broadcast = run.broadcast.seen_by(client.backbone_name)
    samples = run.method.samples(client, broadcast, num_per_class=images_per_class)
    if samples is None:
        return
    generated = to_pixels(samples[0])
    measured = Memorisation.of(generated, training, unseen.images_NCHW)
    found.values |= measured.record()
    rng = numpy_generator(run.config.run.seed, round=0, client=SERVER, purpose="privacy")
    held_out = unseen.images_NCHW[drawn_indices(rng, len(unseen.labels_N), MAX_REFERENCES)]
    if len(held_out) > 1:
        others = nearest(held_out, unseen.images_NCHW, skip_equal=True)
        reference = Memorisation(nearest(held_out, training), others, len(training), len(unseen.labels_N) - 1).record()
        names = ("memorisation/ratio", "memorisation/share")
        found.values |= {f"{name}/unseen": reference[name] for name in names}
    chosen = training[drawn_indices(rng, len(training), MAX_REFERENCES)]
    pairs = {"generated": (generated, training[measured.training.index_N])}
    pairs["unseen"] = (held_out, training[nearest(held_out, training).index_N])
    if len(training) > 1:
        pairs["training"] = (chosen, training[nearest(chosen, training, skip_equal=True).index_N])
    for name, (images, others_of) in pairs.items():
        similar = Similarity.of(images, others_of)
        found.values |= {f"psnr/{name}": float(np.median(similar.psnr_N))}
        found.values |= {f"ssim/{name}": float(np.median(similar.ssim_N))}
        if name == "generated":
            found.values |= {"psnr/generated/max": float(similar.psnr_N.max())}
            found.values |= {"ssim/generated/max": float(similar.ssim_N.max())}
    worst = np.argsort(measured.ratio_N, kind="stable")[:NUM_WORST]
    found.copies = [
        Case(
            f"ratio {measured.ratio_N[index]:.2f}",
            (
                generated[index],
                training[measured.training.index_N[index]],
                unseen.images_NCHW[measured.unseen.index_N[index]],
            ),
        )
        for index in worst.tolist()
    ]


def _membership(run: FinishedRun, client: FederatedClient, unseen: ImageArrays) -> dict[str, float | None]:
    predictor = next(iter(run.predictors(client).values()))
    client.eval()
    own = _own(run, client)
    size = run.config.evaluate.batch_size
    attack = membership_of(predictor, own, unseen, batch_size=size, device=run.device)
    return {"membership/auc": attack and attack.auc, "membership/tpr": attack and attack.tpr}


def _inversions(
    run: FinishedRun, client: FederatedClient, unseen: ImageArrays
) -> tuple[list[tuple[float, Case]], list[float]]:
    """Inverts the prototype of each class of a client; returns the cases with their PSNR, and that of unseen images."""
    own, dataset = _own(run, client), run.population.dataset
    statistics = client.statistics("scalar")
    classifier = client.classifier.eval().requires_grad_(False)
    targets_KD = torch.tensor(statistics.mean_KD, dtype=torch.float32, device=run.device)
    seed = derive_seed(run.config.run.seed, round=0, client=client.id, purpose="inversion")
    shape = (dataset.num_channels, dataset.image_size, dataset.image_size)
    images_K = invert(classifier.features, targets_KD, shape, torch.Generator().manual_seed(seed))
    cases, reference = [], []
    for label, image_CHW in zip(statistics.classes_K.tolist(), images_K, strict=True):
        of_class = own.images_NCHW[own.labels_N == label]
        psnr, near = _nearest_psnr(image_CHW[None], of_class)
        text = f"client {client.id}, {dataset.class_names[label]} ({len(of_class)})"
        cases.append((float(psnr[0]), Case(text, (image_CHW, near[0]))))
        others = unseen.images_NCHW[unseen.labels_N == label][:MAX_UNSEEN_OF_CLASS]
        if len(others):
            reference += _nearest_psnr(others, of_class)[0].tolist()
    return cases, reference


def _nearest_psnr(
    images_NCHW: NDArray[np.uint8], references_NCHW: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    near = references_NCHW[nearest(images_NCHW, references_NCHW).index_N]
    return Similarity.of(images_NCHW, near).psnr_N, near


def _own(run: FinishedRun, client: FederatedClient) -> ImageArrays:
    train, indices_N = run.population.dataset.train, run.population.specs[client.id].indices_N
    return ImageArrays(train.images_NCHW[indices_N], train.labels_N[indices_N])

"""The data card of a set of generated images: origin, content, privacy, use and limits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.federation.finished import FinishedRun
from fedvtc.learning.privacy.memorisation import MEMORISATION, Memorisation, RealImages
from fedvtc.storage import versions

CARD = """\
# Generated images of {name}

{num_images:,} images of {num_classes} classes, {channels} x {side} x {side}, made by the method `{method}` in a
federation of {num_clients} clients on the data set `{name}`.

## Files

- `images.npz`: `x_train` (uint8, N x C x H x W), `y_train` (int64), `class_names`. SHA-256 of both arrays' bytes:
  `{digest}`
- `train/CLASS/*.png`: the same images for `torchvision.datasets.ImageFolder`; a number at the start of a folder's name
  is the label

| label | class | images |
|---|---|---|
{classes}

## Origin

| | |
|---|---|
| run | `{run}`, id `{id}` |
| source data | `{name}`, SHA-256 `{hash}` |
| training images of the generators | {num_training:,}, on {num_clients} clients |
| method, seed | `{method}`, {seed} |
| fedvtc | {version} |

The licence and the terms of the source data also bind images that are derived from them.

## Privacy

Each generated image was compared with {num_training:,} training images and {num_unseen:,} images that no client
trained on, by the root mean square of pixel differences.

| measure | value | meaning |
|---|---|---|
{measures}

These numbers find copies, up to small changes. They prove no privacy: nothing here bounds what an attacker learns from
the images, and a small client can be recognised by its style. `fedvtc privacy` measures more.

## Use and limits

- Made to train or to compare classifiers. Labels are the classes that the generators were asked for; an image may not
  show its class.
- The number of images by class is chosen, so the set does not show how frequent a class is.
- Errors and imbalances of the source data, and of its division among the clients, remain.
"""


def data_card(run: FinishedRun, pixels_NCHW: NDArray[np.uint8], labels_N: NDArray[np.int64], digest: str) -> str:
    """Returns the text of the card, with the memorisation measured on all images."""
    dataset, folder = run.population.dataset, run.folder
    counts_C = np.bincount(labels_N, minlength=dataset.num_classes)
    names = zip(dataset.class_names, counts_C.tolist(), strict=True)
    real = RealImages.of(run.population)
    measured = Memorisation.of(pixels_NCHW, real.training.images_NCHW, real.unseen.images_NCHW).record()
    values: dict[str, Any] = {
        "name": dataset.name,
        "num_images": len(labels_N),
        "num_classes": int((counts_C > 0).sum()),
        "channels": dataset.num_channels,
        "side": dataset.image_size,
        "method": run.config.method.name,
        "num_clients": len(run.population.specs),
        "digest": digest,
        "classes": "\n".join(f"| {label} | {name} | {count} |" for label, (name, count) in enumerate(names)),
        "run": folder.name,
        "id": folder.id,
        "hash": folder.data_hash or "unknown",
        "num_training": len(real.training_T),
        "num_unseen": len(real.unseen_U),
        "seed": run.config.run.seed,
        "version": versions.installed()["fedvtc"],
        "measures": "\n".join(f"| {key} | {value:.3f} | {MEMORISATION[key]} |" for key, value in measured.items()),
    }
    return CARD.format(**values)

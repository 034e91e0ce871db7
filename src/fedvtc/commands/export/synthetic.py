"""Exports a set of generated images: an npz file, folders by class, and a data card.

Shapes: N images.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedvtc.commands.export.card import data_card
from fedvtc.commands.export.files import file_name
from fedvtc.errors import count_of
from fedvtc.federation.finished import FinishedRun
from fedvtc.learning.data.generated import to_pixels

SET_FILE = "images.npz"


def save_synthetic(run: FinishedRun, folder: Path, num_per_class: int) -> list[str]:
    """Writes generated images into `synthetic/`; returns a line, or none if the method generates no images."""
    client = run.client(0)
    broadcast = run.broadcast.seen_by(client.backbone_name)
    drawn = run.method.samples(client, broadcast, num_per_class=num_per_class)
    if drawn is None:
        return []
    pixels_NCHW, labels_N = to_pixels(drawn[0]), drawn[1].cpu().numpy().astype(np.int64)
    names = run.population.dataset.class_names
    synthetic = folder / "synthetic"
    synthetic.mkdir()
    np.savez_compressed(synthetic / SET_FILE, x_train=pixels_NCHW, y_train=labels_N, class_names=np.array(names))
    folders = class_folders(names)
    for label, name in enumerate(folders):
        of_class = pixels_NCHW[labels_N == label]
        if len(of_class):
            _save_images(of_class, synthetic / "train" / name)
    digest = hashlib.sha256(pixels_NCHW.tobytes() + labels_N.tobytes()).hexdigest()
    (synthetic / "README.md").write_text(data_card(run, pixels_NCHW, labels_N, digest), encoding="utf-8")
    return [f"{count_of(len(labels_N), 'generated image')} of {count_of(len(np.unique(labels_N)), 'class')}"]


def class_folders(names: tuple[str, ...]) -> list[str]:
    """Returns a folder name for each class, which sort in the order of the classes, as ImageFolder numbers them."""
    width = len(str(len(names) - 1))
    numbers = [f"{label:0{width}d}" for label in range(len(names))]
    is_numbered = all(name == str(label) for label, name in enumerate(names))
    return numbers if is_numbered else [f"{n}_{file_name(name)}" for n, name in zip(numbers, names, strict=True)]


def _save_images(pixels_NCHW: NDArray[np.uint8], folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, image_CHW in enumerate(pixels_NCHW):
        image_HWC = image_CHW.transpose(1, 2, 0)
        image = Image.fromarray(image_HWC.squeeze(2) if len(image_CHW) == 1 else image_HWC)
        image.save(folder / f"{number:05d}.png")

"""Which training images each client holds: index lists drawn from the labels, and their file.

Shapes: N training images, K clients, C classes, G groups divided one by one: the classes, or all images as one.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.config.schema import PartitionConfig
from fedvtc.errors import DataError
from fedvtc.learning.seeding import SERVER, numpy_generator

Indices = NDArray[np.int64]


def make_partition(
    labels_N: NDArray[Any], num_classes: int, num_clients: int, config: PartitionConfig, seed: int
) -> list[Indices]:
    """Divides the training images among the clients.

    Args:
        labels_N: class of each training image.
        num_classes: classes of the data set; one without images is passed over.
        num_clients: K, at least 1.
        config: the kind of partition and its settings.
        seed: the federation's; the only source of randomness.

    Returns:
        Per client its image indices, ascending. The clients' lists are disjoint; without `images_per_client` they hold
        every image (a partition from a file holds what the file holds).

    Raises:
        DataError: if no such partition exists, or none was drawn in `max_redraws` draws.
    """
    labels_N = np.asarray(labels_N)
    _check_possible(len(labels_N), num_clients, config)
    if config.kind == "file":
        parts = _from_file(labels_N, num_clients, config)
    else:
        rng = numpy_generator(seed, round=0, client=SERVER, purpose="partition")
        parts = _draw_parts(labels_N, num_classes, num_clients, config, rng)
    if config.images_per_client is not None:
        parts = [_capped(part, config.images_per_client, seed, client) for client, part in enumerate(parts)]
    return parts


def class_counts(labels_N: NDArray[Any], parts: Sequence[Indices], num_classes: int) -> NDArray[np.int64]:
    """Images of each client and class, (K, C) int64."""
    counts = [np.bincount(labels_N[part], minlength=num_classes) for part in parts]
    return np.stack(counts).astype(np.int64)


def _check_possible(num_images: int, num_clients: int, config: PartitionConfig) -> None:
    if num_clients > num_images:
        raise DataError(
            f"population.num_clients: {num_clients} clients cannot share {num_images} training images."
            f" At most {num_images // max(1, config.min_images)} clients would work."
        )
    if num_clients * config.min_images > num_images:
        raise DataError(
            f"partition.min_images: {num_clients} clients with at least {config.min_images} images each need"
            f" {num_clients * config.min_images}, there are {num_images}."
            f" At most {num_images // num_clients} would work."
        )
    if config.images_per_client is not None and config.images_per_client < max(1, config.min_images):
        raise DataError(
            f"partition.images_per_client: {config.images_per_client} is fewer than each client must hold."
            f" At least {max(1, config.min_images)} (partition.min_images) would work."
        )


def _draw_parts(
    labels_N: NDArray[Any], num_classes: int, num_clients: int, config: PartitionConfig, rng: np.random.Generator
) -> list[Indices]:
    """Draws how many images of each group each client gets until that suits, and only then deals the images out."""
    if config.kind in ("iid", "quantity"):
        groups = [np.arange(len(labels_N))]
    else:
        by_class = [np.flatnonzero(labels_N == label) for label in range(num_classes)]
        groups = [group for group in by_class if len(group)]
    if config.kind == "shards":
        _check_shards(len(groups), num_clients, config.classes_per_client)
    lengths_G = np.array([len(group) for group in groups])
    for _ in range(config.max_redraws):
        sizes_GK = _divide(lengths_G, _draw_shares(len(groups), num_clients, config, rng))
        if sizes_GK.sum(axis=0).min() >= config.min_images:
            return _deal(groups, sizes_GK, rng)
    remedy = "fewer clients or a smaller partition.min_images"
    if config.kind != "shards":
        remedy = f"a larger partition.alpha (now {config.alpha:g}), {remedy}"
    raise DataError(
        f"partition.min_images: none of {config.max_redraws} draws of {config.kind} gave each of {num_clients} clients"
        f" {config.min_images} images. Try {remedy}, or more partition.max_redraws."
    )


def _draw_shares(
    num_groups: int, num_clients: int, config: PartitionConfig, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The share of each group that each client gets, (G, K), rows adding up to 1."""
    if config.kind == "iid":
        return np.full((num_groups, num_clients), 1.0 / num_clients)
    if config.kind != "shards":
        return rng.dirichlet(np.full(num_clients, config.alpha), size=num_groups)
    holds_GK: NDArray[np.float64] = np.zeros((num_groups, num_clients))
    for client in range(num_clients):
        # The classes held by fewest so far, ties by lot: the numbers of holders never differ by more than one.
        fewest_first = np.lexsort((rng.random(num_groups), holds_GK.sum(axis=1)))
        holds_GK[fewest_first[: config.classes_per_client], client] = 1.0
    shares_GK: NDArray[np.float64] = holds_GK / holds_GK.sum(axis=1, keepdims=True)
    return shares_GK


def _check_shards(num_classes: int, num_clients: int, classes_per_client: int) -> None:
    if classes_per_client > num_classes:
        raise DataError(
            f"partition.classes_per_client: {classes_per_client} classes of {num_classes}."
            f" 1 to {num_classes} would work."
        )
    if num_clients * classes_per_client < num_classes:
        raise DataError(
            f"partition.classes_per_client: {num_clients} clients with {classes_per_client} classes each leave some of"
            f" {num_classes} classes to nobody. At least {-(-num_classes // num_clients)} would work."
        )


def _divide(lengths_G: NDArray[np.int64], shares_GK: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole images for fractional shares, (G, K); each row adds up to its group's length."""
    # Rounding down alone would take an image from whoever stands just below a whole number only by floating point.
    ends_GK = np.floor(np.cumsum(shares_GK, axis=1) * lengths_G[:, None] + 1e-6).astype(np.int64)
    ends_GK = np.minimum(ends_GK, lengths_G[:, None])
    ends_GK[:, -1] = lengths_G
    sizes_GK: NDArray[np.int64] = np.diff(ends_GK, axis=1, prepend=0)
    return sizes_GK


def _deal(groups: Sequence[Indices], sizes_GK: NDArray[np.int64], rng: np.random.Generator) -> list[Indices]:
    num_clients = sizes_GK.shape[1]
    indices = np.concatenate([rng.permutation(group) for group in groups])
    owners = np.concatenate([np.repeat(np.arange(num_clients), sizes_K) for sizes_K in sizes_GK])
    # Sorted by client, then by index, so that one cut per client gives ascending lists.
    order = np.lexsort((indices, owners))
    return np.split(indices[order].astype(np.int64), np.cumsum(sizes_GK.sum(axis=0))[:-1])


def _capped(part: Indices, most: int, seed: int, client: int) -> Indices:
    if len(part) <= most:
        return part
    rng = numpy_generator(seed, round=0, client=client, purpose="partition")
    return np.sort(rng.choice(part, size=most, replace=False))


def _from_file(labels_N: NDArray[Any], num_clients: int, config: PartitionConfig) -> list[Indices]:
    if config.file is None:
        raise DataError("partition.file: partition.kind=file needs it. The partition.npz of a run folder would work.")
    parts = load_partition(os.path.expanduser(config.file), labels_N, num_clients)
    fewest = min(len(part) for part in parts)
    if fewest < config.min_images:
        raise DataError(
            f"{config.file}: a client holds {fewest} images, fewer than {config.min_images}."
            " A smaller partition.min_images would work."
        )
    return parts


def save_partition(path: str | Path, parts: Sequence[Indices], labels_N: NDArray[Any] | None = None) -> None:
    """Writes a partition as .npz, readable with NumPy alone.

    Client k holds `indices[offsets[k]:offsets[k + 1]]`; `labels`, where given, are those of all training images.
    """
    arrays = {
        "indices": np.concatenate(parts).astype(np.int64),
        "offsets": np.cumsum([0, *(len(part) for part in parts)]).astype(np.int64),
    }
    if labels_N is not None:
        arrays["labels"] = np.asarray(labels_N)
    # An open file: given a name, NumPy would append .npz to it.
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_partition(path: str | Path, labels_N: NDArray[Any], num_clients: int) -> list[Indices]:
    """Reads what `save_partition` wrote.

    Args:
        path: the file.
        labels_N: class of each training image; where the file holds labels too, they must be the same.
        num_clients: clients that the partition must have.

    Raises:
        DataError: if the file is absent, damaged, or of other data or another number of clients.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            indices, offsets, saved_labels_N = arrays["indices"], arrays["offsets"], arrays.get("labels")
    except FileNotFoundError:
        raise DataError(f"{path}: no such partition file. The partition.npz of a run folder would work.") from None
    except Exception as error:  # NumPy and the readers below it raise whatever a flipped bit leads them to.
        remedy = "The partition.npz of a run folder would work."
        raise DataError(f"{path}: not a partition file ({error}). {remedy}") from None
    _check_saved(path, indices, offsets)
    if len(offsets) != num_clients + 1:
        held = len(offsets) - 1
        raise DataError(f"{path}: holds {held} clients, population.num_clients is {num_clients}. Set that to {held}.")
    if len(indices) and not (indices.min() >= 0 and indices.max() < len(labels_N)):
        raise DataError(
            f"{path}: holds image indices {indices.min()} to {indices.max()}, there are {len(labels_N)} training"
            " images. The data set that it was made for would work."
        )
    if saved_labels_N is not None and not np.array_equal(saved_labels_N, labels_N):
        raise DataError(
            f"{path}: was made for training images of other labels. The data set that it was made for would work."
        )
    if len(np.unique(indices)) != len(indices):
        raise DataError(f"{path}: gives some images to more than one client. Make each image index occur once.")
    return [np.sort(part) for part in np.split(indices.astype(np.int64), offsets[1:-1])]


def _check_saved(path: str | Path, indices: NDArray[Any], offsets: NDArray[Any]) -> None:
    whole = all(array.ndim == 1 and array.dtype.kind in "iu" for array in (indices, offsets))
    offsets = offsets.astype(np.int64) if whole else offsets
    if not whole or not len(offsets) or offsets[0] != 0 or offsets[-1] != len(indices) or (np.diff(offsets) < 0).any():
        raise DataError(
            f"{path}: damaged, its indices and offsets do not fit together."
            " The partition.npz of a run folder would work."
        )

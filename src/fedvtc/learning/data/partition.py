"""Divides the training images among the clients, as index lists.

Shapes: N training images, K clients, C classes, G groups that are divided one by one: each class, or all images.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.config.schema import PartitionConfig
from fedvtc.errors import DataError, count_of
from fedvtc.learning.data.client_mixes import client_mixes
from fedvtc.learning.data.partition_file import Indices, load_partition
from fedvtc.learning.seeding import SERVER, numpy_generator

_NEARLY = 2
"""Most clients with too few images in the best draw for which more draws can help."""


def make_partition(
    labels_N: NDArray[Any],
    num_classes: int,
    num_clients: int,
    config: PartitionConfig,
    seed: int,
    groups_N: NDArray[np.int64] | None = None,
) -> list[Indices]:
    """Divides the training images among the clients.

    Args:
        labels_N: class of each training image.
        num_classes: classes of the data set; classes without images are skipped.
        num_clients: clients K, at least 1.
        config: kind of partition and its settings.
        seed: the federation's seed, the only source of randomness.
        groups_N: group, such as the user, of each training image; None if the data set names no groups.

    Returns:
        Ascending image indices of each client. The lists are disjoint, except those of kind `all`. Without
        `images_per_client` they cover all images, except that a partition from a file covers the images of the file,
        and a partition by groups those of the groups drawn.

    Raises:
        DataError: no such partition exists, or none was found in `max_redraws` draws.
    """
    labels_N = np.asarray(labels_N)
    if config.kind != "all":
        _check_possible(len(labels_N), num_clients, config)
    if config.kind == "all":
        parts = [np.arange(len(labels_N))] * num_clients
    elif config.kind == "file":
        parts = _from_file(labels_N, num_clients, config)
    elif config.kind == "groups":
        parts = _by_group(groups_N, len(labels_N), num_clients, config, seed)
    else:
        rng = numpy_generator(seed, round=0, client=SERVER, purpose="partition")
        parts = _draw_parts(labels_N, num_classes, num_clients, config, rng)
    if config.images_per_client is not None:
        parts = [_capped(part, config.images_per_client, seed, client) for client, part in enumerate(parts)]
        if config.kind == "shards":
            _check_kept(labels_N, parts, config)
    return parts


def class_counts(labels_N: NDArray[Any], parts: Sequence[Indices], num_classes: int) -> NDArray[np.int64]:
    """Counts the images of each client and class, (K, C) int64."""
    counts = [np.bincount(labels_N[part], minlength=num_classes) for part in parts]
    return np.stack(counts).astype(np.int64)


def split_validation(
    part_N: Indices, labels_N: NDArray[Any], share: float, seed: int, client: int
) -> tuple[Indices, Indices]:
    """Draws the validation images of a client: of each class the share of its images, rounded down.

    Returns:
        Ascending indices of the training images, which hold every class of the part, and of the validation images.
    """
    rng = numpy_generator(seed, round=0, client=client, purpose="validation")
    drawn = []
    for label in np.unique(labels_N[part_N]):
        own = part_N[labels_N[part_N] == label]
        drawn.append(rng.permutation(own)[: int(share * len(own))])
    validation_M = np.sort(np.concatenate(drawn)) if drawn else np.empty(0, dtype=np.int64)
    return np.setdiff1d(part_N, validation_M), validation_M


def _check_possible(num_images: int, num_clients: int, config: PartitionConfig) -> None:
    if num_clients > num_images:
        raise DataError(
            f"population.num_clients: {num_clients} clients cannot share {count_of(num_images, 'training image')}."
            f" Set at most {num_images // max(1, config.min_images)}."
        )
    if num_clients * config.min_images > num_images:
        raise DataError(
            f"partition.min_images: {num_clients} clients with at least {count_of(config.min_images, 'image')} each"
            f" need {num_clients * config.min_images} training images; there are {num_images}."
            f" Set at most {num_images // num_clients}."
        )
    if config.images_per_client is not None and config.images_per_client < max(1, config.min_images):
        raise DataError(
            f"partition.images_per_client: {config.images_per_client} is less than partition.min_images."
            f" Set at least {max(1, config.min_images)}."
        )


def _draw_parts(
    labels_N: NDArray[Any], num_classes: int, num_clients: int, config: PartitionConfig, rng: np.random.Generator
) -> list[Indices]:
    """Draws the number of images per group and client until every client has enough, then divides the images."""
    if config.kind in ("iid", "quantity"):
        groups = [np.arange(len(labels_N))]
    else:
        by_class = [np.flatnonzero(labels_N == label) for label in range(num_classes)]
        groups = [group for group in by_class if len(group)]
    if config.kind == "shards":
        _check_shards(len(groups), num_clients, config.classes_per_client)
    lengths_G = np.array([len(group) for group in groups])
    if config.kind == "client_dirichlet":
        return _deal(groups, client_mixes(lengths_G, num_clients, config.alpha, rng), rng)
    fewest_lacking = num_clients
    for _ in range(config.max_redraws):
        sizes_GK = _divide(lengths_G, _draw_shares(len(groups), num_clients, config, rng))
        num_lacking = int((sizes_GK.sum(axis=0) < config.min_images).sum())
        if num_lacking == 0:
            if config.kind == "shards":
                _check_held(groups, labels_N, sizes_GK, config.classes_per_client)
            return _deal(groups, sizes_GK, rng)
        fewest_lacking = min(fewest_lacking, num_lacking)
    raise DataError(
        f"partition.min_images: none of {config.max_redraws} draws of {config.kind} gave each of {num_clients} clients"
        f" at least {count_of(config.min_images, 'image')}; in the best draw {count_of(fewest_lacking, 'client')} had"
        f" fewer. Set {_remedies(config, fewest_lacking)}."
    )


def _remedies(config: PartitionConfig, fewest_lacking: int) -> str:
    """Returns the settings that can give each client enough images, given the lacking clients of the best draw."""
    remedies = ["a smaller population.num_clients"]
    if config.min_images > 1:
        remedies.append("a smaller partition.min_images")
    if config.kind != "shards":
        remedies.append(f"a larger partition.alpha (now {config.alpha:g})")
    if fewest_lacking <= _NEARLY:
        remedies.append("more partition.max_redraws")
    if config.kind == "dirichlet":
        remedies.append("partition.kind=client_dirichlet, which gives all clients equally many images")
    return f"{', '.join(remedies[:-1])}, or {remedies[-1]}"


def _draw_shares(
    num_groups: int, num_clients: int, config: PartitionConfig, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draws the share of each group that each client gets, (G, K); rows add up to 1."""
    if config.kind == "iid":
        return np.full((num_groups, num_clients), 1.0 / num_clients)
    if config.kind != "shards":
        return rng.dirichlet(np.full(num_clients, config.alpha), size=num_groups)
    holds_GK: NDArray[np.float64] = np.zeros((num_groups, num_clients))
    for client in range(num_clients):
        # Classes with the fewest holders first, ties at random: holder counts never differ by more than one.
        fewest_first = np.lexsort((rng.random(num_groups), holds_GK.sum(axis=1)))
        holds_GK[fewest_first[: config.classes_per_client], client] = 1.0
    shares_GK: NDArray[np.float64] = holds_GK / holds_GK.sum(axis=1, keepdims=True)
    return shares_GK


def _check_shards(num_classes: int, num_clients: int, classes_per_client: int) -> None:
    if classes_per_client > num_classes:
        raise DataError(
            f"partition.classes_per_client: {classes_per_client} is more than the {num_classes} classes of the data."
            f" Set 1 to {num_classes}."
        )
    if num_clients * classes_per_client < num_classes:
        raise DataError(
            f"partition.classes_per_client: {count_of(num_clients, 'client')} with"
            f" {count_of(classes_per_client, 'class')} each cannot hold all {num_classes} classes."
            f" Set at least {-(-num_classes // num_clients)}."
        )


def _check_held(
    groups: Sequence[Indices], labels_N: NDArray[Any], sizes_GK: NDArray[np.int64], classes_per_client: int
) -> None:
    """Refuses shards in which clients get no image of one of their classes, because the class has too few images."""
    num_short = int(((sizes_GK > 0).sum(axis=0) < classes_per_client).sum())
    if not num_short:
        return
    num_classes, num_clients = sizes_GK.shape
    smallest = min(groups, key=len)
    # Every class has at most this many clients, rounded up.
    most = len(smallest) * num_classes // classes_per_client
    fix = f"Set population.num_clients to at most {most}, or another partition.kind."
    raise DataError(
        f"partition.classes_per_client: {num_short} of {num_clients} clients would hold fewer than"
        f" {count_of(classes_per_client, 'class')}, because class {labels_N[smallest[0]]} has only"
        f" {count_of(len(smallest), 'image')}. {fix}"
    )


def _check_kept(labels_N: NDArray[Any], parts: Sequence[Indices], config: PartitionConfig) -> None:
    """Refuses a limit of images per client that takes all images of a class from clients of shards."""
    num_short = sum(len(np.unique(labels_N[part])) < config.classes_per_client for part in parts)
    if num_short:
        raise DataError(
            f"partition.images_per_client: with {config.images_per_client}, {num_short} of {len(parts)} clients hold"
            f" fewer than {count_of(config.classes_per_client, 'class')}. Set more images, or"
            " partition.classes_per_client=1."
        )


def _divide(lengths_G: NDArray[np.int64], shares_GK: NDArray[np.float64]) -> NDArray[np.int64]:
    """Converts shares to whole numbers of images, (G, K); each row adds up to its group's length."""
    # Without the 1e-6, a share just below a whole number by floating-point error would lose an image.
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


def _by_group(
    groups_N: NDArray[np.int64] | None, num_images: int, num_clients: int, config: PartitionConfig, seed: int
) -> list[Indices]:
    """Gives each client the images of one group; draws the groups if there are more than clients."""
    if groups_N is None:
        raise DataError(
            "partition.kind: groups needs the group of each training image. Put images into train/CLASS/GROUP/, or add"
            f" an array `user` with one id for each of the {num_images} training images to the .npz file."
        )
    sizes_G = np.bincount(groups_N)
    large_enough = np.flatnonzero(sizes_G >= config.min_images)
    if len(large_enough) < num_clients:
        raise DataError(
            f"population.num_clients: {num_clients} clients need a group each; {len(large_enough)} of"
            f" {len(sizes_G)} groups have at least partition.min_images={config.min_images} images."
            f" Set at most {len(large_enough)}."
        )
    rng = numpy_generator(seed, round=0, client=SERVER, purpose="partition")
    chosen = np.sort(rng.choice(large_enough, size=num_clients, replace=False))
    parts = np.split(np.argsort(groups_N, kind="stable"), np.cumsum(sizes_G)[:-1])
    return [parts[group].astype(np.int64) for group in chosen]


def _from_file(labels_N: NDArray[Any], num_clients: int, config: PartitionConfig) -> list[Indices]:
    if config.file is None:
        raise DataError("partition.file: is required with partition.kind=file. Set the partition.npz of a run folder.")
    parts = load_partition(os.path.expanduser(config.file), labels_N, num_clients)
    fewest = min(len(part) for part in parts)
    if fewest < config.min_images:
        raise DataError(
            f"{config.file}: a client holds {count_of(fewest, 'image')}, fewer than"
            f" partition.min_images={config.min_images}. Set partition.min_images to at most {fewest}."
        )
    return parts

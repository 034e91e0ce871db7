"""Assigns backbones and training images to clients."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedvtc.config.names import has_own_files
from fedvtc.config.schema import Config, PopulationConfig
from fedvtc.errors import ConfigError
from fedvtc.learning.data import (
    DataReport,
    Dataset,
    class_counts,
    load_dataset,
    load_partition,
    make_partition,
    split_validation,
)

_MAX_DENOMINATOR = 1_000_000


@dataclass(frozen=True)
class ClientSpec:
    """A client's number, backbone, and indices of its training images and of its validation images."""

    client: int
    backbone: str
    indices_N: NDArray[np.int64]
    validation_M: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def held(self) -> NDArray[np.int64]:
        """Ascending indices of all images of the client."""
        return np.union1d(self.indices_N, self.validation_M)


def assign_backbones(population: PopulationConfig) -> list[str]:
    """Assigns a backbone to each client, in client order.

    For every n, the number of the first n clients with a backbone differs from share x n by less than one; equal shares
    take turns. Source: R. Tijdeman, "The chairman assignment problem", 1980. A backbone is behind by share x n minus
    its clients so far. With k backbones, the next client takes, of the backbones that are behind by at least
    1 / (2k - 2), the backbone that will first be behind by 1 - 1 / (2k - 2); on a tie, the earlier in the list. The
    simpler rule, always the backbone that is furthest behind, can be wrong by a whole client with six backbones.
    """
    backbones = population.backbones
    # Fractions, because rounding errors (0.1 x 3 is not 0.3 in floating point) would break ties.
    raw_shares = [Fraction(backbone.share).limit_denominator(_MAX_DENOMINATOR) for backbone in backbones]
    shares = [share / sum(raw_shares) for share in raw_shares]
    least_behind = Fraction(1, max(1, 2 * len(backbones) - 2))

    num_dealt = [0] * len(backbones)
    assigned = []
    for num_clients in range(1, population.num_clients + 1):
        behind = [share * num_clients - dealt for share, dealt in zip(shares, num_dealt, strict=True)]
        until_due = [(1 - least_behind - lag) / share for lag, share in zip(behind, shares, strict=True)]
        in_line = [index for index, lag in enumerate(behind) if lag >= least_behind]
        chosen = min(in_line, key=until_due.__getitem__)
        num_dealt[chosen] += 1
        assigned.append(backbones[chosen].name)
    return assigned


@dataclass(frozen=True, eq=False)
class Population:
    """The clients of a federation and their data.

    Attributes:
        dataset: images of all clients, and the test images.
        specs: the clients, in order of their numbers.
        class_counts_KC: training images by client and class.
        report: the facts about the data set.
    """

    dataset: Dataset
    specs: Sequence[ClientSpec]
    class_counts_KC: NDArray[np.int64]
    report: DataReport

    @classmethod
    def of(cls, config: Config, partition_file: Path | None = None) -> "Population":
        """Loads the data set and divides the training images among the clients.

        Args:
            config: the federation's config.
            partition_file: partition of a resumed run, read instead of drawing a new one.

        Raises:
            ConfigError: a new run names a file that the config does not use.
            DataError: the data set is absent or damaged, or the partition is impossible or belongs to other data.
        """
        if partition_file is None:
            _check_used(config)
        dataset = load_dataset(config.data)
        labels_N, num_clients = dataset.train.labels_N, config.population.num_clients
        if partition_file is not None:
            overlaps = config.partition.kind == "all"
            parts = load_partition(partition_file, labels_N, num_clients, may_overlap=overlaps)
        else:
            parts = make_partition(
                labels_N, dataset.num_classes, num_clients, config.partition, config.run.seed, dataset.groups_N
            )
        backbones = assign_backbones(config.population)
        share, seed = config.evaluate.validation_share, config.run.seed
        specs = [
            ClientSpec(client, backbone, *split_validation(part, labels_N, share, seed, client))
            for client, (backbone, part) in enumerate(zip(backbones, parts, strict=True))
        ]
        trained = [spec.indices_N for spec in specs]
        if share:
            # Parts may overlap, and a client must not be validated on images that it has trained on.
            validation_N = np.concatenate([spec.validation_M for spec in specs])
            dataset = replace(dataset, validation_M=np.setdiff1d(validation_N, np.concatenate(trained)))
        return cls(dataset, specs, class_counts(labels_N, trained, dataset.num_classes), DataReport.of(dataset))


def _check_used(config: Config) -> None:
    """Refuses files that another key leaves without effect: the run would use other images or another partition."""
    problems = []
    if config.data.path is not None and not has_own_files(config.data.name):
        fix = "Set data.name=npz or data.name=folder, or data.path=null."
        problems.append(f"data.path: has no effect with data.name={config.data.name}. {fix}")
    if config.partition.file is not None and config.partition.kind != "file":
        fix = "Set partition.kind=file, or partition.file=null."
        problems.append(f"partition.file: has no effect with partition.kind={config.partition.kind}. {fix}")
    if problems:
        raise ConfigError(problems)

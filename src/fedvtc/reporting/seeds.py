"""Statistics over seeds: mean and standard deviation, differences paired by seed, ranks.

Two runs of one seed have the same partition, first weights and batches, so their difference is a paired observation.
The intervals are those of Student's t distribution. A value that is not finite is a value of its run: the mean over
seeds is not finite either, has no deviation and no interval, and stands after every finite mean.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.95
"""Level of the confidence intervals."""


@dataclass(frozen=True)
class Difference:
    """The mean difference of two settings over the seeds that both have.

    Attributes:
        num_pairs: seeds that both settings have.
        mean: mean difference.
        low: lower end of the confidence interval; None with fewer than two pairs.
        high: upper end of the confidence interval; None with fewer than two pairs.
    """

    num_pairs: int
    mean: float
    low: float | None
    high: float | None


def mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Returns mean and sample standard deviation (n - 1); None without enough values, or finite ones."""
    if not all(map(math.isfinite, values)):
        # The module statistics raises an error for some of these.
        return sum(values) / len(values), None
    return (
        statistics.fmean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )


def badness(value: float, *, higher_is_better: bool) -> float:
    """Returns a number that is lowest for the best value, and infinite for a value that is not finite."""
    if not math.isfinite(value):
        return math.inf
    return -value if higher_is_better else value


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """Returns the confidence interval of the mean; None with fewer than two values."""
    # Imported here, because the import takes longer than the table of a sweep.
    from scipy.special import stdtrit

    mean, std = mean_and_std(values)
    if mean is None or std is None:
        return None
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * std / math.sqrt(len(values))
    return mean - half, mean + half


def paired_difference(
    ours: Mapping[str, float], theirs: Mapping[str, float], level: float = LEVEL
) -> Difference | None:
    """Returns the mean of ours - theirs over the seeds that both have; None without a common seed.

    Args:
        ours: value by seed.
        theirs: value by seed of the setting that is subtracted.
        level: level of the confidence interval.
    """
    differences = [value - theirs[seed] for seed, value in ours.items() if seed in theirs]
    mean, _ = mean_and_std(differences)
    if mean is None:
        return None
    low, high = interval(differences, level) or (None, None)
    return Difference(len(differences), mean, low, high)


def mean_ranks(blocks: Sequence[Sequence[float]], *, higher_is_better: bool) -> list[float]:
    """Returns the mean rank of each setting over blocks, such as seeds; 1 is the best, ties share the mean rank.

    Args:
        blocks: one value for each setting, in the same order in every block; at least one block.
        higher_is_better: True if rank 1 has the highest value.
    """
    ranks = [_ranks([badness(value, higher_is_better=higher_is_better) for value in block]) for block in blocks]
    return [statistics.fmean(own) for own in zip(*ranks, strict=True)]


def _ranks(values: Sequence[float]) -> list[float]:
    """Returns ranks from 1, the lowest value first."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]

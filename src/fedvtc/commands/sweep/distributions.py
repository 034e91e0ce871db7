"""Checks and samples the distributions under the key `random` of a sweep file."""

import math
from collections.abc import Mapping
from random import Random
from typing import Any

from fedvtc.config.problems import did_you_mean, show

KINDS = ("uniform", "log_uniform", "int", "choice")
NUM_DIGITS = 4
"""Significant digits of a drawn number, so that the name of a trial can contain the whole number."""
EXAMPLES = "Write {uniform: [0, 1]}, {log_uniform: [1e-4, 1e-2]}, {int: [1, 8]} or {choice: [a, b]}."


def fault(distribution: Any) -> tuple[str, str] | None:
    """Checks a distribution such as `{uniform: [0, 1]}`.

    Returns:
        The fault and its fix, which may be empty; None for a valid distribution.
    """
    if not isinstance(distribution, Mapping) or len(distribution) != 1:
        return f"expected one distribution, not {show(distribution)}", EXAMPLES
    ((kind, numbers),) = distribution.items()
    if kind not in KINDS:
        return f"unknown distribution {show(kind)}", did_you_mean(str(kind), KINDS)
    if not isinstance(numbers, list) or not numbers:
        return f"expected a list, not {show(numbers)}", EXAMPLES
    if kind == "choice":
        return None
    types = int if kind == "int" else (int, float)
    if len(numbers) != 2 or any(isinstance(end, bool) or not isinstance(end, types) for end in numbers):
        return f"{kind} needs two {'integers' if kind == 'int' else 'numbers'}, not {show(numbers)}", EXAMPLES
    low, high = numbers
    if not (math.isfinite(low) and math.isfinite(high) and low <= high) or (kind == "log_uniform" and low <= 0):
        condition = "0 < low <= high" if kind == "log_uniform" else "low <= high"
        return f"{kind} needs [low, high] with {condition}, not {show(numbers)}", ""
    return None


def draw(distribution: Mapping[str, Any], random: Random) -> Any:
    """Draws one value of a valid distribution; ranges include both ends, floats have `NUM_DIGITS` digits."""
    ((kind, numbers),) = distribution.items()
    if kind == "choice":
        return numbers[random.randrange(len(numbers))]
    low, high = numbers
    if kind == "int":
        return random.randint(low, high)
    is_log = kind == "log_uniform"
    value = math.exp(random.uniform(math.log(low), math.log(high))) if is_log else random.uniform(low, high)
    return float(f"{value:.{NUM_DIGITS}g}")

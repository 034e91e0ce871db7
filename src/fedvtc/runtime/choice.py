"""Chooses between Ray and this process for `placement.pool: auto`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from fedvtc.config.schema import Config
from fedvtc.learning.data.passes import pass_lengths
from fedvtc.runtime.actors.cluster import address_of, count_cpus, is_connected
from fedvtc.runtime.placement import Resources, actor_needs, num_wanted, slots

RAY_START_S = 10.0
"""Seconds until the actors of a Ray cluster that starts on this machine have imported PyTorch."""
OPERATIONS_PER_S = 2e10
"""Floating-point operations of one core in a second of training."""
STEP_S = 1e-3
"""Least seconds of a training step."""
PASSES = 3
"""A step costs a forward pass, and twice as much for the backward pass."""


def with_pool(config: Config, costs_K: Sequence[float], num_images_K: Sequence[int]) -> Config:
    """Returns the config with `ray` or `inline` instead of `placement.pool: auto`.

    Ray cannot pay if the training that other actors take over is shorter than the start of Ray, as with one actor. A
    cluster that runs already costs no start, and may have what this machine lacks.

    Args:
        config: the run's config.
        costs_K: operations of a forward pass over all images that each client trains on in a round.
        num_images_K: training images of each client.
    """
    if config.placement.pool != "auto":
        return config
    pool: Literal["ray", "inline"] = "inline"
    if address_of(config.cluster)[0] or is_connected():
        pool = "ray"
    else:
        shared_s = training_s(config, costs_K, num_images_K)
        wanted = num_wanted(config.placement, config.population.num_clients)
        # Asked only if it matters, because the count of CPUs imports Ray.
        if _gain(shared_s, wanted) > RAY_START_S and _gain(shared_s, min(wanted, _num_slots(config))) > RAY_START_S:
            pool = "ray"
    return replace(config, placement=replace(config.placement, pool=pool))


def _gain(seconds: float, num_actors: int) -> float:
    return seconds * (1 - 1 / num_actors) if num_actors else 0.0


def _num_slots(config: Config) -> int:
    node = this_machine(config)
    return slots(actor_needs(config.placement, has_gpus=node.num_gpus > 0), node)


def this_machine(config: Config) -> Resources:
    """Returns the CPUs and GPUs of a cluster that starts on this machine."""
    cluster, placement = config.cluster, config.placement
    num_gpus = cluster.num_gpus
    if num_gpus is None and placement.gpus_per_actor != 0 and placement.accelerator != "cpu":
        num_gpus = torch.cuda.device_count()
    return Resources(float(cluster.num_cpus or count_cpus()), float(num_gpus or 0))


def training_s(config: Config, costs_K: Sequence[float], num_images_K: Sequence[int]) -> float:
    """Estimates the seconds in which one core trains the models of all clients, in the whole run.

    The generators of a method come on top.
    """
    steps = sum(sum(pass_lengths(num_images, config.training)) for num_images in num_images_K)
    round_s = PASSES * sum(costs_K) / OPERATIONS_PER_S + steps * STEP_S
    return round_s * config.run.rounds * config.run.participation

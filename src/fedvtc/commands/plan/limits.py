"""Lines about the memory and the disk space that a run needs, with the keys to change if it needs too much."""

import math
import os
import shutil
from pathlib import Path

from fedvtc.commands.plan.footprint import PROCESS_BYTES, Footprint
from fedvtc.commands.plan.nodes import RAY_MEMORY_SHARE, is_local
from fedvtc.commands.plan.plan import Plan
from fedvtc.config.schema import Config
from fedvtc.reporting.tables import human_bytes
from fedvtc.runtime.placement import slots

NUM_EXAMPLES = 3
"""Most nodes with too little memory that get a line."""


def memory_lines(plan: Plan, free_bytes: float | None) -> list[str]:
    """Returns the memory of the run, and a line for each place that has less.

    Args:
        plan: the plan.
        free_bytes: free memory of this machine; None if unknown.
    """
    memory = plan.memory
    parts = {
        "processes": memory.processes,
        "images": memory.images,
        "models and optimizers": memory.models,
        f"largest steps ({memory.largest_step})": memory.steps,
    }
    summed = ", ".join(f"{name} {human_bytes(num)}" for name, num in parts.items())
    lines = [f"Memory: about {human_bytes(memory.total)} in total: {summed}."]
    if is_local(plan.config):
        if free_bytes is not None and memory.total > free_bytes:
            has = f"this machine has {human_bytes(free_bytes)} free"
            lines.append(f"Memory: {human_bytes(memory.total)} do not fit, {has}. {_memory_fix(plan, free_bytes)}")
        return lines
    return lines + _node_lines(plan, memory)


def disk_lines(plan: Plan) -> list[str]:
    """Returns the disk space of checkpoints, and a line if the disk has less."""
    checkpoint, num_bytes = plan.config.checkpoint, plan.checkpoint_bytes
    if checkpoint.every is None:
        return ["Disk: no checkpoints, because checkpoint.every is null; an interrupted run starts over."]
    # One more while the newest is written; the final checkpoint takes its place.
    most = min(checkpoint.keep, plan.config.run.rounds) + checkpoint.keep_best + 1
    place, free_bytes = _free_disk(plan.config)
    has = f"{place} has {human_bytes(free_bytes)} free" if free_bytes is not None else f"in {place}"
    needs = f"at most {most} at a time, {human_bytes(most * num_bytes)}"
    lines = [f"Disk: about {human_bytes(num_bytes)} per checkpoint, {needs}; {has}."]
    if free_bytes is not None and most * num_bytes > free_bytes:
        remedies = ["checkpoint.dir to a folder on another disk, or a URL"]
        if checkpoint.keep_best and (most - 1) * num_bytes <= free_bytes:
            remedies.append("checkpoint.keep_best=false")
        remedies.append("checkpoint.every=null for no checkpoints")
        lines.append(f"Disk: the checkpoints do not fit. Set {', or '.join(remedies)}.")
    return lines


def _memory_fix(plan: Plan, free_bytes: float) -> str:
    memory, num_actors = plan.memory, plan.packing.num_actors
    shared = memory.total - num_actors * memory.actor
    fitting = math.floor((free_bytes - shared) / memory.actor) if memory.actor else 0
    if 1 <= fitting < num_actors:
        return f"Set cluster.num_cpus={max(1, math.floor(fitting * plan.needs.num_cpus))} for fewer actors."
    if num_actors and memory.total - num_actors * PROCESS_BYTES - plan.dataset_bytes <= free_bytes:
        return "Set placement.pool=inline, which needs one process."
    if memory.total - memory.steps <= free_bytes:
        return f"Set a smaller {memory.largest_step}."
    if memory.total - memory.models - memory.steps <= free_bytes:
        return "Set a smaller population.num_clients, or smaller population.backbones."
    return "Use a machine with more memory."


def _node_lines(plan: Plan, memory: Footprint) -> list[str]:
    """Returns a line for each kind of node whose actors need more memory than the node has."""
    lines = []
    actor = max(memory.actor, PROCESS_BYTES)
    for node in dict.fromkeys(plan.total):
        num_actors = min(slots(plan.needs, node), plan.packing.num_actors)
        has = node.memory_bytes / RAY_MEMORY_SHARE
        needed = num_actors * actor + plan.dataset_bytes
        if num_actors and 0 < has < needed:
            what = f"a node with {human_bytes(has)} has slots for {num_actors} actors, which need {human_bytes(needed)}"
            fix = f"Set placement.memory_bytes_per_actor={actor}, so that Ray places fewer actors there."
            lines.append(f"Memory: {what}. {fix}")
    return lines[:NUM_EXAMPLES]


def _free_disk(config: Config) -> tuple[str, int | None]:
    """Returns the place of checkpoints, and the free space of its disk; None for a URL."""
    directory = config.checkpoint.dir or config.run.output_dir
    if "://" in directory:
        return directory, None
    place = Path(os.path.expanduser(directory)).absolute()
    existing = next((folder for folder in (place, *place.parents) if folder.exists()), Path("/"))
    return directory, shutil.disk_usage(existing).free

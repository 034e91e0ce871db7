"""The keys of how and where a federation runs, and of what it leaves behind."""

from dataclasses import dataclass, field
from typing import Literal

TRACKER_NAMES = ("wandb", "tensorboard")
"""Trackers that the package brings, besides those that every run has."""


@dataclass(frozen=True)
class PlacementConfig:
    """How clients are laid onto processes."""

    pool: Literal["ray", "inline"] = "ray"
    """`ray`: clients live in Ray actors; `inline`: in this process, one after another, for debugging and small runs."""
    clients_per_actor: int | str = "auto"
    """Clients that one actor hosts: a number, or `auto`: as few as the cluster's free slots allow."""
    max_actors: int | None = None
    """Most actors that `auto` starts, at least 1; null sets no limit."""
    cpus_per_actor: float = 1.0
    """Logical CPUs that an actor reserves."""
    gpus_per_actor: float | None = None
    """GPUs that an actor reserves: 0, a whole number, or 1/k for k actors on one GPU; null goes by
    `placement.accelerator`: 0 with `cpu`, 1 with `cuda`, and with `auto` 1 where there are GPUs."""
    memory_bytes_per_actor: int | None = None
    """Memory that an actor reserves with Ray, in bytes, at least 1; null reserves none."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Where clients compute: on the GPU that Ray gives their actor, or on its CPUs; `auto`: on a GPU where there are
    any."""
    nodes: Literal["spread", "pack"] = "spread"
    """`spread`: actors go to as many nodes as can be; `pack`: to as few."""
    wait: Literal["all", "min"] = "all"
    """`all`: the run begins once all its actors have their place; `min`: as soon as one has, and it uses places that
    come free later, up to an actor for each client."""
    wait_timeout_s: float = 0.0
    """Seconds that a cluster gets to make room where it has too little, as an autoscaler does; 0 says at once what does
    not fit."""
    threads_per_actor: int = 1
    """Threads of PyTorch in an actor; results are the same bits only for the same number."""


@dataclass(frozen=True)
class ClusterConfig:
    """The Ray cluster."""

    address: str | None = None
    """Address to attach to; null takes RAY_ADDRESS, or starts a cluster on this machine for the length of the run."""
    num_cpus: int | None = None
    """Logical CPUs of a cluster started here; null counts the machine's."""
    num_gpus: int | None = None
    """GPUs of a cluster started here; null counts the machine's."""


@dataclass(frozen=True)
class CheckpointConfig:
    """What a run leaves behind to be resumed from."""

    every: int | None = 1
    """Rounds between checkpoints, at least 1; the last round always has one; null writes none."""
    keep: int = 2
    """Newest checkpoints that are kept, at least 2, for one may be damaged; the final one is kept beside them."""
    keep_best: bool = True
    """Whether the round with the best mean generalization accuracy is kept too."""
    dir: str | None = None
    """A folder or an fsspec URL, such as s3://bucket/fedvtc, that every node reaches; a run makes a folder of its own
    in it. Null takes `checkpoints` in the run folder."""
    # Without the underscore it would be a word of Python; the key is `async`.
    async_: bool = True
    """Whether the next round goes on while a checkpoint is written."""


@dataclass(frozen=True)
class RuntimeConfig:
    """What happens when something fails."""

    on_client_error: Literal["fail", "skip", "retry"] = "fail"
    """When a client raises an error, or its loss, its upload or what its model puts out is not finite: `fail` ends the
    run; `skip` leaves the client out of the round, as it was before it; `retry` tries again `runtime.retries` times,
    then ends the run."""
    min_clients: int = 1
    """Uploads below which a round counts as failed and ends the run, at least 1."""
    retries: int = 2
    """Times that a client's step is tried again after an error under `retry`, or after its process was lost."""
    client_timeout_s: float | None = None
    """Seconds after which a process that finished no client's step counts as lost, above 0; null waits for ever."""
    replace_timeout_s: float = 30.0
    """Seconds that a new process gets to find free resources after one was lost; then its clients move to others."""
    stop_timeout_s: float = 60.0
    """Seconds that a round without a checkpoint before it may go on after the first Ctrl-C or SIGTERM."""
    on_disk_error: Literal["continue", "stop"] = "continue"
    """When a checkpoint, a record or a picture cannot be written: go on without it and say so, or stop."""


@dataclass(frozen=True)
class WandbConfig:
    """The run in Weights & Biases; what the environment says (WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY) wins."""

    project: str = "fedvtc"
    """The project."""
    entity: str | None = None
    """The user or team; null takes the default of who is logged in."""
    group: str | None = None
    """The group; null takes that of the sweep, where there is one."""
    job_type: str = "federation"
    """The type of the run within its group."""
    name: str | None = None
    """The name that is shown; null takes that of the run folder."""
    tags: list[str] = field(default_factory=list)
    """Tags besides method, data set and partition."""
    mode: Literal["online", "offline", "disabled"] | None = None
    """Where the records go: to the server, to a folder for `wandb sync`, or nowhere; null is online."""
    upload_checkpoints: bool = False
    """Whether the final checkpoint becomes an artifact."""
    timeout_s: float = 60.0
    """Seconds that the server gets to answer at the start and to take what is left at the end, above 0; the rounds
    never wait for it."""


@dataclass(frozen=True)
class TrackingConfig:
    """Where records go besides the run folder and the console."""

    trackers: list[str] = field(default_factory=list)
    """Any of `wandb`, `tensorboard`, and classes of your own as `package.module:Class`."""
    clients_every: int = 10
    """Rounds between tables and histograms over clients in trackers that show them, at least 1; they need a round with
    an evaluation, and the end always has them."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Weights & Biases."""

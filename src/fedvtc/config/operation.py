"""Sections of the config for the way a federation runs: actors, cluster, checkpoints, failures and trackers."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from fedvtc.config.section import AddedLater, IsPath, MayChange, section

LONGEST_S = 1e9
"""Longest timeout in seconds, some 30 years; timers of the operating system overflow above about 9e9 s."""

_MOVED = MayChange("Clients are distributed over actors with the new value.")
_RESERVED = MayChange("Actors reserve the new amount.")
_CLUSTER = MayChange("The run continues on the new cluster.")
_WANDB_RUN = MayChange("Starts another W&B run.")


@section
class PlacementConfig:
    """The distribution of clients over processes and nodes."""

    pool: Annotated[Literal["ray", "inline", "auto"], _MOVED] = "ray"
    """`ray`: clients live in Ray actors; `inline`: clients live in this process. `inline` is meant for debugging and
    small runs, and starts no Ray. `auto` takes `inline` where Ray cannot pay: on a machine with room for one actor, or
    if the training that further actors would take over is shorter than the start of Ray, by an estimate; in a cluster
    that runs already `auto` takes `ray`. All give equal results."""
    clients_per_actor: Annotated[Literal["auto"] | Annotated[int, Field(ge=1)], _MOVED] = "auto"
    """Most clients that one actor hosts. `auto` takes as few as the free slots of the cluster allow."""
    max_actors: Annotated[int | None, Field(ge=1), _MOVED] = None
    """Most actors that `placement.clients_per_actor=auto` starts; null sets no limit."""
    cpus_per_actor: Annotated[float, Field(gt=0), _RESERVED] = 1.0
    """Logical CPUs that an actor reserves."""
    gpus_per_actor: Annotated[float | None, Field(ge=0), _RESERVED] = None
    """GPUs that an actor reserves: 0, a whole number, or 1/k for k actors on one GPU. Null follows
    `placement.accelerator`: 1 with `cuda`, and with `auto` 1 if there are GPUs. With `cpu` an actor reserves none."""
    memory_bytes_per_actor: Annotated[int | None, Field(ge=1), _RESERVED] = None
    """Memory in bytes that an actor reserves with Ray; null reserves none."""
    client_bytes_per_actor: Annotated[int | None, Field(ge=1), MayChange(), AddedLater()] = None
    """Bytes of memory for the states of an actor's idle clients: weights and optimizers. Beyond, the states of the
    clients that worked longest ago lie in a file in the run folder, which ends with the actor. Null keeps all states in
    memory. Results are equal. With `inline` the limit is that of this process."""
    image_bytes_per_actor: Annotated[int, Field(ge=0), MayChange(), AddedLater()] = 200_000_000
    """Bytes of memory for the images of an actor's clients as floats. A client whose images have room there converts
    them once, every other client in each step; on a GPU no images are kept. Results are equal. With `inline` the limit
    is that of this process."""
    accelerator: Annotated[
        Literal["auto", "cpu", "cuda"],
        MayChange("Clients compute on the new device; other kernels may round differently."),
    ] = "auto"
    """Device that clients compute on. `auto` takes the GPU that Ray gives the actor, else the CPU."""
    nodes: Annotated[Literal["spread", "pack"], _MOVED] = "spread"
    """`spread`: actors use as many nodes as possible; `pack`: as few as possible."""
    wait: Annotated[Literal["all", "min"], MayChange()] = "all"
    """`all`: the run starts when all actors have a slot. `min`: the run starts with the free slots, at least one, and
    uses slots that become free later."""
    wait_timeout_s: Annotated[float, Field(ge=0, le=LONGEST_S), MayChange()] = 0.0
    """Seconds to wait for free slots, for example for an autoscaler. 0 fails at once."""
    threads_per_actor: Annotated[int, Field(ge=1)] = 1
    """PyTorch threads of an actor. Another number may change the order of sums, and so the last bits."""


@section
class ClusterConfig:
    """The Ray cluster."""

    address: Annotated[str | None, _CLUSTER] = None
    """Ray cluster to attach to, HOST:PORT or `auto`. Null takes RAY_ADDRESS from the environment, or starts a cluster
    on this machine for the length of the run."""
    num_cpus: Annotated[int | None, Field(ge=1), _CLUSTER] = None
    """Logical CPUs of a cluster started on this machine; null takes all that the process may use."""
    num_gpus: Annotated[int | None, Field(ge=0), _CLUSTER] = None
    """GPUs of a cluster started on this machine; null takes all."""


@section
class CheckpointConfig:
    """The checkpoints that a run can be resumed from."""

    every: Annotated[int | None, Field(ge=1), MayChange()] = 1
    """Rounds between checkpoints; the last round always writes a checkpoint. Null writes a checkpoint only when the
    broadcasts since the last one, from which lost clients are rebuilt, take more than 256 MB."""
    # At least 2, because the newest checkpoint may be damaged.
    keep: Annotated[int, Field(ge=2), MayChange()] = 2
    """Number of newest checkpoints that are kept. The final checkpoint is always kept."""
    keep_best: Annotated[bool, MayChange()] = True
    """True also keeps the checkpoint of the round with the best mean generalization accuracy."""
    dir: Annotated[
        str | None, MayChange("Checkpoints are read from the new folder and written to the new folder."), IsPath()
    ] = None
    """Folder or fsspec URL that every node reaches; null takes `checkpoints` in the run folder. An example of a URL is
    s3://bucket/fedvtc. A run makes a folder of its own there."""
    async_: Annotated[bool, MayChange()] = True
    """True starts the next round while a checkpoint is written."""


@section
class RuntimeConfig:
    """The reaction to failures."""

    on_client_error: Annotated[Literal["fail", "skip", "retry"], MayChange()] = "fail"
    """Reaction to an error or a non-finite result of a client. `fail` ends the run. `skip` leaves the client out of the
    round and restores the client's state from before the round. `retry` repeats the step up to `runtime.retries` times,
    then ends the run."""
    min_clients: Annotated[int, Field(ge=1), MayChange()] = 1
    """Uploads that a round needs; a round with fewer uploads ends the run."""
    retries: Annotated[int, Field(ge=0), MayChange()] = 2
    """Retries of a client's step after a lost process, or after an error with `retry`."""
    client_timeout_s: Annotated[float | None, Field(gt=0, le=LONGEST_S), MayChange()] = None
    """Seconds without a finished step after which a process counts as lost; null waits forever."""
    replace_timeout_s: Annotated[float, Field(gt=0, le=LONGEST_S), MayChange()] = 30.0
    """Seconds that a new process waits for free resources after a process was lost. Then the lost clients move
    to other processes."""
    stop_timeout_s: Annotated[float, Field(ge=0, le=LONGEST_S), MayChange()] = 60.0
    """Seconds that the current round may continue after the first signal to stop. Applies only if the rounds before the
    current round have no checkpoint."""
    on_disk_error: Annotated[Literal["continue", "stop"], MayChange()] = "continue"
    """Reaction to a checkpoint, record or picture that cannot be written. `continue` logs a warning; `stop` ends the
    run."""


@section
class WandbConfig:
    """The run in Weights & Biases. WANDB_MODE, WANDB_PROJECT and WANDB_ENTITY in the environment win over the keys."""

    project: Annotated[str, _WANDB_RUN] = "fedvtc"
    """W&B project."""
    entity: Annotated[str | None, _WANDB_RUN] = None
    """W&B user or team; null takes the default of the account."""
    group: Annotated[str | None, MayChange()] = None
    """W&B group; null takes the name of the sweep, if there is one."""
    job_type: Annotated[str, MayChange()] = "federation"
    """W&B job type, a label within the group."""
    name: Annotated[str | None, MayChange()] = None
    """Name of the W&B run; null takes the name of the run folder."""
    tags: Annotated[list[Annotated[str, Field(min_length=1)]], MayChange()] = field(default_factory=list)
    """W&B tags, in addition to method, data set and partition."""
    notes: Annotated[str | None, MayChange(), AddedLater()] = None
    """Notes of the W&B run, as Markdown."""
    mode: Annotated[Literal["online", "offline", "disabled"] | None, MayChange()] = None
    """W&B mode; null is `online`. `online` sends records to the server; `offline` writes a folder for `wandb sync`."""
    upload_checkpoints: Annotated[bool, MayChange()] = False
    """True uploads data hash, partition and final checkpoint as W&B artifacts."""
    alerts: Annotated[bool, MayChange(), AddedLater()] = False
    """True sends a W&B alert if the run fails."""
    timeout_s: Annotated[float, Field(gt=0, le=LONGEST_S), MayChange()] = 60.0
    """Seconds to wait for the W&B server at the start and at the end. Rounds never wait for the server."""


@section
class TrackingConfig:
    """Destinations of records besides the run folder and the console."""

    trackers: Annotated[list[str], MayChange()] = field(default_factory=list)
    """Any of `wandb`, `tensorboard`, and your own classes as `package.module:Class`."""
    clients_every: Annotated[int, Field(ge=1), MayChange()] = 10
    """Rounds between tables and histograms over clients. They follow the first evaluation after these rounds,
    and the end of the run."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Weights & Biases."""

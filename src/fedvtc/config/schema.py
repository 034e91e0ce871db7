"""Every key of a config, with its default and its meaning.

Sections of how and where a federation runs are in `operation.py`; those of one method live with the method
(`fedvtc/methods/`), as a subclass of `MethodConfig`. The docstring under a field is the text that `fedvtc run --help`
shows.
"""

from dataclasses import dataclass, field
from typing import Literal

from fedvtc.config.operation import CheckpointConfig, ClusterConfig, PlacementConfig, RuntimeConfig, TrackingConfig

DATASET_NAMES = (
    "digits",
    "mnist",
    "fashion-mnist",
    "kmnist",
    "emnist",
    "svhn",
    "cifar10",
    "cifar100",
    "tiny-imagenet",
    "npz",
    "folder",
)
"""What `data.name` may be."""

# Written out because the zoo needs torch and the check of a config must not; a test holds it against the zoo.
BACKBONE_NAMES = (
    "cnn_2x8",
    "cnn_2x16",
    "cnn_2x32",
    "cnn_3x16",
    "cnn_3x32",
    "cnn_3x64",
    "cnn_4x16",
    "cnn_4x32",
    "cnn_4x64",
    "resnet8",
    "resnet18",
    "resnet34",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "googlenet",
    "efficientnet_b0",
    "shufflenet_v2",
    "vit_tiny",
)
"""What the name of a backbone may be."""


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights are stepped."""

    name: Literal["adam", "sgd"] = "adam"
    """`adam` (Kingma and Ba 2015) or `sgd`."""
    lr: float = 1e-3
    """Learning rate, above 0."""
    momentum: float = 0.9
    """Momentum of `sgd`; `adam` does not use it."""
    weight_decay: float = 0.0
    """L2 penalty added to the gradient."""


@dataclass(frozen=True)
class RunConfig:
    """One federation and where it is written."""

    name: str | None = None
    """Name of the run folder; null makes one of data, partition, method, seed and the time."""
    output_dir: str = "outputs"
    """The folder that holds run folders; `~` is the home of who gives the command."""
    seed: int = 0
    """Seed of every random draw: partition, initial weights, participants, batches, latents."""
    rounds: int = 10
    """Rounds of the federation, at least 1."""
    participation: float = 1.0
    """Share of the clients drawn for each round, above 0, at most 1; at least one client takes part."""
    resume: Literal["never", "auto"] = "never"
    """`auto`: where the folder of run.name already holds this run, it is resumed, else it begins; for jobs that a
    cluster starts again."""


@dataclass(frozen=True)
class DataConfig:
    """The images."""

    name: str = "digits"
    """A data set of `fedvtc list data`, or `npz` or `folder` together with `data.path`."""
    root: str | None = None
    """The folder that holds data sets; null takes the environment's FEDVTC_DATA, then ./data."""
    path: str | None = None
    """The file of `npz` (x_train, y_train, x_test, y_test) or the folder of `folder` (train/CLASS/, test/CLASS/)."""
    download: bool = True
    """Whether torchvision may fetch a data set that is not under the root."""
    image_size: int | None = None
    """Side in pixels to which images are resized; null keeps theirs."""
    augment: Literal["none", "shift", "shift_flip"] = "none"
    """Changes of real training images, drawn per batch: shifts by up to an eighth of the side, and mirror images."""


@dataclass(frozen=True)
class PartitionConfig:
    """How the training images are divided among the clients."""

    kind: Literal["iid", "dirichlet", "shards", "quantity", "file"] = "dirichlet"
    """`iid`; `dirichlet`: each class divided by Dir(alpha); `shards`: `classes_per_client` classes each; `quantity`:
    class mix alike, sizes by Dir(alpha); `file`: as saved by an earlier run."""
    alpha: float = 0.1
    """Concentration of `dirichlet` and `quantity`, above 0: smaller is more skewed."""
    classes_per_client: int = 2
    """Classes that a client of `shards` holds, at least 1."""
    min_images: int = 2
    """Fewest images a client may hold; a draw below it is drawn again."""
    max_redraws: int = 1000
    """Draws after which a partition with `min_images` counts as impossible."""
    images_per_client: int | None = None
    """Most images a client keeps, drawn uniformly from its own; null keeps all."""
    file: str | None = None
    """The partition.npz that `file` reads; `~` is the home of who runs the federation."""


@dataclass(frozen=True)
class BackboneShare:
    """One architecture of the population."""

    name: str
    """A backbone of `fedvtc list backbones`."""
    share: float
    """Its share of the clients; the shares of a population add up to 1."""


@dataclass(frozen=True)
class PopulationConfig:
    """The clients and their architectures."""

    num_clients: int = 8
    """Clients of the federation, at least 1."""
    backbones: list[BackboneShare] = field(
        default_factory=lambda: [
            BackboneShare("cnn_2x16", 0.25),
            BackboneShare("cnn_3x32", 0.25),
            BackboneShare("resnet8", 0.25),
            BackboneShare("vit_tiny", 0.25),
        ]
    )
    """The architecture mix, dealt out so that every prefix of the clients is as near to the shares as it can be."""
    feature_size: int = 64
    """Features p that every backbone ends in, through a learned projection, at least 2."""


@dataclass(frozen=True)
class TrainingConfig:
    """What a client does with its own images in a round."""

    epochs: int = 1
    """Passes over the client's images per round, at least 1."""
    batch_size: int = 32
    """Images per step; the last batch of an epoch may be smaller and is trained on too."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How the client's model is stepped; its state is kept from round to round."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Lightning's name of the arithmetic of all training steps, the generator's too; `bf16-mixed` is faster on GPUs
    that have bfloat16."""


@dataclass(frozen=True)
class MethodConfig:
    """What every method has; each method adds its own keys."""

    name: str = "fedvtc"
    """A method of `fedvtc list methods`."""
    label: str | None = None
    """Name shown in tables; null shows the method's name."""

    def problems(self) -> list[str]:
        """One text per value that cannot work, such as `finetune.epochs must be at least 1, not 0`: key first."""
        return []


@dataclass(frozen=True)
class EvaluateConfig:
    """When clients are measured on the global test set."""

    every: int = 5
    """Rounds between evaluations, at least 1; the last round is always evaluated."""
    batch_size: int = 500
    """Images per evaluation batch."""
    samples_every: int = 10
    """Rounds between grids of generated images, at least 1; the last round always has one."""
    samples_per_class: int = 8
    """Generated images of each class in a grid, at least 1."""


@dataclass(frozen=True)
class Config:
    """A federation, whole."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    population: PopulationConfig = field(default_factory=PopulationConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    placement: PlacementConfig = field(default_factory=PlacementConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

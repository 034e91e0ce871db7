"""Sections of the config for the results of a federation, and the whole `Config`.

`operation.py` has the sections for the way a federation runs. The keys of one method stand with the method
(`learning/methods/`), in a subclass of `MethodConfig`.
"""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from fedvtc.config.operation import CheckpointConfig, ClusterConfig, PlacementConfig, RuntimeConfig, TrackingConfig
from fedvtc.config.section import AddedLater, IsPath, MayChange, section

_SAME_IMAGES = MayChange("Images are read from the new location; other images or labels are refused.")


@section
class OptimizerConfig:
    """An optimizer of PyTorch."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """`adam` (Kingma and Ba 2015), `adamw` (Loshchilov and Hutter 2019) or `sgd`."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Learning rate."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of `sgd`; `adam` and `adamw` ignore momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty in the gradient; with `adamw` the share of the rate by which weights shrink."""


@section
class RunConfig:
    """The run: name, folder, seed and length."""

    name: str | None = None
    """Name of the run folder; null joins data, partition, method, seed and time."""
    output_dir: str = "outputs"
    """Folder that holds the run folders. `~` is your home folder."""
    seed: int = 0
    """Seed of every random draw: partition, initial weights, participants, batches, latents."""
    rounds: Annotated[int, Field(ge=1), MayChange("Makes the run longer, or shorter down to the completed rounds.")] = (
        10
    )
    """Number of rounds."""
    participation: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the clients drawn for each round; at least one client takes part."""
    resume: Annotated[Literal["never", "auto"], MayChange("No effect.")] = "never"
    """`auto` resumes the run if its folder exists, else starts the run. `auto` needs `run.name` and is meant for jobs
    that a cluster restarts."""


@section
class DataConfig:
    """The images and their labels."""

    name: str = "digits"
    """A data set of `fedvtc list data`, or a function of your own as `package.module:function`. `npz` and `folder` also
    need `data.path`."""
    root: Annotated[str | None, _SAME_IMAGES, IsPath()] = None
    """Folder of data sets; null takes FEDVTC_DATA from the environment, else ./data."""
    path: Annotated[str | None, _SAME_IMAGES, IsPath()] = None
    """File of `npz` (x_train, y_train, x_test, y_test), or folder of `folder` (train/CLASS/, test/CLASS/). A
    function of your own gets the path."""
    download: Annotated[bool, _SAME_IMAGES] = True
    """True downloads a data set that `data.root` lacks."""
    image_size: Annotated[int | None, Field(ge=1)] = None
    """Side in pixels that images are resized to; null keeps the size."""
    pixel_max: Annotated[float | None, Field(gt=0), AddedLater()] = None
    """Pixel of white in your own images, such as 16 or 4095. null stands for 255, or 1 in arrays of floats."""
    augment: Literal["none", "shift", "shift_flip"] = "none"
    """Random changes of training images. `shift` moves an image by up to 1/8 of its side; `shift_flip` also mirrors
    half of the images."""


@section
class PartitionConfig:
    """The division of the training images among the clients."""

    kind: Literal["iid", "dirichlet", "client_dirichlet", "shards", "quantity", "groups", "file", "all"] = "dirichlet"
    """Rule of the division. `iid`: at random. `dirichlet`: each class is divided by Dir(alpha). `client_dirichlet`:
    each client draws its class mix by Dir(alpha p), with p the class mix of the data, and all clients have equally many
    images (Hsu et al. 2019). `shards`: each client holds `partition.classes_per_client` classes. `quantity`: the same
    class mix for all, sizes by Dir(alpha). `groups`: each client holds the images of one group, such as a user, that
    the data name. `file`: the division in a file. `all`: each client holds every image, the ceiling of a comparison."""
    alpha: Annotated[float, Field(gt=0)] = 0.1
    """Concentration of `dirichlet`, `client_dirichlet` and `quantity`; smaller is more skewed."""
    classes_per_client: Annotated[int, Field(ge=1)] = 2
    """Number of classes of each client with `shards`."""
    min_images: Annotated[int, Field(ge=1)] = 2
    """Fewest images of a client; a partition with a smaller client is drawn again."""
    max_redraws: Annotated[int, Field(ge=1)] = 1000
    """Most draws of a partition with `partition.min_images`; then the run ends with an error."""
    images_per_client: Annotated[int | None, Field(ge=1)] = None
    """Most images of a client, drawn at random from the client's part; null keeps all."""
    file: Annotated[str | None, IsPath()] = None
    """File of `file`: partition.npz of an earlier run, or JSON lists of image numbers by client. A resumed run reads
    the partition.npz of its own folder."""


@section
class BackboneShare:
    """One architecture of the population."""

    name: str
    """A backbone of `fedvtc list backbones`, `timm:NAME` for an image model of timm, or a function of your own as
    `package.module:function`."""
    # At least one client in a million, so that the clients can be dealt out.
    share: Annotated[float, Field(ge=1e-6, le=1)]
    """Share of the clients; the shares of a population add up to 1."""


@section
class PopulationConfig:
    """The clients and their architectures."""

    num_clients: Annotated[int, Field(ge=1)] = 8
    """Number of clients."""
    backbones: list[BackboneShare] = field(
        default_factory=lambda: [
            BackboneShare("cnn_2x16", 0.25),
            BackboneShare("cnn_3x32", 0.25),
            BackboneShare("resnet8", 0.25),
            BackboneShare("vit_tiny", 0.25),
        ]
    )
    """Backbones of `fedvtc list backbones` with their shares, which add up to 1. The backbones are dealt out so that
    the first n clients have the shares as nearly as possible, for every n."""
    # At least 2, because the features of an image are normalised and a single feature would always be 0.
    feature_size: Annotated[int, Field(ge=2)] = 64
    """Number of features p of an image; every backbone ends in a learned projection to p features."""


@section
class TrainingConfig:
    """The training of a client on its own images in a round."""

    epochs: Annotated[int, Field(ge=1)] = 1
    """Passes over the client's images in a round; 1 with `training.steps`."""
    steps: Annotated[int | None, Field(ge=1), AddedLater()] = None
    """Training steps in a round, instead of passes. A client whose images do not suffice goes on with another pass, in
    a new order; each round begins with a new pass. null trains for `training.epochs`."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Images in a training step; the last batch of an epoch may be smaller."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer of the client's model; the optimizer's state is kept from round to round."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Lightning's name of the precision of all training steps. `bf16-mixed` is faster on GPUs that have bfloat16."""


@section
class MethodConfig:
    """The keys of every method; each method adds keys in a subclass."""

    name: str = "fedvtc"
    """A method of `fedvtc list methods`, or a class of your own as `package.module:Class`."""
    label: Annotated[str | None, MayChange("Changes the name in tables.")] = None
    """Name of the method in tables; null shows `method.name`."""

    def problems(self, config: "Config") -> list[str]:
        """Returns a text `KEY: PROBLEM. FIX.` for each conflict between keys; KEY is without `method.`.

        Args:
            config: the whole config, whose other keys may not fit the method.
        """
        return []

    def of_rounds(self) -> "MethodConfig":
        """Returns the keys that the rounds depend on; a key that matters after the last round only has its default.

        The keys may be those of another method: its rounds then leave equal weights, optimizers and memory of the
        modules that both methods have, an equal state of the server and equal records. Rounds do not change the other
        modules. `fedvtc run --start-from` takes the rounds of a run whose keys of this function are equal.
        """
        return self


@section
class EvaluateConfig:
    """The evaluation of clients on the global test set, and pictures of generated images."""

    every: Annotated[int, Field(ge=1), MayChange()] = 5
    """Rounds between evaluations on the global test set; the last round is always evaluated."""
    clients: Annotated[Literal["all"] | Annotated[int, Field(ge=1)], AddedLater()] = "all"
    """Clients in the evaluations of rounds: `all`, or the number of clients in a sample. `run.seed` draws the sample
    once, so every round has the same clients. The final evaluation has all clients."""
    batch_size: Annotated[int, Field(ge=1)] = 500
    """Images in an evaluation batch."""
    ensemble: Annotated[bool, MayChange(), AddedLater()] = False
    """Also scores the clients together: by the mean of their probabilities, and by a vote. No client has this model."""
    validation_share: Annotated[float, Field(ge=0, lt=1), AddedLater()] = 0.0
    """Share of the images of each client and class that the client never trains on, rounded down. The accuracy on these
    images is in the record, to choose settings without a look at the test set."""
    samples_every: Annotated[int, Field(ge=1), MayChange()] = 10
    """Rounds between grids of generated images; the last round always has a grid."""
    samples_per_class: Annotated[int, Field(ge=1), MayChange()] = 8
    """Generated images of each class in a grid."""
    memorisation: Annotated[bool, MayChange(), AddedLater()] = True
    """True compares the generated images of the last round with training images, for the final record. Images that no
    client trains on are the reference. The comparison takes about a second at most."""


@section
class Config:
    """The config of one run."""

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

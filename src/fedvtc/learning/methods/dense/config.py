"""The config keys of DENSE."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from fedvtc.config.schema import MethodConfig, OptimizerConfig
from fedvtc.config.section import section
from fedvtc.learning.methods.local import LocalConfig


@section
class GenerationConfig:
    """The images that the server invents, and the model that it distils beside them."""

    batches: Annotated[int, Field(ge=1)] = 200
    """Batches of images; each has a new generator."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Images of a batch."""
    steps: Annotated[int, Field(ge=1)] = 30
    """Steps of a generator and its latents, by Adam with a rate of 0.001 and momenta of 0.5 and 0.999."""
    latent_size: Annotated[int, Field(ge=1)] = 256
    """Entries of a latent."""
    width: Annotated[int, Field(ge=1)] = 32
    """Channels of the generator's last feature map; coarser maps have more channels."""
    adversarial_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the divergence between the clients' models and the server's, where they disagree."""


@section
class DistillationConfig:
    """The training of the clients' models on the images."""

    epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over the images."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Images in a training step."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer of the client's model, new for this training."""


@section
class DENSEConfig(MethodConfig):
    """The keys of DENSE."""

    name: str = "dense"
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    """The images that the server invents, and the model that it distils beside them."""
    temperature: Annotated[float, Field(gt=0)] = 20.0
    """Temperature of the answers in distillation."""
    ensemble: Literal["mean", "label_weighted"] = "mean"
    """Answer of the clients' models to an image. `mean`: of all clients; `label_weighted`: a client counts by its share
    of the images of the class that the image is invented for (our addition)."""
    finetune: DistillationConfig = field(default_factory=DistillationConfig)
    """The training of the clients' models on the images."""

    def of_rounds(self) -> MethodConfig:
        """Returns the keys of Local, whose rounds are equal."""
        return LocalConfig()

"""The config keys of FedVTC."""

from dataclasses import field, replace
from typing import Annotated, Literal

from pydantic import Field

from fedvtc.config.schema import Config, MethodConfig, OptimizerConfig
from fedvtc.config.section import AddedLater, section
from fedvtc.learning.exchange.privacy import PrivacyConfig
from fedvtc.learning.exchange.statistics import Form

Wire = Literal["exact", "float32", "float16"]


@section
class StatisticsConfig:
    """The statistics of features that clients upload."""

    covariance: Form = "client_diagonal"
    """Form of the covariance. `scalar`: one spread. `client_diagonal`: one spread per feature. `class_diagonal`: one
    spread per class and feature. `class_full`: a matrix per class."""
    sigma_floor: Annotated[float, Field(gt=0)] = 0.05
    """Smallest standard deviation of a feature; features are normalised to unit variance."""
    prior_count: Annotated[float, Field(ge=0)] = 10.0
    """Weight of the pooled diagonal in a full covariance, in images; a larger weight shrinks more."""


@section
class GeneratorConfig:
    """The generator (VTC) and its training."""

    training: Annotated[Literal["alternating", "joint"], AddedLater()] = "alternating"
    """Order of training in a round. `alternating`: the classifier for `training.epochs` passes, then the generator
    against the frozen classifier. `joint` (our addition): both together, for `method.generator.epochs` passes in
    batches of `method.generator.batch_size`; the error of reconstruction trains the backbone too."""
    reconstruction_weight: Annotated[float, Field(ge=0), AddedLater()] = 0.02
    """Weight mu of the reconstruction in the loss of `joint`."""
    noise: Annotated[float, Field(ge=0), AddedLater()] = 0.3
    """Standard deviation s of the noise on features in `joint` and in closing passes; features have unit variance."""
    epochs: Annotated[int, Field(ge=1)] = 2
    """Passes over the client's images in a round."""
    closing_epochs: Annotated[int, Field(ge=0), AddedLater()] = 0
    """Passes over the client's images before the generator goes up after the last round (our addition). The classifier
    is frozen, and the learning rate falls to 0 along half a cosine. Needs `method.upload: once`."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Images in a training step."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=2e-3))
    """Optimizer of the generator."""
    width: Annotated[int, Field(ge=1)] = 32
    """Channels of the generator's last feature map; coarser maps have more channels."""
    aggregation: Literal["mean", "none", "exchange"] = "mean"
    """Use of the clients' generators. `mean`: the server averages the generators, weighted by images. `none`: each
    generator stays with its client, and clients share statistics alone. `exchange`: generators are not changed, and
    every client gets all generators for fine-tuning (our addition)."""
    sigma: Literal["statistics", "learned"] = "statistics"
    """Noise sigma_k on features. `statistics`: the client's measured spread; `learned`: the measured spread
    times a factor per feature that the generator's loss learns."""
    beta: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the KL divergence to the global class Gaussian."""
    gamma: Annotated[float, Field(ge=0)] = 0.05
    """Weight of distribution matching."""
    dm_samples: Annotated[int, Field(ge=1)] = 2
    """Latents drawn per class and step for distribution matching."""
    dm_classes: Literal["all", "held"] = "all"
    """Classes of distribution matching. `all`: every class with a global prototype; `held`: the client's classes."""


@section
class FinetuneConfig:
    """Fine-tuning on generated images."""

    when: Literal["end", "every_round", "both", "never"] = "end"
    """Time of fine-tuning. `end`: once, after the last round. `every_round`: after local training, before statistics.
    `both`: `end` and `every_round`."""
    epochs: Annotated[int, Field(ge=1)] = 6
    """Passes at the end; each pass draws new images."""
    epochs_per_round: Annotated[int, Field(ge=1)] = 1
    """Passes in a round, with fine-tuning in every round."""
    images_per_class: Annotated[int, Field(ge=1)] = 200
    """Images of each class in a pass."""
    pool: Annotated[int, Field(ge=0), AddedLater()] = 0
    """Images of each class that are drawn once, and from which each pass takes its images; 0: each pass draws new
    images."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Images in a training step."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer of the classifier, new for each fine-tuning."""
    schedule: Annotated[Literal["constant", "cosine"], AddedLater()] = "constant"
    """Learning rate over the steps of a fine-tuning. `cosine`: falls from the optimizer's rate to 0 along half a
    cosine."""
    averaging: Annotated[float, Field(ge=0, lt=1), AddedLater()] = 0.0
    """Decay of an exponential mean of the weights over the steps (Polyak and Juditsky 1992), which is the result of a
    fine-tuning (our addition). 0: the weights after the last step are the result."""
    latents: Literal["class", "client_mixture"] = "class"
    """Distribution of latents. `class`: N(c^y, sigma^2) of the server; `client_mixture`: the clients' own Gaussians of
    class y."""
    augment: Literal["none", "affine"] = "none"
    """`affine`: generated images, and own images of `balanced`, are turned, scaled and shifted a little, at random."""
    sharpening: Annotated[float, Field(ge=0), AddedLater()] = 0.0
    """Largest strength of an unsharp mask on generated images, drawn for each image (our addition). The squared error
    of reconstruction teaches the generator blurred images. 0: generated images stay as they are."""
    real_data: Literal["none", "after", "mixed", "balanced"] = "none"
    """Use of the client's own images. `mixed`: all shuffled among the generated images; `after`: followed by a local
    training as in a round; `balanced`: in each class that the client has 10 images of, own images replace the share
    `method.finetune.real_share` of the generated images."""
    real_share: Annotated[float, Field(gt=0, le=1), AddedLater()] = 0.25
    """Share of own images in a class with `balanced`; an image is repeated at most 4 times in a pass."""


@section
class FedVTCConfig(MethodConfig):
    """The keys of FedVTC."""

    name: str = "fedvtc"
    prototype_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight lambda of the distance to the global prototype in local training."""
    upload: Annotated[Literal["every_round", "once"], AddedLater()] = "every_round"
    """Time at which generators and covariance matrices go up. `once`: after the last round, from every client; in the
    rounds clients send counts, means and at most a spread per class and feature."""
    wire: Annotated[Wire, AddedLater()] = "exact"
    """Floats of messages. `exact`: as computed, statistics in float64 and generators in float32."""
    statistics: StatisticsConfig = field(default_factory=StatisticsConfig)
    """The statistics of features that clients upload."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    """The generator (VTC) and its training."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Fine-tuning on generated images."""
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    """Noise on the messages of a client."""

    @property
    def keeps_clients(self) -> bool:
        """True if the server keeps the last Gaussians of each client, to draw latents from."""
        return self.finetune.latents == "client_mixture"

    @property
    def round_form(self) -> Form:
        """The form of the statistics that a client sends in a round."""
        full, once = self.statistics.covariance == "class_full", self.upload == "once"
        # The pull needs one spread per feature, sigma of docs/method.md.
        return "client_diagonal" if full and once else self.statistics.covariance

    def problems(self, config: Config) -> list[str]:
        """Returns one text for each conflict between keys."""
        found, pool, num_images = [], self.finetune.pool, self.finetune.images_per_class
        if self.generator.aggregation == "exchange" and not self.keeps_clients:
            found.append(
                "generator.aggregation: exchange decodes each client's latents with the client's own generator. "
                "Set method.finetune.latents=client_mixture."
            )
        if 0 < pool < num_images:
            found.append(
                f"finetune.pool: {pool} images of a class are fewer than the {num_images} of a pass. "
                f"Set method.finetune.pool={num_images} or more."
            )
        if self.generator.training == "joint" and self.generator.sigma == "learned":
            found.append(
                "generator.sigma: learned belongs to alternating training; joint training adds method.generator.noise. "
                "Set method.generator.sigma=statistics."
            )
        names = self.generator.optimizer.name, config.training.optimizer.name
        if self.generator.training == "joint" and names[0] != names[1]:
            found.append(
                f"generator.optimizer.name: {names[0]} and training.optimizer.name: {names[1]} cannot train together. "
                f"Set method.generator.optimizer.name={names[1]}."
            )
        if self.generator.training == "joint" and config.training.steps is not None:
            found.append(
                "generator.training: joint trains for method.generator.epochs passes, without training.steps. "
                "Set training.steps=null."
            )
        if self.upload == "once" and (self.generator.aggregation == "mean" or not self.keeps_clients):
            found.append(
                "upload: once sends each client's own Gaussians and generator after the last round. "
                "Set method.finetune.latents=client_mixture and method.generator.aggregation=exchange or none."
            )
        if self.upload == "once" and self.finetune.when in ("every_round", "both"):
            found.append(
                f"upload: once sends nothing that fine-tuning with finetune.when: {self.finetune.when} could use in a "
                "round. Set method.upload=every_round."
            )
        if self.generator.closing_epochs and self.upload != "once":
            found.append(
                "generator.closing_epochs: trains before the upload after the last round. "
                "Set method.upload=once or method.generator.closing_epochs=0."
            )
        if self.wire == "float16" and self.round_form == "class_full":
            found.append(
                "wire: float16 can round a covariance matrix to one without a root. "
                "Set method.upload=once, which sends roots, or method.wire=float32."
            )
        return found + self._privacy_problems()

    def of_rounds(self) -> MethodConfig:
        """Returns the keys without those of the steps after the last round."""
        if self.finetune.when in ("every_round", "both"):
            return self
        generator = replace(self.generator, closing_epochs=0)
        return replace(self, generator=generator, finetune=FinetuneConfig(latents=self.finetune.latents))

    def _privacy_problems(self) -> list[str]:
        found, finetune = self.privacy.problems(), self.finetune
        if self.privacy.training_noise == 0:
            return found
        if self.generator.training == "alternating":
            found.append(
                "privacy.training_noise: noises the steps of joint training alone. Set method.generator.training=joint."
            )
        if self.generator.closing_epochs:
            found.append(
                "privacy.training_noise: noises the steps of the rounds, and method.generator.closing_epochs would "
                "train the generator without noise before the last upload. Set method.generator.closing_epochs=0."
            )
        if finetune.when in ("every_round", "both") and finetune.real_data != "none":
            found.append(
                f"privacy.training_noise: fine-tuning with finetune.when: {finetune.when} would train on own images "
                "without noise before statistics. Set method.finetune.when=end or method.finetune.real_data=none."
            )
        return found

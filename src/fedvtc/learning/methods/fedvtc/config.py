"""Every switch of FedVTC, with its default and its meaning."""

from dataclasses import dataclass, field
from typing import Literal

from fedvtc.config.schema import MethodConfig, OptimizerConfig
from fedvtc.learning.exchange.statistics import Form


@dataclass(frozen=True)
class StatisticsConfig:
    """What clients say of their features."""

    covariance: Form = "client_diagonal"
    """`scalar`: one spread; `client_diagonal`: one per feature; `class_diagonal`: also per class; `class_full`: a
    matrix per class."""
    sigma_floor: float = 0.05
    """Smallest standard deviation, above 0; features are normalised to unit variance."""
    prior_count: float = 10.0
    """Images that the pooled diagonal counts for in a full covariance: more is more shrinkage."""


@dataclass(frozen=True)
class GeneratorConfig:
    """The VTC and its training."""

    epochs: int = 2
    """Passes over the client's images per round, at least 1."""
    batch_size: int = 32
    """Images per step."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=2e-3))
    """How the generator is stepped."""
    width: int = 32
    """Channels of the generator's last map before the image; coarser maps have more."""
    aggregation: Literal["mean", "none", "exchange"] = "mean"
    """`mean`: generators are averaged by images; `none`: they stay with their clients, statistics alone are shared;
    `exchange`: they stay what they are, and for fine-tuning every client gets those of all (our addition)."""
    sigma: Literal["statistics", "learned"] = "statistics"
    """The noise sigma_k on features: the client's measured spread, or learned from it by the generator's loss."""
    beta: float = 1.0
    """Weight of the KL divergence to the global class Gaussian, at least 0."""
    gamma: float = 0.05
    """Weight of distribution matching, at least 0."""
    dm_samples: int = 2
    """Latents drawn per class and step for distribution matching."""
    dm_classes: Literal["all", "held"] = "all"
    """Classes of distribution matching: all that have a global prototype, or those that the client holds."""


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tuning on generated images."""

    when: Literal["end", "every_round", "both", "never"] = "end"
    """`end`: once, after the last round; `every_round`: after local training, before statistics; `both`; `never`."""
    epochs: int = 6
    """Passes at the end, each over images drawn afresh, at least 1."""
    epochs_per_round: int = 1
    """Passes in a round, where there is fine-tuning in every round."""
    images_per_class: int = 200
    """Images of each class per pass."""
    batch_size: int = 32
    """Images per step."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How the classifier is stepped; a new optimizer for each fine-tuning."""
    latents: Literal["class", "client_mixture"] = "class"
    """`class`: v ~ N(c^y, sigma^2) of the server; `client_mixture`: from the clients' own Gaussians of class y."""
    augment: Literal["none", "affine"] = "none"
    """Light affine changes of the generated images."""
    real_data: Literal["none", "after", "mixed"] = "none"
    """`mixed`: the client's own images are shuffled among the generated ones; `after`: a local training as in a
    round follows."""


@dataclass(frozen=True)
class FedVTCConfig(MethodConfig):
    """Every switch of the method."""

    name: str = "fedvtc"
    prototype_weight: float = 0.1
    """Weight lambda of the distance to the global prototype in local training, at least 0."""
    statistics: StatisticsConfig = field(default_factory=StatisticsConfig)
    """What clients say of their features."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    """The VTC and its training."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Fine-tuning on generated images."""

    @property
    def keeps_clients(self) -> bool:
        """Whether the server keeps what each client sent, to draw images from clients instead of aggregates."""
        return self.finetune.latents == "client_mixture"

    def problems(self) -> list[str]:
        """What is wrong with the values, one line each."""
        generator, finetune = self.generator, self.finetune
        at_least = {
            "prototype_weight": (self.prototype_weight, 0),
            "statistics.prior_count": (self.statistics.prior_count, 0),
            "generator.epochs": (generator.epochs, 1),
            "generator.batch_size": (generator.batch_size, 1),
            "generator.width": (generator.width, 1),
            "generator.beta": (generator.beta, 0),
            "generator.gamma": (generator.gamma, 0),
            "generator.dm_samples": (generator.dm_samples, 1),
            "finetune.epochs": (finetune.epochs, 1),
            "finetune.epochs_per_round": (finetune.epochs_per_round, 1),
            "finetune.images_per_class": (finetune.images_per_class, 1),
            "finetune.batch_size": (finetune.batch_size, 1),
        }
        problems = [f"{key}: must be at least {low}, not {n}" for key, (n, low) in at_least.items() if n < low]
        floor = self.statistics.sigma_floor
        if floor <= 0:
            problems.append(f"statistics.sigma_floor: must be above 0, not {floor}")
        if generator.aggregation == "exchange" and finetune.latents != "client_mixture":
            problems.append(
                "generator.aggregation: exchange decodes the latents of each client by its own generator. "
                "Set method.finetune.latents=client_mixture."
            )
        return problems

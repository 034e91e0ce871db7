"""FedVTC: clients share feature statistics and train generators that turn latents into images to fine-tune on.

Source: Z. Niu, H. Dong, A. K. Qin, "Bridging Generalization Gap of Heterogeneous Federated Clients Using Generative
Models", ICLR 2026 (arXiv 2508.01669). The authors' code and hyper-parameters are not public, so this is an independent
implementation. Each point that the paper leaves open is a key of `config.py`; docs/method.md gives the defaults and
their reasons.
"""

from fedvtc.learning.methods.fedvtc.config import FedVTCConfig, FinetuneConfig, GeneratorConfig, StatisticsConfig
from fedvtc.learning.methods.fedvtc.method import FedVTC

__all__ = ["METHOD", "FedVTC", "FedVTCConfig", "FinetuneConfig", "GeneratorConfig", "StatisticsConfig"]

METHOD = FedVTC

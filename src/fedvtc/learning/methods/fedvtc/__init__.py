"""FedVTC: clients share feature statistics and train generators that turn latents into images to fine-tune on.

Source: Z. Niu, H. Dong, A. K. Qin, "Bridging Generalization Gap of Heterogeneous Federated Clients Using Generative
Models", ICLR 2026 (arXiv 2508.01669). The authors' code and hyper-parameters are not public, so this is an independent
implementation: what the paper leaves open is a key of `config.py`, and docs/method.md says which reading is the default
and why.
"""

from fedvtc.learning.methods.fedvtc.config import FedVTCConfig, FinetuneConfig, GeneratorConfig, StatisticsConfig
from fedvtc.learning.methods.fedvtc.method import FedVTC

__all__ = ["METHOD", "FedVTC", "FedVTCConfig", "FinetuneConfig", "GeneratorConfig", "StatisticsConfig"]

METHOD = FedVTC

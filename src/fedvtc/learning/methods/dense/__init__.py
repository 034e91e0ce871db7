"""DENSE: the server invents images on which the clients' models agree, and every client learns their mean answer.

Source: J. Zhang et al., "DENSE: Data-Free One-Shot Federated Learning", NeurIPS 2022 (arXiv 2112.12371). The paper
distils into one model on the server; here every client's model learns from the images too. No backbone has BatchNorm,
so the paper's term on running statistics is absent, which makes weaker images.
"""

from fedvtc.learning.methods.dense.config import DENSEConfig, DistillationConfig, GenerationConfig
from fedvtc.learning.methods.dense.method import DENSE

__all__ = ["DENSE", "METHOD", "DENSEConfig", "DistillationConfig", "GenerationConfig"]

METHOD = DENSE

"""FedKWAZ: private model and local proxy learn where they disagree; class means of features and logits are shared.

Source: Li, Ding, Zhu and Zheng, "Transforming Gaps into Gains: Bridging Model and Data Heterogeneity in Federated
Learning via Knowledge Weak-Aware Zones", NeurIPS 2025 (openreview.net/forum?id=G8wWeZVmla).
"""

from fedvtc.learning.methods.fedkwaz.method import FedKWAZ, FedKWAZConfig

__all__ = ["METHOD", "FedKWAZ", "FedKWAZConfig"]

METHOD = FedKWAZ

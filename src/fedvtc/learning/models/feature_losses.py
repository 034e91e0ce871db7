"""Losses of the networks that a server trains on features.

Shapes: K clients, B rows of a batch, C classes, D features, L entries of a noise vector.
"""

import torch
from torch import Tensor
from torch.nn import functional


def distances(rows_BD: Tensor, prototypes_CD: Tensor) -> Tensor:
    """Returns Euclidean distances (B, C); 1e-12 under the root keeps the gradient finite at distance 0."""
    return ((rows_BD[:, None] - prototypes_CD).square().sum(dim=2) + 1e-12).sqrt()


def margin_contrast(rows_BD: Tensor, labels_B: Tensor, prototypes_CD: Tensor, margin: float) -> Tensor:
    """Returns the cross-entropy of -(d + margin * onehot(y)), with d the distances of a row to all prototypes."""
    distance_BC = distances(rows_BD, prototypes_CD)
    own_BC = functional.one_hot(labels_B, len(prototypes_CD))
    return functional.cross_entropy(-(distance_BC + margin * own_BC), labels_B)


def stacked_logits(features_BD: Tensor, weight_KCD: Tensor, bias_KC: Tensor) -> Tensor:
    """Returns the logits (K, B, C) of the heads of all clients."""
    return torch.einsum("kcd,bd->kbc", weight_KCD, features_BD) + bias_KC[:, None]


def label_weighted_loss(logits_KBC: Tensor, labels_B: Tensor, count_KC: Tensor) -> Tensor:
    """Returns the mean over rows of sum_k w_k CE(logits_k, y), with w_k client k's share of the images of class y."""
    log_likelihood_KB = logits_KBC.log_softmax(dim=2)[:, range(len(labels_B)), labels_B]
    share_KC = count_KC / count_KC.sum(dim=0).clamp(min=1)
    return -(share_KC[:, labels_B] * log_likelihood_KB).sum(dim=0).mean()


def mean_logits_loss(logits_KBC: Tensor, labels_B: Tensor) -> Tensor:
    """Returns the cross-entropy of the plain mean of the logits of all heads."""
    return functional.cross_entropy(logits_KBC.mean(dim=0), labels_B)


def diversity_loss(noise_BL: Tensor, features_BD: Tensor) -> Tensor:
    """Returns exp(-mean_ij MSE(noise_i, noise_j) * mean |feature_i - feature_j|) over all pairs of the batch."""
    noise_BB = (noise_BL[:, None] - noise_BL).square().mean(dim=2)
    feature_BB = (features_BD[:, None] - features_BD).abs().mean(dim=2)
    return (-(noise_BB * feature_BB).mean()).exp()

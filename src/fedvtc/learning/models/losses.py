"""Losses between two models, and between a model and targets of its classes.

Targets are constants: no gradient flows into them. Every loss is a mean over the batch.
Shapes: B images, C classes, D values.
"""

from torch import Tensor
from torch.nn import functional


def soft_cross_entropy(targets_BC: Tensor, logits_BC: Tensor, held_B: Tensor | None = None) -> Tensor:
    """Returns H(a, z) = -sum_c a_c ln softmax(z)_c for target probabilities a.

    Args:
        targets_BC: probabilities.
        logits_BC: logits of the model that is trained.
        held_B: False for images without a target, which count 0; None gives every image a target.
    """
    return _mean(-(targets_BC.detach() * logits_BC.log_softmax(dim=1)).sum(dim=1), held_B)


def distillation(teacher_BC: Tensor, student_BC: Tensor, temperature: float = 1.0) -> Tensor:
    """Returns T^2 KL(softmax(teacher / T) || softmax(student / T)) of logits, summed over classes."""
    targets_BC = (teacher_BC.detach() / temperature).log_softmax(dim=1)
    logits_BC = (student_BC / temperature).log_softmax(dim=1)
    divergence = functional.kl_div(logits_BC, targets_BC, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def squared_distance(targets_BD: Tensor, values_BD: Tensor, held_B: Tensor | None = None) -> Tensor:
    """Returns mean_j (target_j - value_j)^2; images for which `held_B` is False count 0."""
    return _mean((values_BD - targets_BD.detach()).square().mean(dim=1), held_B)


def ranking(logits_BC: Tensor, sets_BC: Tensor) -> Tensor:
    """Returns the mean over pairs of a class m in the image's set and a class j outside of relu(z_j - z_m).

    Args:
        logits_BC: logits z of the model that is trained.
        sets_BC: True for each class in the set of an image. An image whose set has no class or all classes counts 0.
    """
    inside_BC = sets_BC.to(logits_BC.dtype)
    outside_BC = 1.0 - inside_BC
    excess_BCC = (logits_BC[:, None, :] - logits_BC[:, :, None]).relu()
    sum_B = (excess_BCC * inside_BC[:, :, None] * outside_BC[:, None, :]).sum(dim=(1, 2))
    pairs_B = inside_BC.sum(dim=1) * outside_BC.sum(dim=1)
    return (sum_B / pairs_B.clamp(min=1.0)).mean()


def _mean(loss_B: Tensor, held_B: Tensor | None) -> Tensor:
    return loss_B.mean() if held_B is None else (loss_B * held_B).mean()

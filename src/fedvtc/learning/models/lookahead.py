"""Gradients through one step of a model, by the targets that the step is guided to (FedL2G, Zhang et al. 2024).

Shapes: B images, C classes, D entries of a target.
"""

import warnings
from collections.abc import Callable

from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

Weights = dict[str, Tensor]
Outputs = Callable[[Weights, Tensor], tuple[Tensor, Tensor]]
"""Maps weights and images to logits (B, C) and guided outputs (B, D), which are logits or features."""


def guided_loss(logits_BC: Tensor, guided_BD: Tensor, labels_B: Tensor, targets_CD: Tensor) -> dict[str, Tensor]:
    """Returns the whole `loss` and its terms: `classification` and `target`, the squared distance to the targets."""
    classification = functional.cross_entropy(logits_BC, labels_B)
    target = functional.mse_loss(guided_BD, targets_CD[labels_B])
    return {"loss": classification + target, "classification": classification, "target": target}


def target_gradients(
    outputs: Outputs,
    weights: Weights,
    study: tuple[Tensor, Tensor],
    quiz: tuple[Tensor, Tensor],
    targets_CD: Tensor,
    *,
    lr: float,
) -> tuple[Tensor, float]:
    """Differentiates the quiz's cross-entropy, after one step on the study, by the target of each image.

    The step is w' = w - lr * grad L(w), with L the loss of `guided_loss`. With gamma the gradient of the quiz at w',
    the gradient by the target of image i is 2 lr / (B D) * J_i gamma, where J_i is the Jacobian of the image's guided
    output by w: one product in forward mode instead of second derivatives.

    Args:
        outputs: the model as a function of its weights.
        weights: weights w, by name; not changed.
        study: images and labels of the step.
        quiz: images and labels of the measurement.
        targets_CD: targets of all classes.
        lr: rate of the step.

    Returns:
        The gradients (B, D) of the study's images, and the cross-entropy of the quiz at w'.
    """

    def study_loss(weights: Weights) -> Tensor:
        return guided_loss(*outputs(weights, study[0]), study[1], targets_CD)["loss"]

    def quiz_loss(weights: Weights) -> tuple[Tensor, Tensor]:
        loss = functional.cross_entropy(outputs(weights, quiz[0])[0], quiz[1])
        return loss, loss.detach()

    slope = grad(study_loss)(weights)
    stepped = {name: weight - lr * slope[name] for name, weight in weights.items()}
    gamma, loss = grad(quiz_loss, has_aux=True)(stepped)
    # Forward mode has no fused kernels of attention; weights that need a gradient keep attention off the kernel of
    # inference. The first product compiles parts of PyTorch by TorchScript.
    with sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script.* is deprecated", FutureWarning)
        duals = {
            name: forward_ad.make_dual(weight.detach().requires_grad_(), gamma[name])
            for name, weight in weights.items()
        }
        product_BD = forward_ad.unpack_dual(outputs(duals, study[0])[1]).tangent.detach()
    return 2 * lr / product_BD.numel() * product_BD, float(loss)

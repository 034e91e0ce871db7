"""The losses of both stages of FedKWAZ.

Shapes: B images, C classes, D features.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from fedvtc.learning.methods.fedkwaz.mixing import mix_patches
from fedvtc.learning.models.losses import distillation, soft_cross_entropy, squared_distance
from fedvtc.learning.models.proxy import Pair, PairOutputs

Anchors = Mapping[str, Tensor]
"""Class means (C, D) by name: `features`, `logits`, `proxy_features`, `proxy_logits`; `held` (C,) marks the classes."""


def anchored_terms(
    pair: Pair, images: Tensor, labels_B: Tensor, *, anchors: Anchors | None = None
) -> dict[str, Tensor]:
    """Returns the terms of stage I: each model learns the labels and the anchors P, Z of the other model.

    L_f = CE(z, y) + H(softmax Z^Q_y, z) + MSE(g_k(x), P^Q_y), and L_q likewise with the anchors of the private model.
    Without anchors only the first terms remain.
    """
    outputs = pair(images)
    classification = functional.cross_entropy(outputs.logits_BC, labels_B)
    proxy_classification = functional.cross_entropy(outputs.proxy_logits_BC, labels_B)
    terms = {"classification": classification, "proxy_classification": proxy_classification}
    if anchors is not None:
        held_B = anchors["held"][labels_B]
        for prefix, teacher, features_BD, logits_BC in (
            ("", "proxy_", outputs.features_BD, outputs.logits_BC),
            ("proxy_", "", outputs.proxy_features_BD, outputs.proxy_logits_BC),
        ):
            targets_BC = anchors[f"{teacher}logits"][labels_B].softmax(dim=1)
            terms[f"{prefix}anchor_logits"] = soft_cross_entropy(targets_BC, logits_BC, held_B)
            targets_BD = anchors[f"{teacher}features"][labels_B]
            terms[f"{prefix}anchor_features"] = squared_distance(targets_BD, features_BD, held_B)
    return {"loss": torch.stack(list(terms.values())).sum(), **terms}


def zone_terms(
    pair: Pair,
    images: Tensor,
    labels_B: Tensor,
    *,
    zones: Mapping[str, tuple[float, int]],
    temperature: float,
    with_labels: bool,
) -> dict[str, Tensor]:
    """Returns the terms of stage II: each model learns from the other, on images and on three kinds of mixed images.

    For each model m with the other as teacher o:
    CE(m(x), y) + t^2 KL(o || m)(x) + MSE(g_m, g_o)(x) + MSE(g_m, g_o)(x_S) + t^2 KL(o || m)(x_m)

    Args:
        pair: both models.
        images: images x.
        labels_B: labels y.
        zones: parameters of `mix_patches` for x_S (`features`), for x_m of the private model and of the proxy.
        temperature: temperature t.
        with_labels: False leaves the cross-entropy out.
    """
    outputs, mixed = pair(images), pair(mix_patches(images, *zones["features"]))
    private, proxy = (pair(mix_patches(images, *zones[name])) for name in ("private", "proxy"))
    terms = {
        "mutual": _mutual(outputs, temperature).sum(),
        "features": _distance(outputs) + _distance(mixed),
        "zones": _mutual(private, temperature)[0] + _mutual(proxy, temperature)[1],
    }
    if with_labels:
        terms["classification"] = functional.cross_entropy(outputs.logits_BC, labels_B)
        terms["proxy_classification"] = functional.cross_entropy(outputs.proxy_logits_BC, labels_B)
    return {"loss": torch.stack(list(terms.values())).sum(), **terms}


def disagreements(outputs: PairOutputs, temperature: float) -> Tensor:
    """Returns the disagreement of both models in features, and in predictions with each of them as student (3,)."""
    distance = squared_distance(outputs.proxy_features_BD, outputs.features_BD)
    return torch.cat([distance[None], _mutual(outputs, temperature)])


def _mutual(outputs: PairOutputs, temperature: float) -> Tensor:
    """Returns t^2 KL(teacher || student) with the private model and with the proxy as student (2,)."""
    private = distillation(outputs.proxy_logits_BC, outputs.logits_BC, temperature)
    return torch.stack([private, distillation(outputs.logits_BC, outputs.proxy_logits_BC, temperature)])


def _distance(outputs: PairOutputs) -> Tensor:
    """Returns MSE(g_m, g_o) of both models; each is pulled to the other."""
    private = squared_distance(outputs.proxy_features_BD, outputs.features_BD)
    return private + squared_distance(outputs.features_BD, outputs.proxy_features_BD)

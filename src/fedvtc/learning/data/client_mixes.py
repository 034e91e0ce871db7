"""Draws the class mix of each client by a Dirichlet distribution of the client's own.

Source: T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification", 2019 (arXiv 1909.06335), section 3. Shapes: K clients, C classes.
"""

import numpy as np
from numpy.typing import NDArray


def client_mixes(
    lengths_C: NDArray[np.int64], num_clients: int, alpha: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draws the number of images of each class and client, (C, K).

    All clients have the same number of images, up to one. A client draws its mix q ~ Dir(alpha p), where p holds the
    share of each class in the data, then one image after the other from q, without replacement; a class without images
    left is skipped. Clients draw in random order, because the last clients get the classes that are left.

    Args:
        lengths_C: images of each class, at least one each.
        num_clients: clients K.
        alpha: concentration; with a large alpha every client has the class mix of the data.
        rng: the source of randomness.
    """
    num_images = int(lengths_C.sum())
    prior_C = lengths_C / num_images
    left_C = lengths_C.copy()
    sizes_CK = np.zeros((len(lengths_C), num_clients), dtype=np.int64)
    ends_K = np.arange(num_clients + 1) * num_images // num_clients
    for client in rng.permutation(num_clients):
        mix_C = _draw_mix(prior_C, alpha, rng)
        num_missing = int(ends_K[client + 1] - ends_K[client])
        while num_missing:
            open_C = np.where(left_C > 0, mix_C, 0.0)
            if open_C.sum() == 0:
                # The mix of the classes that are left, given a mix in which they have no share, is Dirichlet too.
                is_left_C = left_C > 0
                mix_C[is_left_C] = _draw_mix(prior_C[is_left_C], alpha, rng)
                continue
            # Draws beyond the images that are left are rejected and repeated, as if drawn one after the other.
            taken_C = np.minimum(rng.multinomial(num_missing, open_C / open_C.sum()), left_C)
            sizes_CK[:, client] += taken_C
            left_C -= taken_C
            num_missing -= int(taken_C.sum())
    return sizes_CK


def _draw_mix(prior_C: NDArray[np.float64], alpha: float, rng: np.random.Generator) -> NDArray[np.float64]:
    mix_C = rng.dirichlet(alpha * prior_C)
    if mix_C.sum() > 0:
        return mix_C
    # Numbers this small underflow; in the limit a mix is one class.
    return rng.multinomial(1, prior_C / prior_C.sum()).astype(np.float64)

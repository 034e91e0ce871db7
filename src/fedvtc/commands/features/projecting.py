"""Projections of features to two dimensions: PCA, and t-SNE (van der Maaten and Hinton 2008).

Shapes: P points, D features.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedvtc.commands.features.sampling import Sampled

MAX_DIMENSIONS = 50
"""Principal components that t-SNE starts from, as its authors do."""
PERPLEXITY = 30.0


def project(sampled: Sampled, seed: int) -> list[dict[str, Any]]:
    """Returns the points with `pca/x`, `pca/y`, `tsne/x` and `tsne/y`.

    All points are projected together, so that clients, and models before and after the last step, share the axes.
    """
    components_PD = principal_components(sampled.features_PD)
    tsne_P2 = _tsne(components_PD[:, :MAX_DIMENSIONS], seed)
    positions = np.concatenate([components_PD[:, :2], tsne_P2], axis=1).tolist()
    names = ("pca/x", "pca/y", "tsne/x", "tsne/y")
    return [
        {**point, **dict(zip(names, own, strict=True))} for point, own in zip(sampled.points, positions, strict=True)
    ]


def principal_components(features_PD: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the coordinates of points along their principal components, the largest variance first.

    Each component has the sign that gives its largest loading a positive sign, so that equal features give equal
    pictures on every machine.
    """
    centred_PD = features_PD.astype(np.float64) - features_PD.mean(axis=0, dtype=np.float64)
    # The covariance has a row per feature, which are far fewer than points.
    _, loadings_DD = np.linalg.eigh(centred_PD.T @ centred_PD)
    loadings_DD = loadings_DD[:, ::-1]
    largest_D = np.abs(loadings_DD).argmax(axis=0)
    signs_D = np.sign(loadings_DD[largest_D, np.arange(loadings_DD.shape[1])])
    components_PD: NDArray[np.float64] = centred_PD @ (loadings_DD * signs_D)
    return components_PD


def _tsne(points_PD: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    # Imported here, because the import takes a second.
    from sklearn.manifold import TSNE

    num_points = len(points_PD)
    perplexity = min(PERPLEXITY, (num_points - 1) / 3)
    found: NDArray[np.float64] = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(points_PD)
    return found

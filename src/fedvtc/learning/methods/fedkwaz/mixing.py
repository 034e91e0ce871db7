"""Mixes the patches of images with those of other images of a batch.

Shapes: B images, S pixels a side, G patches.
"""

import torch
from torch import Tensor
from torch.distributions import Beta

_CPU = torch.device("cpu")


def mix_patches(images: Tensor, concentration: float, num_patches: int) -> Tensor:
    """Replaces each image x by l x + (1 - l) x', where x' is another image of the batch and l a share of each patch.

    Args:
        images: (B, channels, S, S).
        concentration: parameter a of the shares' distribution Beta(a, a).
        num_patches: square number G of patches.
    """
    permutation_B = torch.randperm(len(images), device=_CPU)
    shares_SS = patch_shares(images.shape[-1], concentration, num_patches).to(images.device)
    others = images[permutation_B.to(images.device)]
    # In this order a batch of one image keeps its bits.
    return others + shares_SS * (images - others)


def patch_shares(side: int, concentration: float, num_patches: int) -> Tensor:
    """Draws the share l of the image itself for each pixel (S, S).

    The patches form a square grid. Each border of a patch moves by up to a quarter of the patch's side, in whole
    pixels. Where patches overlap the first one wins, and a pixel of no patch has share 1.
    """
    rows = round(num_patches**0.5)
    edges = [round(index * side / rows) for index in range(rows + 1)]
    reach = side // rows // 4
    shares_G = Beta(*torch.full((2,), concentration, device=_CPU)).sample((num_patches,))
    moves_G4 = torch.randint(-reach, reach + 1, (num_patches, 4), device=_CPU).tolist()
    shares_SS = torch.ones(side, side, device=_CPU)
    for patch in reversed(range(num_patches)):
        row, column = divmod(patch, rows)
        top, bottom, left, right = moves_G4[patch]
        rows_of_patch = slice(max(edges[row] + top, 0), edges[row + 1] + bottom)
        columns_of_patch = slice(max(edges[column] + left, 0), edges[column + 1] + right)
        shares_SS[rows_of_patch, columns_of_patch] = shares_G[patch]
    return shares_SS

"""Frechet distance, precision and recall of generated images in a feature space."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

NEIGHBOURS = 3
"""k in the precision and recall of Kynkaanniemi et al. 2019."""


def fidelity(real: Tensor, generated: Tensor) -> dict[str, float]:
    """Compare the features of real and generated images.

    The features are floating, of shapes (N, F) and (M, F), with at least four rows each.

    Returns
    -------
    dict[str, float]
        ``frechet_distance`` between Gaussians fitted to the features (Heusel et al. 2017); 0 is best.
        ``precision`` and ``recall``, the share of generated images in the manifold of the real images and
        vice versa, in [0, 1], from the first min(N, M) rows of both (Kynkaanniemi et al. 2019).
    """
    rows = min(len(real), len(generated))
    return {
        "frechet_distance": frechet_distance(real, generated),
        "precision": _share_within(generated[:rows], real[:rows]),
        "recall": _share_within(real[:rows], generated[:rows]),
    }


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """Return the Frechet distance between two sets of features, shapes (N, F) and (M, F).

    Raises
    ------
    ValueError
        If the distance is NaN or infinite.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Features(real.shape[1]))
    metric.update(real, real=True)
    metric.update(generated, real=False)
    distance = float(metric.compute())
    if not math.isfinite(distance):
        raise ValueError(
            f"the Frechet distance is {distance}: the feature extractor returns features that are not finite"
        )
    # Rounding can make a distance of zero slightly negative.
    return max(0.0, distance)


class _Features(nn.Identity):
    """Return the features unchanged."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def _share_within(points: Tensor, manifold: Tensor) -> float:
    """Return the share of points that lie within the k-th neighbour distance of a manifold point."""
    radii = torch.cdist(manifold, manifold).kthvalue(NEIGHBOURS + 1, dim=1).values
    return float((torch.cdist(points, manifold) <= radii).any(dim=1).float().mean())

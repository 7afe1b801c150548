"""How good generated images are: Frechet distance, precision and recall, in the features of a classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NEIGHBOURS = 3
"""k of the precision and recall of Kynkaanniemi et al. 2019."""


@dataclass(frozen=True)
class Fidelity:
    """Generated images against real ones.

    Parameters
    ----------
    frechet_distance : float
        Between Gaussians fitted to the features (Heusel et al. 2017); 0 is best.
    precision, recall : float
        Share of generated images within the manifold of the real ones, and the other way round
        (Kynkaanniemi et al. 2019), in [0, 1].
    """

    frechet_distance: float
    precision: float
    recall: float


def fidelity(real: Tensor, generated: Tensor) -> Fidelity:
    """Compare the features of generated images with those of real ones.

    Parameters
    ----------
    real, generated : Tensor
        Features, floating, shapes (N, F) and (M, F); at least four rows each.

    Returns
    -------
    Fidelity
        The measures. Precision and recall use the first min(N, M) rows of each.
    """
    rows = min(len(real), len(generated))
    return Fidelity(
        frechet_distance(real, generated),
        _share_within(generated[:rows], real[:rows]),
        _share_within(real[:rows], generated[:rows]),
    )


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """Return the Frechet distance of two sets of features, shapes (N, F) and (M, F).

    Raises
    ------
    ValueError
        When it is NaN or infinite.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Features(real.shape[1]))
    metric.update(real, real=True)
    metric.update(generated, real=False)
    distance = float(metric.compute())
    if not math.isfinite(distance):
        raise ValueError(
            f"the Frechet distance is {distance}: the feature extractor gives no finite features"
        )
    # Rounding can leave a distance of nothing just below zero.
    return max(0.0, distance)


class _Features(nn.Identity):
    """Hands features on as they are."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def _share_within(points: Tensor, manifold: Tensor) -> float:
    """Return the share of points within the k-th neighbour's distance of any point of the manifold."""
    radii = torch.cdist(manifold, manifold).kthvalue(NEIGHBOURS + 1, dim=1).values
    return float((torch.cdist(points, manifold) <= radii).any(dim=1).float().mean())

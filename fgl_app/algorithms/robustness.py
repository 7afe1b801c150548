"""Limits on what a single site can do to a federation: weights and outliers, against the median site."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low


def cap_weights(weights: Sequence[float], ratio: float) -> list[float]:
    """Limit each weight to a multiple of the median weight.

    Parameters
    ----------
    weights : Sequence[float]
        Positive, such as the number of examples of each site.
    ratio : float
        Largest weight as a multiple of the lower median; 0 does not limit.

    Returns
    -------
    list[float]
        The limited weights; integers stay integers.
    """
    if not ratio or not weights:
        return list(weights)
    most = ratio * median_low(weights)
    return [weight if weight <= most else type(weight)(most) for weight in weights]


def find_outliers(values: Sequence[float], ratio: float, *, floor: float = 0.0) -> list[int]:
    """Return the positions of values that exceed a multiple of the median.

    Parameters
    ----------
    values : Sequence[float]
        Non-negative, such as the norm of each site's update.
    ratio : float
        Largest value as a multiple of the lower median; 0 finds none.
    floor : float, default 0.0
        Smallest value that the median counts as: losses of sites with one class are near zero.

    Returns
    -------
    list[int]
        In ascending order; empty for fewer than three values, which have no majority.
    """
    if not ratio or len(values) < 3:
        return []
    most = ratio * max(median_low(values), floor)
    # A median of zero: most sites did not change the model, and any change would be an outlier.
    return [i for i, value in enumerate(values) if not value <= most] if most else []

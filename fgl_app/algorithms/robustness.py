"""Limits on what a single site can do to a federation: weights and outliers, against the median site."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

MIN_VALUES = 3
"""Two values have no majority, so neither is limited by the other."""


def cap_weights(weights: Sequence[float], ratio: float) -> list[float]:
    """Limit each weight to a multiple of the median weight.

    Parameters
    ----------
    weights : Sequence[float]
        Non-negative, such as the number of examples of each site; zeros do not count for the median.
    ratio : float
        Largest weight as a multiple of the lower median, at least 1; 0 does not limit.

    Returns
    -------
    list[float]
        The limited weights; integers stay integers, at least 1.

    Raises
    ------
    ValueError
        When the ratio is between 0 and 1.
    """
    _check_ratio(ratio)
    positive = [weight for weight in weights if weight > 0]
    if not ratio or len(positive) < MIN_VALUES:
        return list(weights)
    most = ratio * median_low(positive)
    return [_limited(weight, most) for weight in weights]


def find_outliers(values: Sequence[float], ratio: float, *, floor: float = 0.0) -> list[int]:
    """Return the positions of values that exceed a multiple of the median.

    Parameters
    ----------
    values : Sequence[float]
        Non-negative, such as the norm of each site's update.
    ratio : float
        Largest value as a multiple of the lower median, at least 1; 0 finds none.
    floor : float, default 0.0
        Smallest value that the median counts as. Where most sites have converged, theirs are near zero, and
        the others are no outliers.

    Returns
    -------
    list[int]
        In ascending order; empty for fewer than three values.

    Raises
    ------
    ValueError
        When the ratio is between 0 and 1.
    """
    _check_ratio(ratio)
    if not ratio or len(values) < MIN_VALUES:
        return []
    most = ratio * max(median_low(values), floor)
    # With a median of zero, most sites did not change the model, and any change would be an outlier.
    return [i for i, value in enumerate(values) if not value <= most] if most else []


def _limited(weight: float, most: float) -> float:
    if weight <= most:
        return weight
    return max(1, int(most)) if isinstance(weight, int) else most


def _check_ratio(ratio: float) -> None:
    if not (ratio == 0 or ratio >= 1):
        raise ValueError(f"the largest ratio to the median must be 0 or at least 1, got {ratio}")

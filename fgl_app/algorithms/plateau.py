"""When learning is slow: FedDDPM+'s detector (arXiv 2503.06426 names the idea; the formula is ours)."""

from __future__ import annotations

from collections.abc import Sequence


def relative_improvement(losses: Sequence[float], *, window: int, smoothing: float) -> float | None:
    """Return how much the smoothed loss fell over the last ``window`` rounds, as a fraction a round.

    Parameters
    ----------
    losses : Sequence[float]
        Positive, one a round, the newest last.
    window : int
        Rounds looked back, at least 1.
    smoothing : float
        Weight of the past in the exponential mean of the losses, in [0, 1); 0 does not smooth.

    Returns
    -------
    float or None
        ``(s[-1 - window] - s[-1]) / (window * s[-1 - window])`` of the smoothed losses s; None while there
        are not more than ``window`` losses.
    """
    if len(losses) <= window:
        return None
    smoothed = [losses[0]]
    for loss in losses[1:]:
        smoothed.append(smoothing * smoothed[-1] + (1 - smoothing) * loss)
    before, now = smoothed[-1 - window], smoothed[-1]
    return (before - now) / (window * before) if before > 0 else 0.0


def is_plateau(losses: Sequence[float], *, window: int, smoothing: float, threshold: float) -> bool:
    """Return whether learning has become slow: FedDDPM+'s sign to correct (arXiv 2503.06426).

    Parameters
    ----------
    losses : Sequence[float]
        Positive, one a round, the newest last.
    window : int
        Rounds looked back, at least 1.
    smoothing : float
        Weight of the past in the exponential mean of the losses, in [0, 1); 0 does not smooth.
    threshold : float
        Relative improvement a round, as a fraction, below which learning is slow.

    Returns
    -------
    bool
        False while there are not more than ``window`` losses.
    """
    improvement = relative_improvement(losses, window=window, smoothing=smoothing)
    return improvement is not None and improvement < threshold

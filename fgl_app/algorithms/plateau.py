"""Plateau detection of FedDDPM+ (the idea is from arXiv 2503.06426, the formula is this project's)."""

from __future__ import annotations

from collections.abc import Sequence


def relative_improvement(losses: Sequence[float], *, window: int, smoothing: float) -> float | None:
    """Return the decrease of the smoothed loss over the last ``window`` rounds, as a fraction per round.

    The arguments are those of :func:`is_plateau`. For smoothed losses s the result is
    ``(s[-1 - window] - s[-1]) / (window * s[-1 - window])``; None with ``window`` losses or fewer.
    """
    if len(losses) <= window:
        return None
    smoothed = [losses[0]]
    for loss in losses[1:]:
        smoothed.append(smoothing * smoothed[-1] + (1 - smoothing) * loss)
    before, now = smoothed[-1 - window], smoothed[-1]
    return (before - now) / (window * before) if before > 0 else 0.0


def is_plateau(losses: Sequence[float], *, window: int, smoothing: float, threshold: float) -> bool:
    """Return whether the loss has reached a plateau, where FedDDPM+ corrects (arXiv 2503.06426).

    Parameters
    ----------
    losses : Sequence[float]
        Positive, one per round, the latest last.
    window : int
        Number of rounds, at least 1.
    smoothing : float
        Weight of earlier losses in the exponential moving average, in [0, 1); 0 disables smoothing.
    threshold : float
        Relative improvement per round, as a fraction, below which the loss is on a plateau.

    Returns
    -------
    bool
        False with ``window`` losses or fewer.
    """
    improvement = relative_improvement(losses, window=window, smoothing=smoothing)
    return improvement is not None and improvement < threshold

"""Limits on the replies of a round: no site may dominate the others by its update or its loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median_low

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord

from fgl_app.algorithms.robustness import find_outliers
from fgl_app.messages.keys import TRAIN_LOSS
from fgl_app.messages.replies import reply_arrays
from fgl_app.messages.validation import reply_metrics

UPDATE_FLOOR = 1e-3
"""Share of the norm of the sent arrays that every update may have: most sites may have converged."""
LOSS_FLOOR = 1.0
"""Losses of sites with one class are near zero."""


def outlying_replies(
    replies: Sequence[Message], sent: Mapping[str, ArrayRecord], ratio: float
) -> dict[int, str]:
    """Return the positions of replies that are far larger than the others, with the reason."""
    reasons: dict[int, str] = {}
    for name, record in sent.items():
        reference = _floats(record)
        norms = [_update_norm(reply_arrays(reply.content, name), reference) for reply in replies]
        floor = UPDATE_FLOOR * _norm(reference.values())
        for i in find_outliers(norms, ratio, floor=floor):
            times = norms[i] / max(median_low(norms), floor)
            reasons.setdefault(
                i, f"the norm of its update is {times:.3g} times the median, at most {ratio:g}"
            )
    losses = [_loss(reply_metrics(reply.content)) for reply in replies]
    for i in find_outliers(losses, ratio, floor=LOSS_FLOOR):
        reasons.setdefault(i, f"its '{TRAIN_LOSS}' of {losses[i]:.3g} is far above the others'")
    return reasons


def _floats(arrays: ArrayRecord) -> dict[str, np.ndarray]:
    """Return the floating arrays by name."""
    values = {name: array.numpy() for name, array in arrays.items()}
    return {name: each for name, each in values.items() if np.issubdtype(each.dtype, np.floating)}


def _update_norm(arrays: ArrayRecord, reference: Mapping[str, np.ndarray]) -> float:
    return _norm(
        np.subtract(arrays[name].numpy(), each, dtype=np.float64) for name, each in reference.items()
    )


def _norm(arrays: Iterable[np.ndarray]) -> float:
    # In double precision: the square of a huge single is infinite.
    return math.sqrt(sum(float(np.square(each, dtype=np.float64).sum()) for each in arrays))


def _loss(metrics: MetricRecord) -> float:
    value = metrics.get(TRAIN_LOSS, 0.0)
    return abs(float(value)) if isinstance(value, int | float) else 0.0

"""Limits on the replies of a round: no site may dominate the others by its update, loss or weight."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median_low

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict

from fgl_app.algorithms.robustness import cap_weights, find_outliers
from fgl_app.messages.keys import NUM_EXAMPLES, TRAIN_LOSS
from fgl_app.messages.replies import num_examples

UPDATE_FLOOR = 1e-3
"""Share of the norm of the sent arrays that every update may have: most sites may have converged."""
LOSS_FLOOR = 1.0
"""Losses of sites with one class are near zero."""


def outlying_replies(
    replies: Sequence[Message], sent: Mapping[str, ArrayRecord], ratio: float
) -> dict[int, str]:
    """Return the positions of replies that are far larger than the others, with the reason."""
    reasons: dict[int, str] = {}
    for name, reference in sent.items():
        norms = [_distance(_record(reply.content, name, sent), reference) for reply in replies]
        floor = UPDATE_FLOOR * _distance(reference, None)
        for i in find_outliers(norms, ratio, floor=floor):
            times = norms[i] / max(median_low(norms), floor)
            reasons.setdefault(
                i, f"the norm of its update is {times:.3g} times the median, at most {ratio:g}"
            )
    losses = [abs(_metric(reply.content, TRAIN_LOSS)) for reply in replies]
    for i in find_outliers(losses, ratio, floor=LOSS_FLOOR):
        reasons.setdefault(i, f"its '{TRAIN_LOSS}' of {losses[i]:.3g} is far above the others'")
    return reasons


def cap_reply_weights(replies: Sequence[Message], ratio: float) -> Iterator[tuple[Message, float, float]]:
    """Limit the weights of replies in place; yield each reply with its weight before and after."""
    weights = [num_examples(reply.content) for reply in replies]
    for reply, weight, capped in zip(replies, weights, cap_weights(weights, ratio), strict=True):
        next(iter(reply.content.metric_records.values()))[NUM_EXAMPLES] = capped
        yield reply, weight, capped


def _record(content: RecordDict, name: str, sent: Mapping[str, ArrayRecord]) -> ArrayRecord:
    # A single record may have any name.
    return content.array_records[name] if len(sent) > 1 else next(iter(content.array_records.values()))


def _distance(arrays: ArrayRecord, reference: ArrayRecord | None) -> float:
    """Return the Euclidean distance of the floating arrays to a reference; their norm without one."""
    total = 0.0
    for name, array in arrays.items():
        values = array.numpy()
        if np.issubdtype(values.dtype, np.floating):
            # In double precision: the square of a huge single is infinite.
            difference = values.astype(np.float64)
            if reference is not None:
                difference = difference - reference[name].numpy()
            total += float(np.square(difference).sum())
    return math.sqrt(total)


def _metric(content: RecordDict, name: str) -> float:
    value = next(iter(content.metric_records.values())).get(name, 0.0)
    return float(value) if isinstance(value, int | float) else 0.0

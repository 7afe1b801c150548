"""Rules for arrays and metrics that a client sends."""

from __future__ import annotations

import math

import numpy as np
from flwr.app import Array, MetricRecord, RecordDict

MAX_EXAMPLES = 1_000_000_000
"""No site holds more examples; a larger number would only drown the other sites."""


class UploadError(ValueError):
    """A reply breaks a rule; the message names the rule and the value received."""


def read_array(name: str, array: Array) -> np.ndarray:
    """Return an array that a client sent.

    Raises
    ------
    UploadError
        When it is not a plain NumPy array of the declared shape and dtype.
    """
    if array.stype != "numpy.ndarray":
        raise UploadError(f"array '{name}' has serialization '{array.stype}', expected 'numpy.ndarray'")
    try:
        values: object = array.numpy()
    except Exception as error:  # NumPy's reader raises many kinds of error for crafted bytes
        raise UploadError(f"array '{name}' cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(values, np.ndarray):
        raise UploadError(f"array '{name}' is not an array")
    # The declared shape could claim any size; it must fit the bytes.
    if values.shape != tuple(array.shape) or str(values.dtype) != array.dtype:
        raise UploadError(f"array '{name}' does not match its header")
    return values


def check_finite(name: str, array: np.ndarray) -> None:
    """Raise UploadError when an array holds NaN or infinity."""
    # One pass without a mask as large as the array: NaN and infinity survive a sum.
    if not math.isfinite(float(np.sum(array, dtype=np.float64))):
        raise UploadError(f"'{name}' holds NaN or infinity")


def reply_metrics(content: RecordDict) -> MetricRecord:
    """Return the metrics of a reply: its first MetricRecord, whatever its name."""
    return next(iter(content.metric_records.values()))


def check_metrics(content: RecordDict) -> None:
    """Raise UploadError when a metric of a reply is not finite."""
    for name, value in reply_metrics(content).items():
        # A single NaN would stay in every mean and in every comparison with earlier losses.
        if not np.isfinite(value).all():
            raise UploadError(f"metric '{name}' is not finite")

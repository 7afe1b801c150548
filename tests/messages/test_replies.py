"""Validation of training replies."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from fgl_app.messages.replies import check_trained
from fgl_app.messages.validation import UploadError

REFERENCE = ArrayRecord({"w": Array(np.zeros((2, 3), np.float32)), "b": Array(np.zeros(3, np.float32))})


def trained(arrays=None, weight=4, more_metrics=None, **records):
    arrays = arrays or {"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}
    metrics = MetricRecord(({} if weight is None else {"num-examples": weight}) | (more_metrics or {}))
    content = {"arrays": ArrayRecord({n: Array(a) for n, a in arrays.items()}), "metrics": metrics}
    return RecordDict(content | records)


def test_a_good_training_reply_is_accepted():
    check_trained(trained(), {"arrays": REFERENCE})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (trained(weight=0), r"'num-examples' must be in \(0, 1000000000\], got 0"),
        (trained(weight=-3), "must be in"),
        (trained(weight=float("nan")), "must be in"),
        (trained(weight=None), "must be in"),
        (trained({"w": np.ones((2, 3), np.float32)}), "array 'b' is missing"),
        (
            trained({"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32), "x": np.ones(1)}),
            "array 'x' is unknown",
        ),
        (
            trained({"w": np.ones((1, 3), np.float32), "b": np.ones(3, np.float32)}),
            r"array 'w' must be float32 of shape \(2, 3\), got float32 of shape \(1, 3\)",
        ),
        (
            trained({"w": np.ones((2, 3), np.float64), "b": np.ones(3, np.float32)}),
            r"got float64 of shape \(2, 3\)",
        ),
        (
            trained({"w": np.full((2, 3), np.nan, np.float32), "b": np.ones(3, np.float32)}),
            "'w' holds NaN or infinity",
        ),
        (trained(more_metrics={"train-loss": float("nan")}), "metric 'train-loss' is not finite"),
        (trained(more_metrics={"losses": [1.0, float("inf")]}), "metric 'losses' is not finite"),
        (trained(more=MetricRecord()), "needs 1 ArrayRecord and one MetricRecord, got 1 and 2"),
    ],
)
def test_a_bad_training_reply_is_rejected_with_its_reason(content, reason):
    with pytest.raises(UploadError, match=reason):
        check_trained(content, {"arrays": REFERENCE})

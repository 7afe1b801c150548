"""Replies with metrics: what a client returns after training and after an evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from flwr.app import ArrayRecord, MetricRecord, RecordDict

from fgl_app.algorithms.types import State
from fgl_app.messages.keys import ARRAYS, LABEL_COUNTS, METRICS, NUM_EXAMPLES, SITE
from fgl_app.messages.sites import site_record
from fgl_app.messages.validation import (
    MAX_EXAMPLES,
    UploadError,
    check_finite,
    check_metrics,
    read_array,
    reply_metrics,
)
from fgl_app.messages.weights import state_to_arrays


def metric_record(values: Mapping[str, float | int | list[int]]) -> MetricRecord:
    """Return a MetricRecord of plain numbers (Flower refuses NumPy scalars)."""
    return MetricRecord({key: v if isinstance(v, int | list) else float(v) for key, v in values.items()})


def trained_content(state: State, metrics: Mapping[str, float | int | list[int]], site: str) -> RecordDict:
    """Return the reply of a training round: weights, metrics with "num-examples", the site's name."""
    return RecordDict(
        {ARRAYS: state_to_arrays(state), METRICS: metric_record(metrics), SITE: site_record(site)}
    )


def check_trained(content: RecordDict, sent: Mapping[str, ArrayRecord]) -> None:
    """Validate the reply of a training round against the arrays that were sent.

    Parameters
    ----------
    content : RecordDict
        As many ArrayRecords as were sent, under the same names if there are several, and one MetricRecord
        with a positive "num-examples".
    sent : Mapping[str, ArrayRecord]
        The arrays of the request: names, shapes and dtypes must be the same.

    Raises
    ------
    UploadError
        On other names, shapes or dtypes, NaN or infinity in arrays or metrics, or a weight out of range.
    """
    records = content.array_records
    if len(records) != len(sent) or len(content.metric_records) != 1:
        raise UploadError(
            f"a training reply needs {len(sent)} ArrayRecord and one MetricRecord, "
            f"got {len(records)} and {len(content.metric_records)}"
        )
    weight = num_examples(content)
    if not 0 < weight <= MAX_EXAMPLES:
        raise UploadError(f"'{NUM_EXAMPLES}' must be in (0, {MAX_EXAMPLES}], got {weight}")
    check_metrics(content)
    for name, reference in sent.items():
        if len(sent) > 1 and name not in records:
            raise UploadError(f"no ArrayRecord '{name}' in the reply")
        _check_like(reply_arrays(content, name), reference)


def reply_arrays(content: RecordDict, name: str) -> ArrayRecord:
    """Return a training reply's arrays for the record ``name`` of the request; a single one has any name."""
    records = content.array_records
    return records[name] if len(records) > 1 else next(iter(records.values()))


def evaluated_content(metrics: Mapping[str, float | int], site: str) -> RecordDict:
    """Return the reply of an evaluation: metrics with "num-examples", the site's name."""
    return RecordDict({METRICS: metric_record(metrics), SITE: site_record(site)})


def check_evaluated(content: RecordDict, ranges: Mapping[str, tuple[float, float]] | None = None) -> None:
    """Validate the reply of an evaluation: one MetricRecord, whose "num-examples" may be 0.

    Parameters
    ----------
    content : RecordDict
        The reply.
    ranges : Mapping[str, tuple[float, float]] or None, default None
        Lowest and highest value of metrics; None accepts any finite value.

    Raises
    ------
    UploadError
        On no or several MetricRecords, NaN or infinity in metrics, a metric or weight out of range.
    """
    if len(content.metric_records) != 1:
        raise UploadError(f"an evaluation's reply needs one MetricRecord, got {len(content.metric_records)}")
    weight = num_examples(content)
    if not 0 <= weight <= MAX_EXAMPLES:
        raise UploadError(f"'{NUM_EXAMPLES}' must be in [0, {MAX_EXAMPLES}], got {weight}")
    check_metrics(content)
    metrics = reply_metrics(content)
    for name, (low, high) in (ranges or {}).items():
        value = metrics.get(name, low)
        if not isinstance(value, int | float) or not low <= value <= high:
            raise UploadError(f"metric '{name}' must be in [{low:g}, {high:g}], got {value}")


def num_examples(content: RecordDict) -> float:
    """Return the number of examples behind a reply; NaN when the reply has none."""
    for metrics in content.metric_records.values():
        weight = metrics.get(NUM_EXAMPLES)
        if isinstance(weight, int | float):
            return weight
    return math.nan


def label_counts(content: RecordDict, num_classes: int) -> torch.Tensor:
    """Return the number of examples of each class behind a reply, int64 of shape (num_classes,).

    Raises
    ------
    UploadError
        When the counts are missing, not one for each class, negative, or do not add up to "num-examples".
    """
    found = reply_metrics(content).get(LABEL_COUNTS)
    if not isinstance(found, list) or not all(isinstance(count, int) for count in found):
        raise UploadError(f"'{LABEL_COUNTS}' must be a list of integers, got {found}")
    if len(found) != num_classes or min(found) < 0 or sum(found) != num_examples(content):
        raise UploadError(
            f"'{LABEL_COUNTS}' must be {num_classes} counts that add up to '{NUM_EXAMPLES}', got {found}"
        )
    return torch.tensor(found, dtype=torch.int64)


def _check_like(arrays: ArrayRecord, reference: ArrayRecord) -> None:
    if arrays.keys() != reference.keys():
        odd = sorted(arrays.keys() ^ reference.keys())[0]
        raise UploadError(f"array '{odd}' is {'unknown' if odd in arrays else 'missing'}")
    for name, array in arrays.items():
        expected = reference[name]
        if (tuple(array.shape), array.dtype) != (tuple(expected.shape), expected.dtype):
            raise UploadError(
                f"array '{name}' must be {expected.dtype} of shape {tuple(expected.shape)}, "
                f"got {array.dtype} of shape {tuple(array.shape)}"
            )
        check_finite(name, read_array(name, array))

"""What clients send is validated here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict

from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.messages.records import EMBEDDING_DTYPES, EMBEDDINGS, LABEL_COUNTS, NUM_EXAMPLES

HALF_MAX = float(np.finfo(np.float16).max)
MAX_EXAMPLES = 1_000_000_000
"""More examples than any site holds; a larger claim would only drown the others."""


class UploadError(ValueError):
    """A reply breaks a rule of its kind; the message says which and what came instead."""


def record_to_embeddings(
    content: RecordDict,
    *,
    num_classes: int,
    max_bytes: int,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> TextEmbeddings:
    """Validate an upload of text embeddings and convert it.

    Parameters
    ----------
    content : RecordDict
        A reply with the ArrayRecord "embeddings": "labels" and "counts" (int64, shape (P,)) and named
        float16 or float32 tensors of shape (P, ...).
    num_classes : int
        Labels must be below it.
    max_bytes : int
        Most bytes the arrays may take.
    shapes : Mapping[str, tuple[int, ...]] or None, default None
        Names and shapes of one prompt's tensors; None accepts any.

    Returns
    -------
    TextEmbeddings
        On the CPU.

    Raises
    ------
    UploadError
        On a missing key, wrong shape or dtype, NaN or infinity, a label or count out of range, no prompt,
        or too many bytes.
    """
    record = content.array_records.get(EMBEDDINGS)
    if record is None:
        raise UploadError(f"no ArrayRecord '{EMBEDDINGS}' in the reply")
    size = sum(len(array.data) for other in content.array_records.values() for array in other.values())
    if size > max_bytes:
        raise UploadError(f"upload of {size} bytes, at most {max_bytes} are accepted")
    arrays = {name: _to_numpy(name, array) for name, array in record.items()}
    missing = {"labels", "counts"} - arrays.keys()
    if missing:
        raise UploadError(f"missing key '{min(missing)}'")
    labels = _integers("labels", arrays.pop("labels"), low=0, high=num_classes - 1)
    counts = _integers("counts", arrays.pop("counts"), low=1, high=MAX_EXAMPLES)
    if len(counts) != len(labels):
        raise UploadError(f"{len(labels)} labels but {len(counts)} counts")
    _check_tensors(arrays, len(labels), shapes)
    return TextEmbeddings(
        {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()},
        torch.from_numpy(labels),
        torch.from_numpy(counts),
    )


def check_trained(content: RecordDict, sent: Mapping[str, ArrayRecord]) -> None:
    """Validate the reply of a training round against the arrays that were sent.

    Parameters
    ----------
    content : RecordDict
        As many ArrayRecords as were sent, under the same names if there are several, and one MetricRecord
        with a positive "num-examples".
    sent : Mapping[str, ArrayRecord]
        What the client was given: names, shapes and dtypes of its arrays must be the same.

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
    _check_metrics(content)
    for name, reference in sent.items():
        if len(sent) > 1 and name not in records:
            raise UploadError(f"no ArrayRecord '{name}' in the reply")
        _check_like(records[name] if len(sent) > 1 else next(iter(records.values())), reference)


def check_evaluated(content: RecordDict) -> None:
    """Validate the reply of an evaluation: one MetricRecord, whose "num-examples" may be 0.

    Raises
    ------
    UploadError
        On none or several of them, NaN or infinity in metrics, or a weight out of range.
    """
    if len(content.metric_records) != 1:
        raise UploadError(f"an evaluation's reply needs one MetricRecord, got {len(content.metric_records)}")
    weight = num_examples(content)
    if not 0 <= weight <= MAX_EXAMPLES:
        raise UploadError(f"'{NUM_EXAMPLES}' must be in [0, {MAX_EXAMPLES}], got {weight}")
    _check_metrics(content)


def num_examples(content: RecordDict) -> float:
    """Return how many examples a training reply says to stand for; NaN when it does not say."""
    for metrics in content.metric_records.values():
        weight = metrics.get(NUM_EXAMPLES)
        if isinstance(weight, int | float):
            return weight
    return math.nan


def label_counts(content: RecordDict, num_classes: int) -> torch.Tensor:
    """Return a training reply's examples of each class, int64 of shape (num_classes,).

    Raises
    ------
    UploadError
        When they are missing, of another number, negative, or do not add up to "num-examples".
    """
    found = next(iter(content.metric_records.values())).get(LABEL_COUNTS)
    if not isinstance(found, list) or not all(isinstance(count, int) for count in found):
        raise UploadError(f"'{LABEL_COUNTS}' must be a list of integers, got {found}")
    if len(found) != num_classes or min(found) < 0 or sum(found) != num_examples(content):
        raise UploadError(
            f"'{LABEL_COUNTS}' must be {num_classes} counts that add up to '{NUM_EXAMPLES}', got {found}"
        )
    return torch.tensor(found, dtype=torch.int64)


def _check_metrics(content: RecordDict) -> None:
    for name, value in next(iter(content.metric_records.values())).items():
        # A single NaN would stay in every mean and in all that looks at past losses.
        if not np.isfinite(value).all():
            raise UploadError(f"metric '{name}' is not finite")


def _to_numpy(name: str, array: Array) -> np.ndarray:
    # The header alone could claim any size; the declared shape must fit the bytes that came.
    if array.stype != "numpy.ndarray":
        raise UploadError(f"array '{name}' has serialization '{array.stype}', expected 'numpy.ndarray'")
    try:
        values: object = array.numpy()
    except Exception as error:  # NumPy's reader raises many kinds for bytes made to break it
        raise UploadError(f"array '{name}' cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(values, np.ndarray):
        raise UploadError(f"array '{name}' is no array")
    if values.shape != tuple(array.shape) or str(values.dtype) != array.dtype:
        raise UploadError(f"array '{name}' is not what its header says")
    return values


def _integers(name: str, values: np.ndarray, *, low: int, high: int) -> np.ndarray:
    if values.dtype != np.int64 or values.ndim != 1:
        raise UploadError(f"'{name}' must be int64 of shape (P,), got {values.dtype} of shape {values.shape}")
    if not len(values):
        raise UploadError(f"'{name}' is empty: a client must describe at least one example")
    outside = values[(values < low) | (values > high)]
    if len(outside):
        raise UploadError(f"'{name}' must be between {low} and {high}, got {outside[0]}")
    return values.copy()


def _check_tensors(
    arrays: Mapping[str, np.ndarray], rows: int, shapes: Mapping[str, tuple[int, ...]] | None
) -> None:
    if not arrays:
        raise UploadError("no embedding tensor in the upload")
    if shapes is not None and arrays.keys() != shapes.keys():
        raise UploadError(f"embedding tensors must be {sorted(shapes)}, got {sorted(arrays)}")
    for name, array in arrays.items():
        if str(array.dtype) not in EMBEDDING_DTYPES:
            raise UploadError(f"'{name}' must be {' or '.join(EMBEDDING_DTYPES)}, got {array.dtype}")
        if not array.size:
            raise UploadError(f"'{name}' is empty, got shape {array.shape}")
        expected = (rows, *(shapes[name] if shapes is not None else array.shape[1:]))
        if array.shape != expected:
            raise UploadError(f"'{name}' must have shape {expected}, got {array.shape}")
        _check_finite(name, array)
        # The generator may run in half precision, where larger values turn into infinity.
        if np.abs(array).max() > HALF_MAX:
            raise UploadError(f"'{name}' holds values beyond {HALF_MAX:g}, the range of half precision")


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
        _check_finite(name, _to_numpy(name, array))


def _check_finite(name: str, array: np.ndarray) -> None:
    # One pass without a mask as large as the array: a sum meets any NaN or infinity.
    if not math.isfinite(float(np.sum(array, dtype=np.float64))):
        raise UploadError(f"'{name}' holds NaN or infinity")

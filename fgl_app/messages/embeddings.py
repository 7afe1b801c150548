"""FGL's upload: the text embeddings of a client's prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.messages.keys import CONFIG, EMBEDDINGS, ENCODER, METRICS, NUM_EXAMPLES, SITE
from fgl_app.messages.replies import metric_record
from fgl_app.messages.sites import site_record
from fgl_app.messages.validation import MAX_EXAMPLES, UploadError, check_finite, read_array

EMBEDDING_DTYPES = ("float16", "float32")
HALF_MAX = float(np.finfo(np.float16).max)


def check_encoder(message: Message, encoder: str, generator: str) -> None:
    """Check that a client's text encoder is the server's, if the request names one.

    Parameters
    ----------
    message : Message
        The request, of type "query.embed".
    encoder : str
        Fingerprint of the client's text encoder.
    generator : str
        The client's generator, for the error message.

    Raises
    ------
    ValueError
        When the server named another encoder.
    """
    request = message.content.config_records.get(CONFIG, ConfigRecord())
    expected = cast(str, request.get(ENCODER, ""))
    if expected not in ("", encoder):
        raise ValueError(
            f"this client's text encoder {encoder} (generator '{generator}') is not the server's {expected}; "
            "both need the same generator, and LoRA weights if any"
        )


def embeddings_content(embeddings: TextEmbeddings, site: str) -> RecordDict:
    """Return a client's reply: the embeddings, the number of examples behind them, and the site's name."""
    return RecordDict(
        {
            EMBEDDINGS: embeddings_to_record(embeddings),
            METRICS: metric_record({NUM_EXAMPLES: int(embeddings.counts.sum())}),
            SITE: site_record(site),
        }
    )


def embeddings_to_record(embeddings: TextEmbeddings) -> ArrayRecord:
    """Encode text embeddings as one ArrayRecord with fixed keys."""
    tensors = {**embeddings.tensors, "labels": embeddings.labels, "counts": embeddings.counts}
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in tensors.items()})


def record_to_embeddings(
    content: RecordDict,
    *,
    num_classes: int,
    max_bytes: int,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> TextEmbeddings:
    """Validate an upload of text embeddings and decode it.

    Parameters
    ----------
    content : RecordDict
        A reply with the ArrayRecord "embeddings": "labels" and "counts" (int64, shape (P,)) and named
        float16 or float32 tensors of shape (P, ...).
    num_classes : int
        Upper bound of the labels, exclusive.
    max_bytes : int
        Largest total size of the arrays, bytes.
    shapes : Mapping[str, tuple[int, ...]] or None, default None
        Names and shapes of one prompt's tensors; None accepts any.

    Returns
    -------
    TextEmbeddings
        On the CPU.

    Raises
    ------
    UploadError
        On a missing key, a wrong shape or dtype, NaN or infinity, a label or count out of range, no prompt,
        or too many bytes.
    """
    record = content.array_records.get(EMBEDDINGS)
    if record is None:
        raise UploadError(f"no ArrayRecord '{EMBEDDINGS}' in the reply")
    size = sum(len(array.data) for other in content.array_records.values() for array in other.values())
    if size > max_bytes:
        raise UploadError(f"upload of {size} bytes, at most {max_bytes} are accepted")
    arrays = {name: read_array(name, array) for name, array in record.items()}
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
        check_finite(name, array)
        # The generator may run in half precision, where larger values become infinity.
        if np.abs(array).max() > HALF_MAX:
            raise UploadError(f"'{name}' holds values beyond {HALF_MAX:g}, the range of half precision")

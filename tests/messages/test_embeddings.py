"""Validation of uploaded text embeddings."""

import io

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict

from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.messages.embeddings import embeddings_to_record, record_to_embeddings
from fgl_app.messages.keys import EMBEDDINGS
from fgl_app.messages.validation import UploadError

SHAPES = {"prompt_embeds": (4, 2)}


def upload(**changes):
    arrays = {
        "prompt_embeds": np.ones((3, 4, 2), np.float16),
        "labels": np.array([0, 1, 1]),
        "counts": np.array([5, 6, 7]),
    } | changes
    present = {name: Array(array) for name, array in arrays.items() if array is not None}
    return RecordDict({EMBEDDINGS: ArrayRecord(present)})


def _npy(header):
    """Return the first bytes of a NumPy file with this header."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def _npz():
    buffer = io.BytesIO()
    np.savez(buffer, labels=np.zeros(3))
    return buffer.getvalue()


def read(content, **options):
    return record_to_embeddings(
        content, **{"num_classes": 2, "max_bytes": 10_000, "shapes": SHAPES} | options
    )


def test_embeddings_are_received_as_sent():
    sent = TextEmbeddings(
        {"prompt_embeds": torch.rand(3, 4, 2).half()}, torch.tensor([0, 1, 1]), torch.tensor([5, 6, 7])
    )
    received = read(RecordDict({EMBEDDINGS: embeddings_to_record(sent)}))
    assert torch.equal(received.tensors["prompt_embeds"], sent.tensors["prompt_embeds"])
    assert torch.equal(received.labels, sent.labels)
    assert torch.equal(received.counts, sent.counts)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"labels": None}, "missing key 'labels'"),
        ({"counts": None}, "missing key 'counts'"),
        ({"labels": np.array([0, 1, 2])}, "'labels' must be between 0 and 1, got 2"),
        ({"labels": np.array([0, -1, 1])}, "'labels' must be between 0 and 1, got -1"),
        ({"labels": np.array([0.0, 1.0, 1.0])}, "'labels' must be int64"),
        ({"labels": np.array([[0, 1, 1]])}, "'labels' must be int64 of shape"),
        ({"labels": np.array([], np.int64)}, "'labels' is empty"),
        ({"counts": np.array([1, 2, 0])}, "'counts' must be between 1 and 1000000000, got 0"),
        ({"counts": np.array([1, 2, 10**10])}, "'counts' must be between 1 and"),
        ({"counts": np.array([1, 2])}, "3 labels but 2 counts"),
        ({"prompt_embeds": np.full((3, 4, 2), np.nan, np.float16)}, "'prompt_embeds' holds NaN or infinity"),
        ({"prompt_embeds": np.full((3, 4, 2), np.inf, np.float16)}, "'prompt_embeds' holds NaN or infinity"),
        ({"prompt_embeds": np.ones((2, 4, 2), np.float16)}, r"must have shape \(3, 4, 2\), got \(2, 4, 2\)"),
        ({"prompt_embeds": np.ones((3, 4, 9), np.float16)}, r"must have shape \(3, 4, 2\), got \(3, 4, 9\)"),
        ({"prompt_embeds": np.ones((3, 4, 2), np.int64)}, "must be float16 or float32, got int64"),
        ({"prompt_embeds": np.ones((3, 4, 2), np.float64)}, "must be float16 or float32, got float64"),
        (
            {"prompt_embeds": np.full((3, 4, 2), 1e30, np.float32)},
            "beyond 65504, the range of half precision",
        ),
        ({"prompt_embeds": None}, "no embedding tensor"),
        ({"extra": np.ones((3, 1), np.float32)}, r"embedding tensors must be \['prompt_embeds'\]"),
        ({"prompt_embeds": np.ones((3, 4, 2000), np.float16)}, "bytes, at most 10000 are accepted"),
    ],
)
def test_a_bad_upload_is_rejected_with_its_reason(changes, reason):
    with pytest.raises(UploadError, match=reason):
        read(upload(**changes))


def test_the_size_limit_counts_all_records():
    content = upload()
    content["stowaway"] = ArrayRecord({"x": Array(np.zeros(20_000))})
    with pytest.raises(UploadError, match="at most 10000 are accepted"):
        read(content)


def test_an_upload_without_embeddings_is_rejected():
    with pytest.raises(UploadError, match="no ArrayRecord 'embeddings'"):
        read(RecordDict())


def test_bytes_that_are_no_array_are_rejected():
    content = upload()
    content[EMBEDDINGS]["labels"] = Array("int64", (3,), "numpy.ndarray", b"garbage")
    with pytest.raises(UploadError, match="'labels' cannot be read"):
        read(content)
    content[EMBEDDINGS]["labels"] = Array("int64", (3,), "pickle", b"garbage")
    with pytest.raises(UploadError, match="has serialization 'pickle'"):
        read(content)


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04 no archive",
        _npy(b"{'descr': '<f4', 'shape': (" + b"(" * 300),
        _npz(),
        _npy(b"{'shape': "),
    ],
)
def test_malicious_bytes_are_rejected(data):
    content = upload()
    content[EMBEDDINGS]["labels"] = Array("int64", (3,), "numpy.ndarray", data)
    with pytest.raises(UploadError, match=r"'labels' (cannot be read|is not an array)"):
        read(content)


def test_a_pickled_array_is_not_loaded():
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    content = upload()
    content[EMBEDDINGS]["labels"] = Array("object", (1,), "numpy.ndarray", buffer.getvalue())
    with pytest.raises(UploadError, match="cannot be read"):
        read(content)


def test_a_header_that_contradicts_the_record_is_rejected():
    content = upload()
    real = content[EMBEDDINGS]["labels"]
    content[EMBEDDINGS]["labels"] = Array("int64", (4,), real.stype, real.data)
    with pytest.raises(UploadError, match="does not match its header"):
        read(content)

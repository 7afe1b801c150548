import io

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from torch import nn

from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.algorithms.weights import load_weights
from fgl_app.messages.embeddings import embeddings_to_record, record_to_embeddings
from fgl_app.messages.keys import EMBEDDINGS
from fgl_app.messages.replies import check_trained
from fgl_app.messages.validation import UploadError
from fgl_app.messages.weights import arrays_to_state, replace_weights, restore_dtypes, state_to_arrays

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
    """Bytes that begin as a NumPy file does, with this header."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def _npz():
    buffer = io.BytesIO()
    np.savez(buffer, labels=np.zeros(3))
    return buffer.getvalue()


def read(content, **options):
    return record_to_embeddings(
        content, **{"num_classes": 2, "max_bytes": 10_000, "shapes": SHAPES} | options
    )


def test_embeddings_come_back_as_they_went():
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
def test_a_bad_upload_is_refused_with_its_reason(changes, reason):
    with pytest.raises(UploadError, match=reason):
        read(upload(**changes))


def test_the_size_limit_counts_everything_sent():
    content = upload()
    content["stowaway"] = ArrayRecord({"x": Array(np.zeros(20_000))})
    with pytest.raises(UploadError, match="at most 10000 are accepted"):
        read(content)


def test_an_upload_without_embeddings_is_refused():
    with pytest.raises(UploadError, match="no ArrayRecord 'embeddings'"):
        read(RecordDict())


def test_bytes_that_are_no_array_are_refused():
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
def test_bytes_made_to_break_the_reader_are_refused(data):
    content = upload()
    content[EMBEDDINGS]["labels"] = Array("int64", (3,), "numpy.ndarray", data)
    with pytest.raises(UploadError, match=r"'labels' (cannot be read|is not an array)"):
        read(content)


def test_a_pickled_array_is_never_loaded():
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    content = upload()
    content[EMBEDDINGS]["labels"] = Array("object", (1,), "numpy.ndarray", buffer.getvalue())
    with pytest.raises(UploadError, match="cannot be read"):
        read(content)


def test_a_header_that_lies_is_refused():
    content = upload()
    real = content[EMBEDDINGS]["labels"]
    content[EMBEDDINGS]["labels"] = Array("int64", (4,), real.stype, real.data)
    with pytest.raises(UploadError, match="does not match its header"):
        read(content)


def test_integer_buffers_stay_out_of_averages_and_with_the_model():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    model(torch.rand(4, 1, 3, 3))
    arrays = state_to_arrays(model.state_dict())
    assert "1.num_batches_tracked" not in arrays
    assert "1.running_mean" in arrays
    other = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    load_weights(other, arrays_to_state(arrays))
    assert torch.equal(other[1].running_mean, model[1].running_mean)
    assert other[1].num_batches_tracked == 0
    del arrays["0.weight"]
    with pytest.raises(ValueError, match=r"lacks 1 tensors of the model, first '0.weight'"):
        load_weights(other, arrays_to_state(arrays))


def test_bfloat16_travels_as_float32():
    arrays = state_to_arrays({"w": torch.tensor([1.5, 2.5], dtype=torch.bfloat16)})
    assert arrays["w"].dtype == "float32"
    assert arrays["w"].numpy().tolist() == [1.5, 2.5]


def test_dtypes_are_restored():
    reference = ArrayRecord({"w": Array(np.ones(2, np.float32))})
    restored = restore_dtypes(ArrayRecord({"w": Array(np.full(2, 0.5, np.float64))}), reference)
    assert restored["w"].dtype == "float32"
    assert restored["w"].numpy().tolist() == [0.5, 0.5]


def test_integers_are_rounded_and_stay_beside_a_corrected_state():
    reference = ArrayRecord({"w": Array(np.ones(2, np.float32)), "n": Array(np.array(5))})
    averaged = ArrayRecord({"w": Array(np.zeros(2, np.float64)), "n": Array(np.array(4.9999999))})
    restored = restore_dtypes(averaged, reference)
    assert restored["n"].numpy() == 5
    assert restored["n"].dtype == "int64"
    corrected = replace_weights(restored, {"w": torch.ones(2), "n": torch.tensor(7)})
    assert corrected["w"].numpy().tolist() == [1, 1]
    assert corrected["n"].numpy() == 5


def test_an_array_in_fortran_order_can_be_saved_like_any_other():
    state = arrays_to_state(ArrayRecord({"w": Array(np.asfortranarray(np.arange(6.0).reshape(2, 3)))}))
    assert state["w"].is_contiguous()
    assert state["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


REFERENCE = ArrayRecord({"w": Array(np.zeros((2, 3), np.float32)), "b": Array(np.zeros(3, np.float32))})


def trained(arrays=None, weight=4, more_metrics=None, **records):
    arrays = arrays or {"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}
    metrics = MetricRecord(({} if weight is None else {"num-examples": weight}) | (more_metrics or {}))
    content = {"arrays": ArrayRecord({n: Array(a) for n, a in arrays.items()}), "metrics": metrics}
    return RecordDict(content | records)


def test_a_good_training_reply_passes():
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
def test_a_bad_training_reply_is_refused_with_its_reason(content, reason):
    with pytest.raises(UploadError, match=reason):
        check_trained(content, {"arrays": REFERENCE})

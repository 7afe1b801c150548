"""Weights in records."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from torch import nn

from fgl_app.algorithms.weights import load_weights
from fgl_app.messages.weights import arrays_to_state, replace_weights, restore_dtypes, state_to_arrays


def test_integer_buffers_are_not_sent_and_stay_with_the_model():
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


def test_bfloat16_is_sent_as_float32():
    arrays = state_to_arrays({"w": torch.tensor([1.5, 2.5], dtype=torch.bfloat16)})
    assert arrays["w"].dtype == "float32"
    assert arrays["w"].numpy().tolist() == [1.5, 2.5]


def test_dtypes_are_restored():
    reference = ArrayRecord({"w": Array(np.ones(2, np.float32))})
    restored = restore_dtypes(ArrayRecord({"w": Array(np.full(2, 0.5, np.float64))}), reference)
    assert restored["w"].dtype == "float32"
    assert restored["w"].numpy().tolist() == [0.5, 0.5]


def test_integers_are_rounded_and_not_replaced_by_a_correction():
    reference = ArrayRecord({"w": Array(np.ones(2, np.float32)), "n": Array(np.array(5))})
    averaged = ArrayRecord({"w": Array(np.zeros(2, np.float64)), "n": Array(np.array(4.9999999))})
    restored = restore_dtypes(averaged, reference)
    assert restored["n"].numpy() == 5
    assert restored["n"].dtype == "int64"
    corrected = replace_weights(restored, {"w": torch.ones(2), "n": torch.tensor(7)})
    assert corrected["w"].numpy().tolist() == [1, 1]
    assert corrected["n"].numpy() == 5


def test_an_array_in_fortran_order_becomes_contiguous():
    state = arrays_to_state(ArrayRecord({"w": Array(np.asfortranarray(np.arange(6.0).reshape(2, 3)))}))
    assert state["w"].is_contiguous()
    assert state["w"].tolist() == [[0, 1, 2], [3, 4, 5]]

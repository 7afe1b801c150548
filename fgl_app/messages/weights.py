"""A model's weights as an ArrayRecord."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from flwr.app import Array, ArrayRecord

from fgl_app.algorithms.types import State


def state_to_arrays(state: State) -> ArrayRecord:
    """Convert a model's state into an ArrayRecord.

    Integer buffers, such as BatchNorm's ``num_batches_tracked``, are left out: averaging would turn
    them into fractions. bfloat16, which NumPy lacks, travels as float32.

    Parameters
    ----------
    state : Mapping[str, Tensor]
        Any device.

    Returns
    -------
    ArrayRecord
        The floating tensors by name.
    """
    floating = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    return ArrayRecord(
        {
            name: Array((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy())
            for name, tensor in floating.items()
        }
    )


def arrays_to_state(arrays: ArrayRecord) -> dict[str, torch.Tensor]:
    """Convert an ArrayRecord into tensors on the CPU, by name, in the received dtype."""
    return {name: torch.from_numpy(np.array(array.numpy(), order="C")) for name, array in arrays.items()}


def replace_weights(arrays: ArrayRecord, state: State) -> ArrayRecord:
    """Return the arrays with the floating tensors of a state; integer arrays stay."""
    return ArrayRecord({**arrays, **state_to_arrays(state)})


def transform_weights(arrays: ArrayRecord, transform: Callable[[State], State], source: str) -> ArrayRecord:
    """Return the arrays with the floating tensors that a function makes of their state.

    Parameters
    ----------
    arrays : ArrayRecord
        Weights, and integer arrays, which stay.
    transform : Callable[[State], State]
        Such as a training.
    source : str
        Names the function in the error message.

    Raises
    ------
    ValueError
        When the result holds NaN or infinity.
    """
    return require_finite(replace_weights(arrays, transform(arrays_to_state(arrays))), source)


def require_weights(arrays: ArrayRecord) -> None:
    """Raise ValueError when arrays hold no floating weights, the only ones that the server can train."""
    if not any(np.issubdtype(np.dtype(array.dtype), np.floating) for array in arrays.values()):
        raise ValueError(
            "the initial arrays hold no floating weights (trees of XGBoost are bytes), so the server has "
            "nothing to train"
        )


def require_finite(arrays: ArrayRecord, source: str) -> ArrayRecord:
    """Return the arrays, or raise when one holds NaN or infinity.

    Raises
    ------
    ValueError
        Names the source of the arrays and the array.
    """
    for name, array in arrays.items():
        if not np.isfinite(array.numpy()).all():
            raise ValueError(f"{source}: array '{name}' holds NaN or infinity; lower the learning rate")
    return arrays


def restore_dtypes(arrays: ArrayRecord, reference: ArrayRecord) -> ArrayRecord:
    """Return the arrays in the dtypes of the reference, integers rounded.

    Averages of integers are fractions, and Flower's adaptive strategies return float64.
    """

    def restored(values: np.ndarray, dtype: str) -> np.ndarray:
        is_integer = np.issubdtype(np.dtype(dtype), np.integer)
        # NumPy makes scalars of arrays without dimensions.
        return np.asarray(np.rint(values) if is_integer else values, dtype=dtype)

    return ArrayRecord(
        {name: Array(restored(array.numpy(), reference[name].dtype)) for name, array in arrays.items()}
    )

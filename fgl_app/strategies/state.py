"""The state of a strategy as plain values, and such values in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import safetensors
import torch
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import Strategy
from safetensors.torch import save

from fgl_app.files import write_atomically

_TREE = "tree"


@runtime_checkable
class Stateful(Protocol):
    """Has a state of plain values that can be saved and loaded, as torch's optimizers have."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state."""


def strategy_state(strategy: Strategy) -> dict[str, Any]:
    """Return the state of a strategy.

    Parameters
    ----------
    strategy : Strategy
        A :class:`Stateful` strategy returns its own state. The state of any other, such as Flower's own, is
        every attribute of plain values or arrays that is not a parameter of the constructor: moments and
        current weights, not settings, which the resumed run provides. Wrapped strategies are included.
    """
    if isinstance(strategy, Stateful):
        return strategy.state_dict()
    constructors = [vars(kind)["__init__"] for kind in type(strategy).__mro__ if "__init__" in vars(kind)]
    settings = {name for constructor in constructors for name in signature(constructor).parameters}
    state: dict[str, Any] = {}
    for name, value in vars(strategy).items():
        if isinstance(value, Strategy):
            state[name] = strategy_state(value)
        elif name not in settings and _is_plain(value):
            state[name] = value
    return state


def load_strategy_state(strategy: Strategy, state: dict[str, Any]) -> None:
    """Load a state of :func:`strategy_state` into a strategy of the same kind."""
    if isinstance(strategy, Stateful):
        strategy.load_state_dict(state)
        return
    for name, value in state.items():
        inner = getattr(strategy, name)
        if isinstance(inner, Strategy):
            load_strategy_state(inner, value)
        else:
            setattr(strategy, name, value)


def write_state(state: Mapping[str, Any], file: Path) -> None:
    """Write plain values in one step: a reader finds the old file or the complete new one.

    Parameters
    ----------
    state : Mapping[str, Any]
        None, numbers, strings, bytes, NumPy arrays, tensors and ArrayRecords, in dicts, lists and tuples.
    file : Path
        A safetensors file; its metadata hold everything but the arrays.

    Raises
    ------
    TypeError
        On a value of another type.
    """
    arrays: dict[str, torch.Tensor] = {}
    tree = _encode(dict(state), arrays)
    write_atomically(file, save(arrays, {_TREE: json.dumps(tree)}))


def read_state(file: Path) -> dict[str, Any]:
    """Return the values that :func:`write_state` wrote, arrays on the CPU.

    Raises
    ------
    ValueError
        When the file is damaged or was not written by :func:`write_state`.
    """
    try:
        with safetensors.safe_open(file, "pt") as content:
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            state: dict[str, Any] = _decode(json.loads(content.metadata()[_TREE]), arrays)
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"the state in {file} cannot be read: {error}") from error
    return state


def _is_plain(value: object) -> bool:
    if isinstance(value, ArrayRecord):
        return True
    if isinstance(value, Mapping):
        return all(_is_plain(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    return value is None or isinstance(value, bool | int | float | str | bytes | np.generic | torch.Tensor)


def _encode(value: object, arrays: dict[str, torch.Tensor]) -> object:
    """Return a value as JSON; a type that JSON lacks becomes a dict whose one key names the type."""

    def keep(kind: str, tensor: torch.Tensor) -> dict[str, str]:
        name = str(len(arrays))
        # A copy: safetensors refuses tensors that share memory.
        arrays[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {kind: name}

    coded: object
    match value:
        case None | bool() | int() | float() | str():
            coded = value
        case torch.Tensor():
            coded = keep("tensor", value)
        case np.ndarray():
            coded = keep("array", torch.from_numpy(value.copy()))
        case np.generic():
            coded = value.item()
        case bytes():
            coded = keep("bytes", torch.tensor(list(value), dtype=torch.uint8))
        case ArrayRecord():
            coded = {"record": _encode({name: array.numpy() for name, array in value.items()}, arrays)}
        case Mapping():
            coded = {"dict": [[_encode(part, arrays) for part in pair] for pair in value.items()]}
        case tuple():
            coded = {"tuple": [_encode(part, arrays) for part in value]}
        case list():
            coded = [_encode(part, arrays) for part in value]
        case _:
            raise TypeError(f"a state holds plain values and arrays, got {type(value).__name__}")
    return coded


def _decode(coded: Any, arrays: Mapping[str, torch.Tensor]) -> Any:  # noqa: ANN401 - whatever was encoded
    value: Any
    match coded:
        case {"tensor": str(name)}:
            value = arrays[name]
        case {"array": str(name)}:
            value = arrays[name].numpy()
        case {"bytes": str(name)}:
            value = arrays[name].numpy().tobytes()
        case {"record": content}:
            named = _decode(content, arrays)
            value = ArrayRecord({name: Array(array) for name, array in named.items()})
        case {"dict": pairs}:
            value = {_decode(key, arrays): _decode(part, arrays) for key, part in pairs}
        case {"tuple": parts}:
            value = tuple(_decode(part, arrays) for part in parts)
        case list():
            value = [_decode(part, arrays) for part in coded]
        case _:
            value = coded
    return value

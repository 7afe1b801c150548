"""Loading weights that were exchanged."""

from __future__ import annotations

from torch import nn

from fgl_app.algorithms.types import State


def load_weights(model: nn.Module, state: State) -> None:
    """Load floating tensors into a model, which keeps its own integer buffers.

    Raises
    ------
    ValueError
        When a floating tensor of the model is missing or has another shape.
    """
    own = model.state_dict()
    missing = [name for name, tensor in own.items() if tensor.is_floating_point() and name not in state]
    if missing:
        raise ValueError(f"the state lacks {len(missing)} tensors of the model, first '{missing[0]}'")
    model.load_state_dict(own | dict(state))

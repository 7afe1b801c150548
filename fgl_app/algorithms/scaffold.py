"""Client side of SCAFFOLD (Karimireddy et al. 2020, arXiv 1910.06378)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgl_app.algorithms.types import State


class GradientControl:
    """Correct gradients by control variates, and compute the client's next variate.

    Each step uses ``g + c - c_i`` (equation 3): ``server`` is c by parameter name, ``own`` is c_i after the
    client's last round, None for zero. The new variate is the mean of the uncorrected gradients g. For plain
    SGD (no momentum, weight decay or proximal term) this equals the paper's option II,
    ``c_i - c + (x - y_i) / (K * eta)``; unlike that formula it also holds for AdamW.
    """

    def __init__(self, server: State, own: State | None) -> None:
        self._own = own or {name: torch.zeros_like(tensor) for name, tensor in server.items()}
        # The difference first: with c equal to c_i the gradient does not change by a single bit.
        self._correction = {name: tensor - self._own[name] for name, tensor in server.items()}
        self._sum = {name: torch.zeros_like(tensor) for name, tensor in server.items()}
        self._steps = 0

    def on_gradients(self, model: nn.Module) -> None:
        """Add the gradients of the model to the sum, then correct them."""
        self._steps += 1
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                self._sum[name] += parameter.grad.cpu()
                parameter.grad += self._correction[name].to(parameter.device)

    def finish(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the client's new variate and its change; without a step, the old variate and zero."""
        if not self._steps:
            return dict(self._own), {name: torch.zeros_like(tensor) for name, tensor in self._own.items()}
        new = {name: tensor / self._steps for name, tensor in self._sum.items()}
        return new, {name: tensor - self._own[name] for name, tensor in new.items()}

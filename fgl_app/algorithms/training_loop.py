"""One gradient descent for every model here: classifiers, diffusion models, FedProx and SCAFFOLD clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn


def training_loop(
    model: nn.Module,
    losses: Iterable[tuple[Tensor, int]],
    optimizer: torch.optim.Optimizer,
    *,
    backward: Callable[[Tensor], None] = torch.Tensor.backward,
    proximal: tuple[float, Sequence[Tensor]] | None = None,
    on_gradients: Callable[[nn.Module], None] | None = None,
    after_step: Callable[[int], None] | None = None,
) -> float:
    """Take a step for each loss.

    Parameters
    ----------
    model : nn.Module
        Trained in place.
    losses : Iterable[tuple[Tensor, int]]
        Mean loss of a batch under the model as it is when asked for, and the number of examples.
    optimizer : torch.optim.Optimizer
        Of the model's parameters.
    backward : Callable[[Tensor], None], default Tensor.backward
        Puts a loss's gradients into the parameters.
    proximal : tuple[float, Sequence[Tensor]] or None, default None
        FedProx's mu and w0 (Li et al. 2020, equation 2): adds ``mu / 2 * |w - w0|^2``.
    on_gradients : Callable[[nn.Module], None] or None, default None
        May read and change the gradients before each step.
    after_step : Callable[[int], None] or None, default None
        Called after each step with the number of examples.

    Returns
    -------
    float
        Mean loss over the examples, without the proximal term; 0.0 when there was none.
    """
    mu, start = proximal or (0.0, ())
    loss_sum, examples = 0.0, 0
    for batch_loss, count in losses:
        loss_sum += batch_loss.item() * count
        examples += count
        loss = batch_loss
        if mu:
            pairs = zip(model.parameters(), start, strict=True)
            loss = loss + mu / 2 * sum((w - w0).square().sum() for w, w0 in pairs)
        optimizer.zero_grad()
        backward(loss)
        if on_gradients:
            on_gradients(model)
        optimizer.step()
        if after_step:
            after_step(count)
    return loss_sum / examples if examples else 0.0


def snapshot(model: nn.Module) -> list[Tensor]:
    """Return copies of the model's parameters as they are now."""
    return [parameter.detach().clone() for parameter in model.parameters()]

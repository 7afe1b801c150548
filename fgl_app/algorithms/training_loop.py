"""Training loop shared by classifiers and diffusion models, with the hooks of FedProx and SCAFFOLD."""

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
    """Take one optimizer step per loss.

    Parameters
    ----------
    model : nn.Module
        Trained in place.
    losses : Iterable[tuple[Tensor, int]]
        Mean loss of a batch, computed lazily with the current weights, and its number of examples.
    optimizer : torch.optim.Optimizer
        Optimizer of the model's parameters.
    backward : Callable[[Tensor], None], default Tensor.backward
        Computes the gradients of a loss.
    proximal : tuple[float, Sequence[Tensor]] or None, default None
        FedProx's mu and w0 (Li et al. 2020, equation 2): adds ``mu / 2 * |w - w0|^2``.
    on_gradients : Callable[[nn.Module], None] or None, default None
        May read and change the gradients before each optimizer step.
    after_step : Callable[[int], None] or None, default None
        Called with the number of examples after each optimizer step.

    Returns
    -------
    float
        Mean loss over the examples, without the proximal term; 0.0 without examples.
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


def shuffled_batches(examples: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return the indices of each batch of one epoch, in random order."""
    batches: tuple[Tensor, ...] = torch.randperm(examples, generator=generator).split(batch_size)
    return batches


def copy_parameters(model: nn.Module) -> list[Tensor]:
    """Return detached copies of the model's parameters."""
    return [parameter.detach().clone() for parameter in model.parameters()]

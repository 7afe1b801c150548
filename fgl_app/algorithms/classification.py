"""Training and evaluation of image classifiers, for clients, server and baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgl_app.algorithms.training_loop import copy_parameters, shuffled_batches, training_loop
from fgl_app.algorithms.types import LabeledImages


@dataclass(frozen=True)
class TrainSettings:
    """Hyper-parameters of stochastic gradient descent.

    Parameters
    ----------
    epochs : int
        Passes over the data; 0 leaves the model unchanged.
    batch_size : int
        Images per batch.
    learning_rate : float
        Learning rate; its peak when ``schedule`` is "one-cycle".
    momentum : float
        Heavy-ball momentum.
    weight_decay : float
        L2 penalty.
    augmentation : {"none", "affine"}
        Random transform of the training images.
    schedule : {"constant", "one-cycle"}, default "constant"
        Learning rate schedule.
    proximal_mu : float, default 0.0
        FedProx's mu (Li et al. 2020, equation 2): adds ``mu / 2 * |w - w0|^2``.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    augmentation: Literal["none", "affine"]
    schedule: Literal["constant", "one-cycle"] = "constant"
    proximal_mu: float = 0.0


def to_input(images: Tensor) -> Tensor:
    """Return uint8 images as model input: float32 in [-1, 1], same shape."""
    return images.float() / 127.5 - 1


def random_affine(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate, shear, scale and shift each image at random: float32, shape (N, C, H, W).

    At most 15 degrees, 0.2 of shear, 15 % of scale on each axis and 8 % of shift; bilinear, border padding.
    The generator is on the CPU.
    """

    def uniform(limit: float) -> Tensor:
        return (torch.rand(len(images), generator=generator) * 2 - 1) * limit

    angle, shear = uniform(torch.pi / 12), uniform(0.2)
    scale_x, scale_y = 1 + uniform(0.15), 1 + uniform(0.15)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([scale_x * cos, scale_x * (shear * cos - sin), uniform(0.16)], dim=1),
            torch.stack([scale_y * sin, scale_y * (shear * sin + cos), uniform(0.16)], dim=1),
        ],
        dim=1,
    ).to(images.device)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def train(
    model: nn.Module,
    data: LabeledImages,
    settings: TrainSettings,
    generator: torch.Generator,
    *,
    callback: Callable[[int], None] | None = None,
    on_gradients: Callable[[nn.Module], None] | None = None,
) -> float:
    """Train a classifier in place by cross-entropy and return the mean loss of the last epoch.

    The model maps (N, C, H, W) in [-1, 1] to logits (N, classes). An empty dataset leaves it unchanged; the
    loss without training is 0.0. The generator, on the CPU, is the source of order and augmentation.
    ``callback`` is called with the number of images after each batch; ``on_gradients`` may read and change
    the gradients before each optimizer step.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    steps = settings.epochs * -(-len(data) // settings.batch_size)
    scheduler = None
    if settings.schedule == "one-cycle" and steps:
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.learning_rate, total_steps=steps, cycle_momentum=False
        )
    proximal = (settings.proximal_mu, copy_parameters(model))

    def losses() -> Iterator[tuple[Tensor, int]]:
        for images, labels in _batches(data, settings, generator, device):
            loss = functional.cross_entropy(model(images), labels)
            yield loss, len(labels)

    def after_step(count: int) -> None:
        if scheduler:
            scheduler.step()
        if callback:
            callback(count)

    model.train()
    loss = 0.0
    for _ in range(settings.epochs):
        loss = training_loop(
            model, losses(), optimizer, proximal=proximal, on_gradients=on_gradients, after_step=after_step
        )
    return loss


def _batches(
    data: LabeledImages, settings: TrainSettings, generator: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    batches = list(shuffled_batches(len(data), settings.batch_size, generator))
    if len(batches) > 1 and len(batches[-1]) == 1:
        # Batch normalization fails on a single example: it joins the previous batch.
        batches[-2:] = [torch.cat(batches[-2:])]
    for indices in batches:
        # uint8 is a quarter of the bytes to transfer to the device.
        images = to_input(data.images[indices].to(device))
        if settings.augmentation == "affine":
            images = random_affine(images, generator)
        yield images, data.labels[indices].to(device)


@torch.inference_mode()
def evaluate(model: nn.Module, data: LabeledImages, *, batch_size: int = 500) -> tuple[float, float]:
    """Return a classifier's accuracy in [0, 1] and mean cross-entropy in nats; ``data`` must not be empty."""
    device = next(model.parameters()).device
    model.eval()
    correct, loss = 0, 0.0
    for indices in torch.arange(len(data)).split(batch_size):
        logits = model(to_input(data.images[indices].to(device)))
        labels = data.labels[indices].to(device)
        correct += int((logits.argmax(1) == labels).sum())
        loss += functional.cross_entropy(logits, labels, reduction="sum").item()
    return correct / len(data), loss / len(data)

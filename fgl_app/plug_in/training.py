"""Server side of FGL: training of a classifier on the synthetic set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fgl_app.algorithms.classification import TrainSettings
from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.algorithms.types import LabeledImages, State
from fgl_app.algorithms.weights import load_weights
from fgl_app.models.devices import check_device, resolve_device
from fgl_app.plug_in.checks import check_at_least, check_choice, check_fraction, check_integer, check_positive
from fgl_app.server.training import train_with_progress


class _Normalized(nn.Module):
    """A model with a mean and standard deviation of its own, for images in [-1, 1]."""

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.factor: Tensor
        self.shift: Tensor
        means, stds = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
        self.register_buffer("factor", 0.5 / stds)
        self.register_buffer("shift", (0.5 - means) / stds)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images * self.factor + self.shift)
        return logits


class SyntheticTraining:
    """Train a classifier on a synthetic set; result of ``train_on_synthetic``.

    Calls are counted: each has a different order and augmentation. ``CheckpointedStrategy`` saves the count
    if this is one of its ``parts``.

    Parameters
    ----------
    model_fn : Callable[[], nn.Module]
        Builds the model; the received state is loaded into it.
    settings : TrainSettings
        Hyper-parameters.
    mean, std : Sequence[float]
        Normalization of pixels in [0, 1], per channel.
    seed : int
        Seed of order and augmentation.
    device : str
        Torch device.
    """

    def __init__(
        self,
        model_fn: Callable[[], nn.Module],
        settings: TrainSettings,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        seed: int,
        device: str,
    ) -> None:
        self._model_fn, self._settings, self._mean, self._std = model_fn, settings, mean, std
        self._seed, self._device = seed, resolve_device(device)
        self._done = 0

    def __call__(self, state: State, data: LabeledImages) -> State:
        """Return the state after training on ``data``; usable as ``train_fn`` and ``correct_fn``."""
        model = self._model_fn()
        load_weights(model, state)
        generator = seeded_generator("server", self._seed, self._done)
        normalized = _Normalized(model, self._mean, self._std).to(self._device)
        train_with_progress(normalized, data, self._settings, generator, "training on synthetic images")
        self._done += 1
        return model.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Return the number of calls."""
        return {"done": self._done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the number of calls."""
        self._done = state_dict["done"]


def train_on_synthetic(
    model_fn: Callable[[], nn.Module],
    *,
    epochs: int,
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 2e-4,
    batch_size: int = 128,
    schedule: Literal["constant", "one-cycle"] = "constant",
    augmentation: Literal["none", "affine"] = "affine",
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.5,
    seed: int = 0,
    device: str = "auto",
) -> SyntheticTraining:
    """Return a ``train_fn`` or ``correct_fn`` that trains your classifier by SGD on cross-entropy.

    Parameters
    ----------
    model_fn : Callable[[], nn.Module]
        Builds your model: (N, C, H, W) to logits (N, classes). Its floating-point state is exchanged.
    epochs : int
        Passes over the synthetic set (paper: 120 to train, 5 to correct); 0 leaves the model unchanged.
    learning_rate : float, default 0.01
        Learning rate (the paper's value); its peak when ``schedule`` is "one-cycle".
    momentum : float, default 0.9
        Heavy-ball momentum (the paper's value).
    weight_decay : float, default 2e-4
        L2 penalty (the paper's value).
    batch_size : int, default 128
        Images per batch (the paper's value).
    schedule : {"constant", "one-cycle"}, default "constant"
        Learning rate schedule.
    augmentation : {"none", "affine"}, default "affine"
        Random transform of the images: "affine" rotates, shears, scales and shifts them slightly.
    mean, std : float or Sequence[float], default 0.5
        Normalization of pixels in [0, 1] that your model expects, as in ``Normalize`` of torchvision: one
        number, or one per channel. The default gives pixels in [-1, 1].
    seed : int, default 0
        Seed of order and augmentation; use different seeds for ``train_fn`` and ``correct_fn``.
    device : str, default "auto"
        Torch device; "auto" is a GPU if there is one.

    Returns
    -------
    SyntheticTraining
        ``(state dict, LabeledImages) -> state dict``.

    Raises
    ------
    ValueError
        If an argument is invalid.
    """
    check_integer(0, epochs=epochs, seed=seed)
    check_integer(1, batch_size=batch_size)
    check_fraction(momentum=momentum)
    check_at_least(0, weight_decay=weight_decay)
    check_positive(learning_rate=learning_rate)
    check_choice(("constant", "one-cycle"), schedule=schedule)
    check_choice(("none", "affine"), augmentation=augmentation)
    means, stds = ((each,) if isinstance(each, int | float) else tuple(each) for each in (mean, std))
    for deviation in stds:
        check_positive(std=deviation)
    check_device(device)
    settings = TrainSettings(
        epochs, batch_size, learning_rate, momentum, weight_decay, augmentation, schedule=schedule
    )
    return SyntheticTraining(model_fn, settings, means, stds, seed=seed, device=device)

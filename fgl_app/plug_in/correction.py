"""The server's part of FedDDPM, second half: correction of aggregates on the auxiliary set."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch

from fgl_app.algorithms.diffusion import DiffusionSettings, new_optimizer, train_diffusion
from fgl_app.algorithms.randomness import seeded
from fgl_app.algorithms.types import LabeledLatents, State
from fgl_app.models.devices import check_device, resolve_device
from fgl_app.plug_in.checks import checked_process, fraction, positive, require_app_extra, require_unet, whole
from fgl_app.progress import track
from fgl_app.records import load_state

if TYPE_CHECKING:
    from diffusers import UNet2DModel


class Corrector:
    """The server's training on the auxiliary set; its optimizer's moments last over corrections.

    Parameters
    ----------
    unet_fn : Callable[[], UNet2DModel]
        Makes the model, on its device; the state that comes gives it its weights.
    settings : Callable[[int], DiffusionSettings]
        Those of a correction by its number, from 1.
    seed : int
        Seed of order, times and noise.
    """

    def __init__(
        self, unet_fn: Callable[[], UNet2DModel], settings: Callable[[int], DiffusionSettings], seed: int
    ) -> None:
        self._unet_fn, self._settings, self._seed = unet_fn, settings, seed
        self._done = 0

    @cached_property
    def _model(self) -> UNet2DModel:
        return self._unet_fn()

    @cached_property
    def _optimizer(self) -> torch.optim.Optimizer:
        return new_optimizer(self._model)

    def __call__(self, state: State, auxiliary: LabeledLatents) -> State:
        """Return the state after training on ``auxiliary``; fits ``correct_fn``."""
        number = self._done + 1
        load_state(self._model, state)
        settings = self._settings(number)
        with track(settings.epochs * len(auxiliary), f"correction {number}", "images") as progress:
            train_diffusion(
                self._model,
                auxiliary,
                settings,
                seeded("server", self._seed, self._done),
                optimizer=self._optimizer,
                callback=progress.update,
            )
        self._done = number
        corrected: State = self._model.state_dict()
        return corrected

    def state_dict(self) -> dict[str, Any]:
        """Return the number of corrections and the optimizer's state."""
        return {"done": self._done, "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state back."""
        self._done = state_dict["done"]
        self._optimizer.load_state_dict(state_dict["optimizer"])


def correct_with(
    unet_fn: Callable[[], UNet2DModel],
    *,
    epochs: int = 3,
    learning_rate: float = 0.002,
    batch_size: int = 32,
    ema_decay: float = 0.995,
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon",
    noise_schedule: Literal["linear", "cosine"] = "linear",
    seed: int = 0,
    device: str = "auto",
) -> Corrector:
    """Return a ``correct_fn`` that optimizes the aggregate on the auxiliary set with AdamW.

    Parameters
    ----------
    unet_fn : Callable[[], UNet2DModel]
        Makes your U-Net of diffusers.
    epochs : int, default 3
        Passes over the auxiliary set a correction; 0 leaves the aggregate as it is.
    learning_rate : float, default 0.002
        Step size.
    batch_size : int, default 32
        Samples in a batch.
    ema_decay : float, default 0.995
        Decay of the moving average of the weights, which is what comes back; 0 is none.
    prediction_type : {"epsilon", "v_prediction"}, default "epsilon"
        What your U-Net learns to predict.
    noise_schedule : {"linear", "cosine"}, default "linear"
        Betas over 1000 time steps; the defaults are those of ``DDPMScheduler()``.
    seed : int, default 0
        Seed of order, times and noise.
    device : str, default "auto"
        Torch device; "auto" is a GPU if there is one.

    Returns
    -------
    Corrector
        ``(state dict, LabeledLatents) -> state dict``; a ``part`` for ``CheckpointedStrategy``.

    Raises
    ------
    ValueError
        When an argument breaks its rule.
    ImportError
        When fgl-app is installed without its extra "app".
    """
    require_app_extra("correct_with")
    whole(0, epochs=epochs, seed=seed)
    whole(1, batch_size=batch_size)
    fraction(ema_decay=ema_decay)
    positive(learning_rate=learning_rate)
    process = checked_process(prediction_type, noise_schedule)
    check_device(device)

    def placed() -> UNet2DModel:
        unet = unet_fn().to(resolve_device(device))
        require_unet(unet)
        return unet

    settings = DiffusionSettings(epochs, batch_size, learning_rate, ema_decay, process)
    return Corrector(placed, lambda _: settings, seed)

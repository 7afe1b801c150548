"""FedDDPM's correction of an aggregate on the auxiliary set."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from fgl_app.algorithms.diffusion import DiffusionSettings, new_optimizer, train_diffusion
from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.algorithms.types import LabeledLatents, State
from fgl_app.algorithms.weights import load_weights
from fgl_app.progress import track

if TYPE_CHECKING:
    from diffusers import UNet2DModel


class Corrector:
    """Train on the auxiliary set; the optimizer's moments are kept between corrections.

    Parameters
    ----------
    unet_fn : Callable[[], UNet2DModel]
        Makes the model, on its device; its weights are loaded from the aggregate.
    settings : Callable[[int], DiffusionSettings]
        Settings of a correction by its number, from 1.
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
        load_weights(self._model, state)
        settings = self._settings(number)
        with track(settings.epochs * len(auxiliary), f"correction {number}", "images") as progress:
            train_diffusion(
                self._model,
                auxiliary,
                settings,
                seeded_generator("server", self._seed, self._done),
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
        """Load a state of :meth:`state_dict`."""
        self._done = state_dict["done"]
        self._optimizer.load_state_dict(state_dict["optimizer"])

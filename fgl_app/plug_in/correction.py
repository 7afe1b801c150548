"""The server's part of FedDDPM, second half: correction of aggregates on the auxiliary set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from fgl_app.algorithms.diffusion import DiffusionSettings
from fgl_app.models.devices import check_device, resolve_device
from fgl_app.plug_in.checks import (
    check_fraction,
    check_integer,
    check_positive,
    checked_process,
    require_app_extra,
    require_unet,
)
from fgl_app.server.correction import Corrector

if TYPE_CHECKING:
    from diffusers import UNet2DModel


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
    check_integer(0, epochs=epochs, seed=seed)
    check_integer(1, batch_size=batch_size)
    check_fraction(ema_decay=ema_decay)
    check_positive(learning_rate=learning_rate)
    process = checked_process(prediction_type, noise_schedule)
    check_device(device)

    def placed() -> UNet2DModel:
        unet = unet_fn().to(resolve_device(device))
        require_unet(unet)
        return unet

    settings = DiffusionSettings(epochs, batch_size, learning_rate, ema_decay, process)
    return Corrector(placed, lambda _: settings, seed)

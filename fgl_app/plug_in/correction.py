"""Server side of FedDDPM: correction of aggregates on the auxiliary set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from fgl_app.models.devices import check_device, resolve_device
from fgl_app.plug_in.checks import check_integer, checked_settings, checked_unet, require_app_extra
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
    """Return a ``correct_fn`` that trains the aggregate on the auxiliary set with AdamW.

    Parameters
    ----------
    unet_fn : Callable[[], UNet2DModel]
        Builds your U-Net of diffusers.
    epochs : int, default 3
        Passes over the auxiliary set per correction; 0 leaves the aggregate unchanged.
    learning_rate : float, default 0.002
        Learning rate.
    batch_size : int, default 32
        Samples per batch.
    ema_decay : float, default 0.995
        Decay of the moving average of the weights, which is the result; 0 disables averaging.
    prediction_type : {"epsilon", "v_prediction"}, default "epsilon"
        Target that your U-Net predicts.
    noise_schedule : {"linear", "cosine"}, default "linear"
        Betas over 1000 time steps; the defaults match ``DDPMScheduler()``.
    seed : int, default 0
        Seed of order, time steps and noise.
    device : str, default "auto"
        Torch device; "auto" is a GPU if there is one.

    Returns
    -------
    Corrector
        ``(state dict, LabeledLatents) -> state dict``; usable in ``parts`` of ``CheckpointedStrategy``.

    Raises
    ------
    ValueError
        If an argument is invalid.
    ImportError
        If fgl-app is installed without its extra "app".
    """
    require_app_extra("correct_with")
    check_integer(0, seed=seed)
    settings = checked_settings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        prediction_type=prediction_type,
        noise_schedule=noise_schedule,
    )
    check_device(device)
    return Corrector(lambda: checked_unet(unet_fn).to(resolve_device(device)), lambda number: settings, seed)

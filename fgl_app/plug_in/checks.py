"""Validation of the arguments of factories and handlers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from fgl_app.algorithms.diffusion import BETAS, DiffusionProcess, DiffusionSettings

if TYPE_CHECKING:
    from diffusers import UNet2DModel

PREDICTION_TYPES = ("epsilon", "v_prediction")


def check_at_least(low: float, **values: float) -> None:
    """Raise ValueError if a value is not a number of at least ``low``."""
    _check(values, f"a number of at least {low}", lambda value: value >= low)


def check_integer(low: int, **values: int) -> None:
    """Raise ValueError if a value is not an integer of at least ``low``."""
    _check(values, f"an integer of at least {low}", lambda value: isinstance(value, int) and value >= low)


def check_fraction(**values: float) -> None:
    """Raise ValueError if a value is not a number in [0, 1)."""
    _check(values, "a number from 0 to below 1", lambda value: 0 <= value < 1)


def check_positive(**values: float) -> None:
    """Raise ValueError if a value is not a number above 0."""
    _check(values, "a number above 0", lambda value: value > 0)


def check_choice(choices: Collection[object], **values: object) -> None:
    """Raise ValueError if a value is not one of the choices."""
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def require_app_extra(name: str) -> None:
    """Raise ImportError if the libraries of the extra "app" are not installed."""
    if find_spec("diffusers") is None:
        raise ImportError(f"{name} needs generative models: pip install 'fgl-app[app]'")


def checked_unet(unet_fn: Callable[[], UNet2DModel]) -> UNet2DModel:
    """Return the result of ``unet_fn``; raise TypeError if it is not like a U-Net of diffusers."""
    model = unet_fn()
    config = getattr(model, "config", None)
    if not all(hasattr(config, name) for name in ("in_channels", "sample_size", "num_class_embeds")):
        raise TypeError(f"unet_fn must return a UNet2DModel of diffusers, got {type(model).__name__}")
    return model


def checked_process(prediction_type: str, noise_schedule: str) -> DiffusionProcess:
    """Return a diffusion process; raise ValueError if one of its names is unknown."""
    check_choice(PREDICTION_TYPES, prediction_type=prediction_type)
    check_choice(tuple(BETAS), noise_schedule=noise_schedule)
    return DiffusionProcess(prediction_type, noise_schedule)  # type: ignore[arg-type]


def checked_settings(
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    ema_decay: float,
    prediction_type: str,
    noise_schedule: str,
    min_steps: int = 0,
    schedule: Literal["constant", "cosine"] = "constant",
) -> DiffusionSettings:
    """Return the settings of a diffusion training; raise ValueError if a value is invalid."""
    check_integer(0, epochs=epochs, min_steps=min_steps)
    check_integer(1, batch_size=batch_size)
    check_fraction(ema_decay=ema_decay)
    check_positive(learning_rate=learning_rate)
    process = checked_process(prediction_type, noise_schedule)
    return DiffusionSettings(
        epochs, batch_size, learning_rate, ema_decay, process, min_steps=min_steps, schedule=schedule
    )


def _check(values: Mapping[str, float], rule: str, is_valid: Callable[[float], bool]) -> None:
    for name, value in values.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not is_valid(value):
            raise ValueError(f"{name} must be {rule}, got {value!r}")

"""Rules of the factories' arguments, each met with one sentence."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec

from torch import nn

from fgl_app.algorithms.diffusion import BETAS, DiffusionProcess

PREDICTIONS = ("epsilon", "v_prediction")


def check_at_least(low: float, **values: float) -> None:
    """Raise ValueError when a value is below ``low``, or no number."""
    for name, value in values.items():
        if not _is_number(value) or not value >= low:
            raise ValueError(f"{name} must be a number of at least {low}, got {value!r}")


def check_integer(low: int, **values: int) -> None:
    """Raise ValueError when a value is below ``low``, or no whole number."""
    for name, value in values.items():
        if not _is_number(value) or not isinstance(value, int) or not value >= low:
            raise ValueError(f"{name} must be a whole number of at least {low}, got {value!r}")


def check_fraction(**values: float) -> None:
    """Raise ValueError when a value is no number from 0 to below 1."""
    for name, value in values.items():
        if not _is_number(value) or not 0 <= value < 1:
            raise ValueError(f"{name} must be a number from 0 to below 1, got {value!r}")


def check_positive(**values: float) -> None:
    """Raise ValueError when a value is not above 0, or no number."""
    for name, value in values.items():
        if not _is_number(value) or not value > 0:
            raise ValueError(f"{name} must be a number above 0, got {value!r}")


def check_choice(choices: Collection[object], **values: object) -> None:
    """Raise ValueError when a value is none of the choices."""
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def require_app_extra(name: str) -> None:
    """Raise ImportError when the libraries that a part needs are not installed."""
    if find_spec("diffusers") is None:
        raise ImportError(f"{name} needs generative models: pip install 'fgl-app[app]'")


def require_unet(model: nn.Module) -> None:
    """Raise TypeError when a model is not called and described as diffusers' U-Nets are."""
    config = getattr(model, "config", None)
    if not all(hasattr(config, name) for name in ("in_channels", "sample_size", "num_class_embeds")):
        raise TypeError(f"unet_fn must return a UNet2DModel of diffusers, got {type(model).__name__}")


def checked_process(prediction_type: str, noise_schedule: str) -> DiffusionProcess:
    """Return what is diffused how; raise ValueError when a name is none."""
    check_choice(PREDICTIONS, prediction_type=prediction_type)
    check_choice(tuple(BETAS), noise_schedule=noise_schedule)
    return DiffusionProcess(prediction_type, noise_schedule)  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""Torch devices and mixed precision of config values."""

from __future__ import annotations

from typing import Literal, cast

import torch


def resolve_device(name: str | torch.device) -> torch.device:
    """Return the torch device of a config value; "auto" is CUDA, else MPS, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def check_device(name: str) -> None:
    """Raise ValueError if this machine lacks the device of a config value."""
    missing = (name.startswith("cuda") and not torch.cuda.is_available()) or (
        name == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ValueError(f"device '{name}' is not available on this machine; use 'auto' or 'cpu'")


def resolve_precision(name: str, device: torch.device) -> Literal["no", "fp16", "bf16"]:
    """Return the mixed precision of a config value on a device.

    "auto" is bfloat16 on CUDA if the GPU supports it, else "no".

    Raises
    ------
    ValueError
        If the value requires CUDA and the device is another.
    """
    if name == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "no"
    if name != "no" and device.type != "cuda":
        raise ValueError(f"mixed-precision '{name}' needs a CUDA device, got {device.type}; use 'auto'")
    return cast(Literal["no", "fp16", "bf16"], name)

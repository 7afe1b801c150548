"""What a client keeps on its own disk between rounds, so that a restart loses nothing."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from fgl_app.config import RunConfig


def load_control(config: RunConfig, run_id: int, partition_id: int) -> dict[str, Tensor] | None:
    """Return SCAFFOLD's variate c_i of the last round; None in the first."""
    file = _folder(config, run_id, partition_id) / "control.safetensors"
    return load_file(file) if file.is_file() else None


def save_control(config: RunConfig, run_id: int, partition_id: int, control: dict[str, Tensor]) -> None:
    """Keep SCAFFOLD's variate c_i for the next round."""
    folder = _folder(config, run_id, partition_id)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".control.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in control.items()}, partial)
    partial.replace(folder / "control.safetensors")


def _folder(config: RunConfig, run_id: int, partition_id: int) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    root = Path(config.client_state_dir).expanduser() if config.client_state_dir else cache / "fgl"
    return root / f"run-{run_id}" / f"client-{partition_id:05d}"

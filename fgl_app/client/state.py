"""The state of a client on its disk, which survives a restart.

The server identifies a run by a token, which a resumed run keeps. Folders of old runs can be deleted at any
time.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from fgl_app.config import RunConfig
from fgl_app.files import write_atomically


def run_folder(state: Path, token: str) -> Path:
    """Return the folder for a client's state of one run.

    Raises
    ------
    ValueError
        When the server's token is not hexadecimal and could point to another folder.
    """
    if not re.fullmatch(r"[0-9a-f]+", token):
        raise ValueError(f"a run's token must be hexadecimal digits, got {token!r}")
    return state / f"run-{token}"


def load_control(folder: Path, accepted: int) -> dict[str, Tensor] | None:
    """Return SCAFFOLD's control variate c_i, and delete the variates of other rounds.

    ``accepted`` is the last round whose change of c_i the server has accepted. Without one (0), c_i is zero
    and the result is None.

    Raises
    ------
    FileNotFoundError
        When the variate of this round is missing: a restart from zero would bias the server's variate
        permanently.
    """
    current = _control_file(folder, accepted)
    for file in folder.glob("control-*.safetensors"):
        if file != current:
            file.unlink()
    if not accepted:
        return None
    if not current.is_file():
        raise FileNotFoundError(
            f"this client's SCAFFOLD state of round {accepted} is not in {folder}; "
            "keep that folder over restarts"
        )
    return load_file(current)


def save_control(folder: Path, server_round: int, control: dict[str, Tensor]) -> None:
    """Save SCAFFOLD's variate c_i of a round; the previous one stays, as the server may reject this one."""
    _save(_control_file(folder, server_round), control, {})


def load_local_model(folder: Path) -> tuple[dict[str, Tensor], float] | None:
    """Return the diffusion model and loss of this client's set-up training, or None before the training."""
    file = folder / _LOCAL_MODEL
    if not file.is_file():
        return None
    with safe_open(file, "pt") as content:
        return load_file(file), float(content.metadata()["loss"])


def save_local_model(folder: Path, model: dict[str, Tensor], loss: float) -> None:
    """Save a diffusion model, so that a repeated set-up request needs no training."""
    _save(folder / _LOCAL_MODEL, model, {"loss": repr(loss)})


def load_captions(state: Path, config: RunConfig) -> dict[str, str]:
    """Return this client's captions of the config's captioner so far, by a digest of the image."""
    file = _captions_file(state, config)
    if not file.is_file():
        return {}
    captions: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return captions


def save_captions(state: Path, config: RunConfig, captions: dict[str, str]) -> None:
    """Save captions, so that a restarted client reuses them."""
    file = _captions_file(state, config)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(captions))


_LOCAL_MODEL = "local-diffusion.safetensors"


def _captions_file(state: Path, config: RunConfig) -> Path:
    digest = hashlib.sha256(f"{config.captioner}\n{config.caption_prompt}".encode()).hexdigest()[:16]
    return state / f"captions-{digest}.json"


def _control_file(folder: Path, server_round: int) -> Path:
    return folder / f"control-{server_round}.safetensors"


def _save(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))

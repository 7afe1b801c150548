"""What a client keeps on its own disk between rounds, so that a restart loses nothing.

A run is known by the token that the server sends, which stays when the run is resumed. Folders of old runs
can be deleted at any time.
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
    """Return where a client keeps what belongs to one run.

    Raises
    ------
    ValueError
        When the token, which comes from the server, could lead anywhere else.
    """
    if not re.fullmatch(r"[0-9a-f]+", token):
        raise ValueError(f"a run's token must be hexadecimal digits, got {token!r}")
    return state / f"run-{token}"


def load_control(folder: Path, accepted: int) -> dict[str, Tensor] | None:
    """Return SCAFFOLD's variate c_i; those of other rounds are deleted.

    Parameters
    ----------
    folder : Path
        Of the run.
    accepted : int
        The last round whose change of c_i the server has taken; 0 is none.

    Returns
    -------
    dict[str, Tensor] or None
        None when no change was taken yet, which means zero.

    Raises
    ------
    FileNotFoundError
        When the variate of that round is not there: to go on from zero would bias the server's for good.
    """
    for file in folder.glob("control-*.safetensors"):
        if file != _control_file(folder, accepted):
            file.unlink()
    if not accepted:
        return None
    if not _control_file(folder, accepted).is_file():
        raise FileNotFoundError(
            f"this client's SCAFFOLD state of round {accepted} is not in {folder}; "
            "keep that folder over restarts"
        )
    return load_file(_control_file(folder, accepted))


def save_control(folder: Path, server_round: int, control: dict[str, Tensor]) -> None:
    """Keep SCAFFOLD's variate c_i of a round beside the one before: the server may not take the new one."""
    _save(_control_file(folder, server_round), control, {})


def load_local_model(folder: Path) -> tuple[dict[str, Tensor], float] | None:
    """Return the diffusion model that this client trained for the run's set-up, and its loss, if it did."""
    file = folder / _LOCAL_MODEL
    if not file.is_file():
        return None
    with safe_open(file, "pt") as content:
        return load_file(file), float(content.metadata()["loss"])


def save_local_model(folder: Path, model: dict[str, Tensor], loss: float) -> None:
    """Keep a diffusion model, so that a client that is asked again does not train it again."""
    _save(folder / _LOCAL_MODEL, model, {"loss": repr(loss)})


def load_captions(state: Path, config: RunConfig) -> dict[str, str]:
    """Return the captions written so far by this client with this captioner, by the image's content."""
    file = _captions_file(state, config)
    if not file.is_file():
        return {}
    captions: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return captions


def save_captions(state: Path, config: RunConfig, captions: dict[str, str]) -> None:
    """Keep captions, so that a restarted client does not write them again."""
    file = _captions_file(state, config)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(captions))


_LOCAL_MODEL = "local-diffusion.safetensors"


def _captions_file(state: Path, config: RunConfig) -> Path:
    who = hashlib.sha256(f"{config.captioner}\n{config.caption_prompt}".encode()).hexdigest()[:16]
    return state / f"captions-{who}.json"


def _control_file(folder: Path, server_round: int) -> Path:
    return folder / f"control-{server_round}.safetensors"


def _save(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))

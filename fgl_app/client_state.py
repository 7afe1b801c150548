"""What a client keeps on its own disk between rounds, so that a restart loses nothing."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from fgl_app.config import RunConfig
from fgl_app.files import write_atomically


def load_control(
    config: RunConfig, run_id: int, partition_id: int, accepted: int
) -> dict[str, Tensor] | None:
    """Return SCAFFOLD's variate c_i; those of other rounds are deleted.

    Parameters
    ----------
    config : RunConfig
        Says where it is.
    run_id : int
        Flower's run.
    partition_id : int
        The client.
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
    folder = _folder(config, run_id, partition_id)
    for file in folder.glob("control-*.safetensors"):
        if file != _file(folder, accepted):
            file.unlink()
    if not accepted:
        return None
    if not _file(folder, accepted).is_file():
        raise FileNotFoundError(
            f"this client's SCAFFOLD state of round {accepted} is not in {folder}; "
            "keep client-state-dir over restarts"
        )
    return load_file(_file(folder, accepted))


def save_control(
    config: RunConfig, run_id: int, partition_id: int, server_round: int, control: dict[str, Tensor]
) -> None:
    """Keep SCAFFOLD's variate c_i of a round beside the one before: the server may not take the new one."""
    folder = _folder(config, run_id, partition_id)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".control.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in control.items()}, partial)
    partial.replace(_file(folder, server_round))


def load_captions(config: RunConfig, partition_id: int) -> dict[str, str]:
    """Return the captions written so far by this client with this captioner, by the image's content."""
    file = _captions_file(config, partition_id)
    if not file.is_file():
        return {}
    captions: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return captions


def save_captions(config: RunConfig, partition_id: int, captions: dict[str, str]) -> None:
    """Keep captions, so that a restarted client does not write them again."""
    file = _captions_file(config, partition_id)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(captions))


def _captions_file(config: RunConfig, partition_id: int) -> Path:
    who = hashlib.sha256(f"{config.captioner}\n{config.caption_prompt}".encode()).hexdigest()[:16]
    return _root(config) / "captions" / f"client-{partition_id:05d}-{who}.json"


def _file(folder: Path, server_round: int) -> Path:
    return folder / f"control-{server_round}.safetensors"


def _folder(config: RunConfig, run_id: int, partition_id: int) -> Path:
    return _root(config) / f"run-{run_id}" / f"client-{partition_id:05d}"


def _root(config: RunConfig) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(config.client_state_dir).expanduser() if config.client_state_dir else cache / "fgl"

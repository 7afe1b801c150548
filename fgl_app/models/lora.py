"""LoRA weights of a text-to-image pipeline, for its text encoders, its denoiser, or both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fgl_app.models.hub_ids import is_hub_id, split_revision

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

DENOISERS = ("unet", "transformer")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


def check_lora(lora: str, family: str) -> None:
    """Raise ValueError if LoRA weights cannot be loaded or do not fit a family of pipelines."""
    if lora:
        import diffusers

        _load(getattr(diffusers, family), lora)


def lora_weights(pipeline_class: type[DiffusionPipeline], lora: str) -> dict[str, Tensor]:
    """Return LoRA weights and their scales, by their name in the pipeline."""
    loaded = _load(pipeline_class, lora)
    scales = {
        f"{name}.alpha": torch.tensor(float(value))
        for name, value in (loaded["network_alphas"] or {}).items()
    }
    ranks = {
        name: torch.tensor(float(value))
        for name, value in (loaded["metadata"] or {}).items()
        if isinstance(value, int | float)
    }
    return {**loaded["state_dict"], **scales, **ranks}


def add_lora(pipeline: DiffusionPipeline, lora: str) -> None:
    """Add LoRA weights to the loaded models of a pipeline.

    They are merged into the weights of the denoiser, which costs no time at inference. In text encoders they
    stay separate: merging rounds, so fingerprints of client and server would differ with the precision.
    """
    weights = _load(type(pipeline), lora)
    denoiser = next((name for name in DENOISERS if pipeline.components.get(name) is not None), None)
    if denoiser:
        pipeline.load_lora_weights(**_location(lora))
        pipeline.fuse_lora(components=[denoiser])
        return
    for name in TEXT_ENCODERS:
        if any(key.startswith(f"{name}.") for key in weights["state_dict"]):
            pipeline.load_lora_into_text_encoder(
                **weights, text_encoder=getattr(pipeline, name), prefix=name, _pipeline=pipeline
            )


def _location(lora: str) -> dict[str, Any]:
    """Return the arguments by which diffusers finds LoRA weights."""
    path = Path(lora).expanduser()
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            raise ValueError(
                f"generator-lora folder {path} must contain one safetensors file, it has {len(files)}"
            )
        path = files[0]
    if not (path.exists() or is_hub_id(lora)):
        raise ValueError(
            f"generator-lora must be a safetensors file, its folder or a hub id 'owner/name', got '{lora}'"
        )
    name, revision = (str(path), {}) if path.exists() else split_revision(lora)
    return {"pretrained_model_name_or_path_or_dict": name, "use_safetensors": True, **revision}


def _load(pipeline_class: type[DiffusionPipeline], lora: str) -> dict[str, Any]:
    """Return weights, scales and metadata as arguments of the loaders of diffusers."""
    from safetensors import SafetensorError

    if not hasattr(pipeline_class, "lora_state_dict"):
        raise ValueError(
            f"a {pipeline_class.__name__} takes no LoRA weights; generator-lora must be empty, got '{lora}'"
        )
    try:
        # Some families also return scales.
        weights, *scales, metadata = pipeline_class.lora_state_dict(
            **_location(lora), return_lora_metadata=True
        )
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(
            f"generator-lora '{lora}' cannot be read or downloaded ({error}); give a safetensors file"
        ) from error
    prefixes = {key.partition(".")[0] for key in weights}
    if not prefixes or not prefixes <= {*DENOISERS, *TEXT_ENCODERS}:
        raise ValueError(
            f"generator-lora '{lora}' has no LoRA weights of a {pipeline_class.__name__}: "
            f"its keys begin with {', '.join(sorted(prefixes)) or 'nothing'}"
        )
    return {"state_dict": weights, "network_alphas": scales[0] if scales else None, "metadata": metadata}

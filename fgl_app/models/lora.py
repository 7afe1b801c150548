"""LoRA weights of a text-to-image pipeline: for its text encoders, its denoiser, or both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fgl_app.models.hub_ids import is_hub_id

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

DENOISERS = ("unet", "transformer")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


def check_lora(lora: str, family: str) -> None:
    """Check that LoRA weights can be had, and that a family of pipelines takes them.

    Parameters
    ----------
    lora : str
        A safetensors file, a folder that holds one, or a hub id; empty for none.
    family : str
        Class of the pipeline.

    Raises
    ------
    ValueError
        When they cannot be read, or belong to no part of such a pipeline.
    """
    if not lora:
        return
    import diffusers

    pipeline_class = getattr(diffusers, family)
    _read(pipeline_class, lora)


def lora_weights(pipeline_class: type[DiffusionPipeline], lora: str) -> dict[str, Tensor]:
    """Return LoRA weights by the name of their place in a pipeline, scales among them."""
    read = _read(pipeline_class, lora)
    scales = {
        f"{name}.alpha": torch.tensor(float(value)) for name, value in (read["network_alphas"] or {}).items()
    }
    ranks = {
        name: torch.tensor(float(value))
        for name, value in (read["metadata"] or {}).items()
        if isinstance(value, int | float)
    }
    return {**read["state_dict"], **scales, **ranks}


def add_lora(pipeline: DiffusionPipeline, lora: str) -> None:
    """Add LoRA weights to those models of a pipeline that are loaded.

    The denoiser's are merged into its weights, which costs no time in use. The text encoders' stay beside
    theirs: merging rounds, and the fingerprints of client and server would differ with their precision.

    Parameters
    ----------
    pipeline : DiffusionPipeline
        Whole, or the part that encodes prompts.
    lora : str
        As :func:`check_lora` takes it.
    """
    weights = _read(type(pipeline), lora)
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
    """Return where diffusers finds LoRA weights."""
    place = Path(lora).expanduser()
    if place.is_dir():
        files = sorted(place.glob("*.safetensors"))
        if len(files) != 1:
            raise ValueError(
                f"generator-lora folder {place} must hold one safetensors file, it has {len(files)}"
            )
        place = files[0]
    if place.exists():
        return {"pretrained_model_name_or_path_or_dict": str(place), "use_safetensors": True}
    if not is_hub_id(lora):
        raise ValueError(
            f"generator-lora must be a safetensors file, its folder or a hub id 'owner/name', got '{lora}'"
        )
    name, _, revision = lora.partition("@")
    found = {"pretrained_model_name_or_path_or_dict": name, "use_safetensors": True}
    return found | ({"revision": revision} if revision else {})


def _read(pipeline_class: type[DiffusionPipeline], lora: str) -> dict[str, Any]:
    """Return weights, scales and metadata, as diffusers' loaders take them."""
    from safetensors import SafetensorError

    if not hasattr(pipeline_class, "lora_state_dict"):
        raise ValueError(
            f"a {pipeline_class.__name__} takes no LoRA weights; generator-lora must be empty, got '{lora}'"
        )
    try:
        # Some families have scales of their own between the two.
        weights, *scales, metadata = pipeline_class.lora_state_dict(
            **_location(lora), return_lora_metadata=True
        )
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(
            f"generator-lora '{lora}' cannot be read or reached ({error}); give a safetensors file"
        ) from error
    parts = {key.partition(".")[0] for key in weights}
    if not parts or not parts <= {*DENOISERS, *TEXT_ENCODERS}:
        raise ValueError(
            f"generator-lora '{lora}' holds no LoRA weights of a {pipeline_class.__name__}: "
            f"its keys begin with {', '.join(sorted(parts)) or 'nothing'}"
        )
    return {"state_dict": weights, "network_alphas": scales[0] if scales else None, "metadata": metadata}

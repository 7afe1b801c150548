"""Content hashes of pipelines, to compare their text encoders and their images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from fgl_app.models.lora import lora_weights

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TEXT_COMPONENTS = ("tokenizer", "text_encoder")
IMAGE_COMPONENTS = ("unet", "transformer", "vae", "scheduler")
IGNORED_CONFIG_KEYS = (
    *("_name_or_path", "_diffusers_version", "transformers_version", "dtype", "torch_dtype"),
    *("_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_use_default_values"),
)
"""Config entries on the origin and the runtime of a model."""


def encoder_fingerprint(pipeline: DiffusionPipeline) -> str:
    """Return a hash of the text encoding, the same in single and in half precision.

    16 hexadecimal digits, a hash of the tokenizers' vocabularies and of the encoders' configs, weights and
    LoRA weights.
    """
    return cast(str, pipeline.encoder_fingerprint)


def pipeline_fingerprint(pipeline: DiffusionPipeline) -> str:
    """Return a hash of all parts of a pipeline that determine its images, including the scheduler."""
    return cast(str, pipeline.whole_fingerprint)


def record_fingerprints(pipeline: DiffusionPipeline, lora: str) -> None:
    """Store the fingerprints of a new pipeline, before LoRA merging rounds and offloading hides weights."""
    weights = lora_weights(type(pipeline), lora) if lora else {}
    encoders = {name: each for name, each in weights.items() if name.startswith("text_encoder")}
    pipeline.encoder_fingerprint = _fingerprint(pipeline, TEXT_COMPONENTS, encoders)
    pipeline.whole_fingerprint = _fingerprint(
        pipeline, IMAGE_COMPONENTS, weights, begin=pipeline.encoder_fingerprint
    )


def _fingerprint(
    pipeline: DiffusionPipeline, parts: tuple[str, ...], lora: Mapping[str, Tensor], begin: str = ""
) -> str:
    digest = hashlib.sha256(begin.encode())

    def add_weights(weights: Mapping[str, Tensor]) -> None:
        for key, tensor in sorted(weights.items()):
            digest.update(key.encode())
            digest.update(tensor.to("cpu", torch.float16).numpy().tobytes())

    for name, part in sorted(pipeline.components.items()):
        if part is None or not name.startswith(parts):
            continue
        digest.update(name.encode())
        if name.startswith("tokenizer"):
            digest.update(json.dumps(sorted(part.get_vocab().items())).encode())
            continue
        is_plain = name == "scheduler" or not hasattr(part.config, "to_dict")
        config = dict(part.config) if is_plain else part.config.to_dict()
        own = {key: str(value) for key, value in config.items() if key not in IGNORED_CONFIG_KEYS}
        digest.update(json.dumps(own, sort_keys=True).encode())
        if name != "scheduler":
            add_weights(part.state_dict())
    add_weights(lora)
    return digest.hexdigest()[:16]

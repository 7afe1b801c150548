"""Autoencoders of text-to-image pipelines, for latent diffusion."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from fgl_app.models.generators import import_diffusers, load_pipeline_config, pretrained_arguments

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


@lru_cache(maxsize=1)
def load_autoencoder(generator: str, device: torch.device) -> AutoencoderKL:
    """Load only the autoencoder of a generator, in single precision; cached for the next call."""
    diffusers = import_diffusers()
    load_pipeline_config(generator)
    # Safetensors only: a pickled weight file can run code.
    vae = diffusers.AutoencoderKL.from_pretrained(
        **pretrained_arguments(generator), subfolder="vae", dtype=torch.float32, use_safetensors=True
    )
    return vae.to(device).eval()


def autoencoder_factor(generator: str) -> int:
    """Return the ratio between the sides of an autoencoder's images and latents."""
    return int(2 ** (len(_load_config(generator)["block_out_channels"]) - 1))


def autoencoder_channels(generator: str) -> int:
    """Return the number of image channels of an autoencoder."""
    return int(_load_config(generator)["in_channels"])


def _load_config(generator: str) -> dict[str, Any]:
    diffusers = import_diffusers()
    load_pipeline_config(generator)
    config: dict[str, Any] = diffusers.AutoencoderKL.load_config(
        **pretrained_arguments(generator), subfolder="vae"
    )
    return config

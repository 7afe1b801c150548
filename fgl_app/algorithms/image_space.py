"""Conversion between uint8 images and the space in which diffusion takes place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fgl_app.algorithms.classification import to_input
from fgl_app.algorithms.types import LabeledImages, LabeledLatents

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

BATCH_SIZE = 250


@dataclass(frozen=True)
class ImageSpace:
    """Pixels (``vae`` is None), or the latents of a frozen autoencoder (Rombach et al. 2022)."""

    vae: AutoencoderKL | None

    @torch.no_grad()
    def encode(self, data: LabeledImages) -> LabeledLatents:
        """Return images as U-Net input; in latent space, the scaled mean of the autoencoder's posterior.

        The images must have the channels of the autoencoder.
        """
        if self.vae is None:
            return LabeledLatents(to_input(data.images), data.labels)
        latents = [
            self.vae.encode(to_input(images.to(self.vae.device))).latent_dist.mean
            for images in data.images.split(BATCH_SIZE)
        ]
        return LabeledLatents(torch.cat(latents).cpu() * self.vae.config.scaling_factor, data.labels)

    @torch.no_grad()
    def decode(self, data: LabeledLatents) -> LabeledImages:
        """Return samples of the U-Net as images."""
        pixels = data.latents
        if self.vae is not None:
            scaled = data.latents.to(self.vae.device) / self.vae.config.scaling_factor
            pixels = torch.cat(
                [self.vae.decode(latents).sample for latents in scaled.split(BATCH_SIZE)]
            ).cpu()
        images = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return LabeledImages(images, data.labels)

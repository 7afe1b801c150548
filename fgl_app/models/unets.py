"""U-Nets of unconditional and class-conditional diffusion models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import UNet2DModel

UNETS: dict[str, dict[str, Any]] = {
    # 0.65 million weights, for the 8 x 8 latents of the embedded autoencoder.
    "small": {
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "norm_num_groups": 8,
    },
    # 35.7 million weights: the CIFAR-10 model of Ho et al. 2020, with attention at half the resolution.
    "ddpm": {
        "block_out_channels": (128, 256, 256, 256),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
        "dropout": 0.1,
    },
}


def check_unet(name: str, side: int) -> None:
    """Raise ValueError if a U-Net cannot take examples of ``side`` x ``side``."""
    factor = 2 ** (len(UNETS[name]["block_out_channels"]) - 1)
    if side % factor or side < 2 * factor:
        raise ValueError(
            f"unet '{name}' needs sides that are multiples of {factor}, at least {2 * factor}, got {side}; "
            "change image-size or diffusion-space"
        )


def build_unet(name: str, *, channels: int, side: int, num_classes: int, seed: int) -> UNet2DModel:
    """Build the U-Net "small" or "ddpm" with seeded initial weights, on the CPU.

    ``channels`` and ``side`` are the shape of the examples; ``num_classes`` is 0 for an unconditional model.
    The global random state does not change.
    """
    from diffusers import UNet2DModel

    check_unet(name, side)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DModel(
            sample_size=side,
            in_channels=channels,
            out_channels=channels,
            num_class_embeds=num_classes or None,
            **UNETS[name],
        )

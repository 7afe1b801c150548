"""The autoencoder: 1x32x32 digits to 4x8x8 latents and back."""

import time

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

_KL_WEIGHT = 1e-4
_BATCH = 64


def build_vae() -> AutoencoderKL:
    """Build a one-channel `AutoencoderKL` that reduces each side by 4."""
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
        force_upcast=False,
    )


def train_vae(images: Tensor, steps: int, device: torch.device) -> AutoencoderKL:
    """Train on `images` (uint8, (N, 1, 32, 32)); the scaling factor is 1 / deviation of the latents."""
    vae = build_vae().to(device).train()
    optimizer = torch.optim.AdamW(vae.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    started = time.monotonic()
    for step in range(1, steps + 1):
        batch = to_model(images[torch.randint(len(images), (_BATCH,))]).to(device)
        posterior = vae.encode(batch).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        error = functional.mse_loss(decoded, batch) + 0.2 * functional.l1_loss(decoded, batch)
        loss = error + _KL_WEIGHT * posterior.kl().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == steps:
            spent = time.monotonic() - started
            print(f"vae: step {step}/{steps}, error {error.item():.4f}, {spent:.0f} s", flush=True)
    vae.eval().requires_grad_(False)
    vae.register_to_config(scaling_factor=1 / encode(vae, images[:5000], device).std().item())
    return vae


@torch.inference_mode()
def encode(vae: AutoencoderKL, images: Tensor, device: torch.device) -> Tensor:
    """Return unscaled mean latents of uint8 images, float32 of shape (N, 4, 8, 8) on the CPU."""
    parts = [vae.encode(to_model(part).to(device)).latent_dist.mean.cpu() for part in images.split(250)]
    return torch.cat(parts)


def to_model(images: Tensor) -> Tensor:
    """Return uint8 images as model input in [-1, 1]."""
    return images.float() / 127.5 - 1

"""Joint training of U-Net and text encoder: v-prediction in the latents of the autoencoder."""

import copy
import random
import time
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from tools.digits_generator.recipe import Recipe
from tools.digits_generator.renders import Renders, degrade
from tools.digits_generator.text import (
    build_text_encoder,
    build_tokenizer,
    degraded_prompt,
    training_prompt,
)
from tools.digits_generator.vae import encode

_BATCH = 64
_EMA_DECAY = 0.998
_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
}


@dataclass(frozen=True)
class TextToLatents:
    """The trained parts of the pipeline except for the autoencoder."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel


def build_unet() -> UNet2DConditionModel:
    """Build a two-level U-Net for 8x8 latents, with cross-attention to the text only at the 4x4 level."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(56, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def sampling_scheduler() -> DPMSolverMultistepScheduler:
    """Build the scheduler of the saved pipeline: DPM-Solver++(2M) with the noise schedule of the training."""
    return DPMSolverMultistepScheduler(**_SCHEDULE, algorithm_type="dpmsolver++", timestep_spacing="trailing")


def train_text_to_latents(
    renders: Renders, vae: AutoencoderKL, recipe: Recipe, device: torch.device
) -> TextToLatents:
    """Train U-Net and text encoder on captioned renders and return their moving averages.

    Parameters
    ----------
    renders : Renders
        Images, labels and stroke captions.
    vae : AutoencoderKL
        The frozen autoencoder.
    recipe : Recipe
        Number of steps, share of degraded renders and seed.
    device : torch.device
        Device of the training.
    """
    torch.manual_seed(recipe.seed)
    rng = random.Random(recipe.seed)
    latents, degraded = _latents(renders, vae, recipe, device)
    tokenizer = build_tokenizer()
    model = nn.ModuleList([build_text_encoder(tokenizer), build_unet()]).to(device).train()
    average = copy.deepcopy(model).eval().requires_grad_(False)
    noise_scheduler = DDPMScheduler(**_SCHEDULE)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, total_steps=recipe.unet_steps, pct_start=0.05
    )
    started = time.monotonic()
    running = 1.0
    for step in range(1, recipe.unet_steps + 1):
        rows = torch.randint(len(latents), (_BATCH,))
        ids = tokenizer(
            _prompts(renders, degraded, rows, rng), padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        loss = _loss(model, noise_scheduler, latents[rows].to(device), ids.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        _update_average(average, model, min(_EMA_DECAY, step / (step + 10)))
        running += 0.01 * (loss.item() - running)
        if step % 200 == 0 or step == recipe.unet_steps:
            spent = time.monotonic() - started
            print(f"u-net: step {step}/{recipe.unet_steps}, loss {running:.4f}, {spent:.0f} s", flush=True)
    text_encoder, unet = average
    return TextToLatents(tokenizer, text_encoder, unet)


def _latents(
    renders: Renders, vae: AutoencoderKL, recipe: Recipe, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return scaled latents of all renders and of some degraded ones, and the render rows of the latter."""
    generator = torch.Generator().manual_seed(recipe.seed)
    count = len(renders.images)
    rows = torch.randint(count, (round(recipe.degraded_share * count),), generator=generator)
    spoiled = (degrade(renders.images[rows].float() / 255, generator) * 255).round().to(torch.uint8)
    images = torch.cat([renders.images, spoiled])
    return encode(vae, images, device) * vae.config.scaling_factor, rows


def _prompts(renders: Renders, degraded: Tensor, rows: Tensor, rng: random.Random) -> list[str]:
    count = len(renders.images)
    texts = []
    for row in rows.tolist():
        if row < count:
            texts.append(training_prompt(int(renders.labels[row]), renders.captions[row], rng))
        else:
            texts.append(degraded_prompt(int(renders.labels[degraded[row - count]]), rng))
    return texts


def _loss(model: nn.ModuleList, schedule: DDPMScheduler, latents: Tensor, ids: Tensor) -> Tensor:
    text_encoder, unet = model
    steps = schedule.config.num_train_timesteps
    position = (torch.arange(len(latents)) + torch.rand(len(latents))) / len(latents)
    timesteps = (position * steps).long().to(latents.device)
    noise = torch.randn(latents.shape).to(latents.device)
    noisy = schedule.add_noise(latents, noise, timesteps)
    predicted = unet(noisy, timesteps, text_encoder(ids).last_hidden_state).sample
    return functional.mse_loss(predicted, schedule.get_velocity(latents, noise, timesteps))


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)

"""Sampling of digits from a saved pipeline."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from tools.digits_generator.text import NEGATIVE_PROMPT

_BATCH = 250


def load_pipeline(folder: Path, device: torch.device) -> StableDiffusionPipeline:
    """Load a pipeline in float32."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def synthesize(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], *, guidance: float, steps: int, seed: int
) -> tuple[Tensor, float]:
    """Generate one image per prompt and measure the time.

    Returns
    -------
    tuple of Tensor and float
        Images, float32 in [0, 1] of shape (N, 1, 32, 32) on the CPU, and the wall time.
    """
    generator = torch.Generator().manual_seed(seed)
    started = time.monotonic()
    parts = []
    for start in range(0, len(prompts), _BATCH):
        batch = list(prompts[start : start + _BATCH])
        images = pipeline(
            batch,
            negative_prompt=[NEGATIVE_PROMPT] * len(batch) if guidance > 1 else None,
            guidance_scale=guidance,
            num_inference_steps=steps,
            generator=generator,
            output_type="pt",
        ).images
        parts.append(images.float().cpu())
    return torch.cat(parts), time.monotonic() - started

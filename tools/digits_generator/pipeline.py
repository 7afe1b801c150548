"""Assembly of the parts, saved in the folder format of `StableDiffusionPipeline`."""

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from tools.digits_generator.diffusion import TextToLatents, sampling_scheduler

MODEL_CARD = "README.md"


def build_pipeline(model: TextToLatents, vae: AutoencoderKL) -> StableDiffusionPipeline:
    """Assemble a pipeline without safety checker and image encoder, in float16."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=sampling_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return pipeline.to(dtype=torch.float16)


def save_pipeline(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Save as safetensors in a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    pipeline.save_pretrained(folder, safe_serialization=True)


def put_in_place(folder: Path, out: Path) -> None:
    """Replace `out` by a copy of `folder`; at any time it contains the old model or the new one."""
    fresh, stale = out.with_name(f".{out.name}.new"), out.with_name(f".{out.name}.old")
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(folder, fresh)
    if out.exists():
        out.rename(stale)
    fresh.rename(out)
    shutil.rmtree(stale, ignore_errors=True)


def folder_size(folder: Path) -> int:
    """Return the total size of the files in a folder, in bytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

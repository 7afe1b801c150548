"""Synthesis: from text embeddings to a labelled image set (arXiv 2306.16064, section 3.3)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fgl_app.algorithms.apportion import apportion
from fgl_app.algorithms.randomness import seeded
from fgl_app.algorithms.types import LabeledImages, TextEmbeddings

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class SynthesisSettings:
    """How images are denoised.

    Parameters
    ----------
    num_inference_steps : int
        Denoising steps (paper: 50).
    guidance_scale : float
        Classifier-free guidance w (paper: 2); 1 is none.
    batch_size : int
        Images denoised at a time; it does not change the images.
    seed : int
        Seed of the images' noise.
    """

    num_inference_steps: int
    guidance_scale: float
    batch_size: int
    seed: int


def allot_images(labels: Tensor, counts: Tensor, images_per_class: int) -> Tensor:
    """Share each class's image budget among its prompts in proportion to their counts.

    Parameters
    ----------
    labels : Tensor
        int64, shape (P,): the class of each prompt.
    counts : Tensor
        int64, shape (P,), positive: private examples behind each prompt.
    images_per_class : int
        Budget of a class.

    Returns
    -------
    Tensor
        int64, shape (P,). The shares of a class add up to the budget (largest remainder; the earlier
        prompt wins a tie).
    """
    shares = torch.zeros_like(counts)
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        floors = apportion(counts[rows].tolist(), images_per_class)
        shares[rows] = torch.tensor(floors, dtype=shares.dtype)
    return shares


def _denoiser_dtype(pipeline: DiffusionPipeline) -> torch.dtype:
    denoiser = pipeline.components.get("unet") or pipeline.components["transformer"]
    dtype: torch.dtype = denoiser.dtype
    return dtype


@torch.inference_mode()
def synthesize(
    pipeline: DiffusionPipeline,
    embeddings: TextEmbeddings,
    shares: Tensor,
    settings: SynthesisSettings,
    *,
    negative: Mapping[str, Tensor] | None = None,
    callback: Callable[[int], None] | None = None,
) -> LabeledImages:
    """Synthesize a labelled image set from text embeddings.

    Parameters
    ----------
    pipeline : DiffusionPipeline
        A text-to-image pipeline whose call takes the embeddings' names as arguments.
    embeddings : TextEmbeddings
        P prompts with classes and counts.
    shares : Tensor
        int64, shape (P,): images of each prompt, as :func:`allot_images` gives them.
    settings : SynthesisSettings
        Steps, guidance, batch size, seed.
    negative : Mapping[str, Tensor] or None, default None
        Encoded negative prompt, shape (1, ...) each, of those that bring none of their own; needed when the
        guidance scale is above 1.
    callback : Callable[[int], None] or None, default None
        Called with the number of images of each finished batch.

    Returns
    -------
    LabeledImages
        uint8 images of the pipeline's own size, in the order of the prompts.
    """
    takes = inspect.signature(pipeline.__call__).parameters
    fixed: dict[str, Any] = {
        "num_inference_steps": settings.num_inference_steps,
        "guidance_scale": settings.guidance_scale,
        "output_type": "pt",
    }
    if "use_resolution_binning" in takes:
        # The images keep the model's own size, whatever list of sizes its family has.
        fixed["use_resolution_binning"] = False
    if "negative_prompt" in takes:
        # For some it is "" by default, which must not come beside an encoded one.
        fixed["negative_prompt"] = None
    plan = [(row, image) for row, share in enumerate(shares.tolist()) for image in range(share)]
    device, dtype = pipeline._execution_device, _denoiser_dtype(pipeline)
    others = {
        f"negative_{name}": tensor.expand(len(embeddings), *tensor.shape[1:])
        for name, tensor in (negative or {}).items()
    }
    conditions = {name: tensor.to(device, dtype) for name, tensor in {**others, **embeddings.tensors}.items()}
    batches = []
    for start in range(0, len(plan), settings.batch_size):
        batch = plan[start : start + settings.batch_size]
        rows = [row for row, _ in batch]
        # Models that were distilled with guidance take no negative prompt.
        inputs = {name: tensor[rows] for name, tensor in conditions.items() if name in takes}
        images = pipeline(
            **inputs,
            **fixed,
            # A stream for each image: it is the same image in any batch and after any interruption.
            generator=[seeded("image", settings.seed, row, image) for row, image in batch],
        ).images
        batches.append((images.float() * 255).round().to(torch.uint8).cpu())
        if callback:
            callback(len(batch))
    labels = embeddings.labels.repeat_interleave(shares)
    return LabeledImages(torch.cat(batches), labels)

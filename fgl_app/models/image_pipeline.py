"""Saving of diffusion models as pipelines of diffusers, with a pipeline for class-conditional models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import (
    AutoencoderKL,
    DDPMPipeline,
    DiffusionPipeline,
    ImagePipelineOutput,
    LDMPipeline,
    SchedulerMixin,
    UNet2DModel,
)

from fgl_app.algorithms.image_space import ImageSpace
from fgl_app.algorithms.sampling import sample


class ClassConditionalPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Draw images of given classes; diffusers has no such pipeline for a ``UNet2DModel``.

    ``from_pretrained`` loads it from the folder ``diffusion`` of a FedDDPM run.

    Parameters
    ----------
    unet : UNet2DModel
        With class embeddings.
    scheduler : SchedulerMixin
        The sampler.
    vae : AutoencoderKL or None, default None
        Autoencoder of a latent diffusion model; None in pixel space.
    class_names : Sequence[str], default ()
        Name of each class.
    """

    _optional_components: ClassVar[list[str]] = ["vae"]
    model_cpu_offload_seq = "unet->vae"

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        vae: AutoencoderKL | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, vae=vae)
        self.register_to_config(class_names=list(class_names))

    def __call__(
        self,
        class_labels: Sequence[int],
        *,
        num_inference_steps: int = 10,
        seed: int = 0,
        batch_size: int = 250,
    ) -> ImagePipelineOutput:
        """Draw one image per class label.

        Parameters
        ----------
        class_labels : Sequence[int]
            Class numbers, one per image.
        num_inference_steps : int, default 10
            Denoising steps.
        seed : int, default 0
            Seed of the noise; image i uses ``seed + i``.
        batch_size : int, default 250
            Images per batch.

        Returns
        -------
        ImagePipelineOutput
            Its ``images`` are PIL images, RGB or greyscale, in the order of the labels.
        """
        from PIL import Image

        generators = [torch.Generator("cpu").manual_seed(seed + i) for i in range(len(class_labels))]
        latents = sample(
            self.unet,
            self.scheduler,
            torch.tensor(list(class_labels)),
            generators,
            num_inference_steps=num_inference_steps,
            batch_size=batch_size,
        )
        pixels = ImageSpace(self.vae).decode(latents).arrays()
        return ImagePipelineOutput(images=[Image.fromarray(image) for image in pixels])


def save_image_pipeline(
    unet: UNet2DModel, space: ImageSpace, sampler: SchedulerMixin, class_names: Sequence[str], folder: Path
) -> None:
    """Save a diffusion model as a pipeline folder of diffusers.

    A class-conditional model becomes a :class:`ClassConditionalPipeline`; an unconditional one becomes a
    ``DDPMPipeline`` of diffusers, or an ``LDMPipeline`` in latent space.
    """
    pipeline: Any
    if unet.config.num_class_embeds:
        pipeline = ClassConditionalPipeline(unet, sampler, space.vae, class_names)
    elif space.vae is None:
        pipeline = DDPMPipeline(unet, sampler)
    else:
        pipeline = LDMPipeline(space.vae, unet, sampler)
    pipeline.save_pretrained(folder)

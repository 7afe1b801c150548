"""Sampling from a diffusion model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fgl_app.algorithms.diffusion import class_condition
from fgl_app.algorithms.types import LabeledLatents

if TYPE_CHECKING:
    from diffusers import SchedulerMixin, UNet2DModel


@torch.no_grad()
def sample(
    unet: UNet2DModel,
    scheduler: SchedulerMixin,
    labels: Tensor,
    generators: Sequence[torch.Generator],
    *,
    num_inference_steps: int,
    batch_size: int,
    callback: Callable[[int], None] | None = None,
) -> LabeledLatents:
    """Return N samples of a diffusion model, float32 on the CPU.

    Parameters
    ----------
    unet : UNet2DModel
        The model.
    scheduler : SchedulerMixin
        Sampler of the process that the model was trained with.
    labels : Tensor
        int64, shape (N,): the class of each sample; ignored by an unconditional model.
    generators : Sequence[torch.Generator]
        N generators on the CPU, one per sample: a sample is the same in any batch.
    num_inference_steps, batch_size : int
        Denoising steps, and samples per batch.
    callback : Callable[[int], None] or None, default None
        Called with the number of samples after each batch.
    """
    unet.eval()
    shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    is_ancestral = type(scheduler).__name__ == "DDPMScheduler"
    batches = []
    for start in range(0, len(labels), batch_size):
        part = slice(start, start + batch_size)
        noise = [torch.randn(shape, generator=generator) for generator in generators[part]]
        x = torch.stack(noise).to(unet.device)
        classes = class_condition(unet, labels[part])
        scheduler.set_timesteps(num_inference_steps)
        x = x * scheduler.init_noise_sigma
        options = {"generator": list(generators[part])} if is_ancestral else {}
        for time in scheduler.timesteps:
            predicted = unet(scheduler.scale_model_input(x, time), time, class_labels=classes).sample
            x = scheduler.step(predicted, time, x, **options).prev_sample
        batches.append(x.float().cpu())
        if callback:
            callback(len(x))
    return LabeledLatents(torch.cat(batches), labels)
